package edge_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"
	"time"

	"github.com/loadlinehq/loadline/edge"
)

func TestDeadline(t *testing.T) {
	t.Parallel()
	var left time.Duration
	var has bool
	chain := edge.Deadline(edge.DeadlineConfig{
		Route: func(r *http.Request) time.Duration {
			return map[string]time.Duration{"/stream": -1, "/slow": time.Minute}[r.URL.Path]
		},
		Trusts: func(r *http.Request) bool { return r.RemoteAddr == "10.0.0.1:1" },
	})(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var at time.Time
		at, has = r.Context().Deadline()
		left = time.Until(at)
	}))
	for name, test := range map[string]struct {
		path, remote, header string
		least, most          time.Duration // 0: none
		status               int
	}{
		"default":                    {"/", "", "", 9 * time.Second, 10 * time.Second, 200},
		"a route's":                  {"/slow", "", "", 59 * time.Second, time.Minute, 200},
		"a stream":                   {"/stream", "", "", 0, 0, 200},
		"a stranger's word":          {"/", "203.0.113.1:1", "100", 9 * time.Second, 10 * time.Second, 200},
		"a caller's":                 {"/", "10.0.0.1:1", "2000", time.Second, 2 * time.Second, 200},
		"a caller's that is longer":  {"/", "10.0.0.1:1", "20000", 9 * time.Second, 10 * time.Second, 200},
		"a caller's of a stream":     {"/stream", "10.0.0.1:1", "2000", time.Second, 2 * time.Second, 200},
		"a caller who has gone":      {"/", "10.0.0.1:1", "0", 0, 0, 504},
		"a caller who talks rubbish": {"/", "10.0.0.1:1", "99999999999999999999", 9 * time.Second, 10 * time.Second, 200},
		"one who has for ever":       {"/", "10.0.0.1:1", "9223372036854775807", 9 * time.Second, 10 * time.Second, 200},
	} {
		left, has = 0, false
		r := httptest.NewRequest(http.MethodGet, test.path, nil)
		r.RemoteAddr = test.remote
		if test.header != "" {
			r.Header.Set("X-Request-Timeout-Ms", test.header)
		}
		rec := httptest.NewRecorder()
		chain.ServeHTTP(rec, r)
		if rec.Code != test.status || has != (test.most > 0) || has && (left < test.least || left > test.most) {
			t.Errorf("%s: %d, deadline %v in %v", name, rec.Code, has, left)
		}
	}
}

// Who returns too late without an answer has not said 200.
func TestTooLate(t *testing.T) {
	t.Parallel()
	quiet := edge.Errors{Log: slog.New(slog.DiscardHandler)}
	for name, test := range map[string]struct {
		handler http.HandlerFunc
		status  int
	}{
		"nothing":   {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, 504},
		"an answer": {func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done(); w.WriteHeader(418) }, 418},
		"a flush": {func(w http.ResponseWriter, r *http.Request) {
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}, 200},
		"in time": {func(http.ResponseWriter, *http.Request) {}, 200},
		"its error": {func(w http.ResponseWriter, r *http.Request) {
			<-r.Context().Done()
			quiet.Answer(w, r, context.Cause(r.Context()))
		}, 504},
	} {
		rec := httptest.NewRecorder()
		edge.Deadline(edge.DeadlineConfig{Default: time.Millisecond, Errors: quiet})(test.handler).ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/", nil))
		if name == "in time" && rec.Code == 504 {
			continue // a slow machine
		}
		if rec.Code != test.status {
			t.Errorf("%s: %d %s", name, rec.Code, rec.Body)
		}
	}
}

func TestPassDeadline(t *testing.T) {
	t.Parallel()
	var said string
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { said = r.Header.Get("X-Request-Timeout-Ms") }))
	t.Cleanup(server.Close)
	client := &http.Client{Transport: edge.PassDeadline(nil)}
	call := func(ctx context.Context) error {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := client.Do(r)
		if err != nil {
			return err
		}
		_, _ = io.Copy(io.Discard, answer.Body)
		if r.Header.Get("X-Request-Timeout-Ms") != "" {
			t.Error("the caller's request is changed")
		}
		return answer.Body.Close()
	}
	if err := call(t.Context()); err != nil || said != "" {
		t.Errorf("without a deadline: %q, %v", said, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := call(ctx); err != nil {
		t.Fatal(err)
	}
	if ms, err := strconv.Atoi(said); err != nil || ms < 50_000 || ms > 59_995 {
		t.Errorf("of a minute %q ms are left, %v", said, err)
	}
	said = ""
	late, cancel := context.WithTimeout(t.Context(), 3*time.Millisecond)
	defer cancel()
	if err := call(late); !errors.Is(err, context.DeadlineExceeded) || said != "" {
		t.Errorf("with no time left: %v, and it was told %q", err, said)
	}
}
