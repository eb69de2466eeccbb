package edge_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/loadlinehq/loadline/edge"
)

func answer(t testing.TB, e edge.Errors, r *http.Request, err error) (*http.Response, map[string]any) {
	t.Helper()
	rec := httptest.NewRecorder()
	e.Answer(rec, r, err)
	var p map[string]any
	if err := json.Unmarshal(rec.Body.Bytes(), &p); err != nil {
		t.Fatalf("%v: %s", err, rec.Body)
	}
	return rec.Result(), p
}

type teapot struct{ error }

func (teapot) HTTPStatus() int           { return http.StatusTeapot }
func (teapot) RetryAfter() time.Duration { return 1500 * time.Millisecond }

type broken struct{ error }

func (broken) HTTPStatus() int { return http.StatusBadGateway }

type nonsense struct{ error }

func (nonsense) HTTPStatus() int { return 200 }

func TestErrors(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	e := edge.Errors{Log: slog.New(slog.NewTextHandler(&log, nil))}
	request := httptest.NewRequest(http.MethodGet, "/things/7", nil)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for name, test := range map[string]struct {
		r      *http.Request
		err    error
		status int
		detail string
		logged bool
	}{
		"any":                         {request, errors.New("the password is 7"), 500, "", true},
		"one with a status":           {request, fmt.Errorf("short: %w", teapot{errors.New("and stout")}), 418, "short: and stout", false},
		"one that is the server's":    {request, broken{errors.New("the password is 7")}, 502, "", true},
		"one with a status of no use": {request, nonsense{errors.New("secret")}, 500, "", true},
		"a deadline":                  {request, fmt.Errorf("query: %w", context.DeadlineExceeded), 504, "", true},
		"a body":                      {request, &http.MaxBytesError{Limit: 7}, 413, "at most 7 bytes are accepted", false},
		"a client who has gone":       {request.WithContext(gone), context.Canceled, 499, "", false},
		"somebody else who has gone":  {request, context.Canceled, 500, "", true},
		"a problem":                   {request, fmt.Errorf("x: %w", &edge.Problem{Status: 409, Detail: "twice"}), 409, "twice", false},
		"overload":                    {request, &edge.Problem{Status: 503, After: time.Second}, 503, "", false},
	} {
		log.Reset()
		got, p := answer(t, e, test.r, test.err)
		detail, _ := p["detail"].(string)
		if got.StatusCode != test.status || detail != test.detail || (log.Len() > 0) != test.logged {
			t.Errorf("%s: %d %v, logged %q", name, got.StatusCode, p, log.String())
		}
		if p["status"] != float64(test.status) || p["title"] == "" {
			t.Errorf("%s: %v", name, p)
		}
	}
	if got, _ := answer(t, e, request, teapot{errors.New("x")}); got.Header.Get("Retry-After") != "2" {
		t.Errorf("Retry-After is %q", got.Header.Get("Retry-After"))
	}
}

// RFC 9457, section 3: the media type, the members, and extensions that do not stand in for them.
func TestProblemRFC9457(t *testing.T) {
	t.Parallel()
	rec := httptest.NewRecorder()
	rec.Header().Set("Content-Length", "7")
	rec.Header().Set("ETag", `"x"`)
	rec.Header().Set("Cache-Control", "public, max-age=60")
	edge.WriteProblem(rec, &edge.Problem{
		Type: "https://example.com/probs/out-of-credit", Title: "You do not have enough credit.", Status: 403,
		Detail: "Your current balance is 30, but that costs 50.", Instance: "/account/12345/msgs/abc",
		Extensions: map[string]any{"balance": 30, "status": 200, "detail": "no"},
	})
	got := rec.Result()
	body, _ := io.ReadAll(got.Body)
	var p map[string]any
	if err := json.Unmarshal(body, &p); err != nil {
		t.Fatal(err)
	}
	if got.Header.Get("Content-Type") != "application/problem+json" || got.Header.Get("Content-Length") == "7" || got.Header.Get("ETag") != "" || got.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("%v", got.Header)
	}
	if len(p) != 6 || p["balance"] != 30.0 || p["status"] != 403.0 || p["type"] != "https://example.com/probs/out-of-credit" || !strings.HasPrefix(p["detail"].(string), "Your") {
		t.Errorf("%s", body)
	}
	// One that cannot be written is left out, and the rest is not.
	rec = httptest.NewRecorder()
	edge.WriteProblem(rec, &edge.Problem{Status: 400, Extensions: map[string]any{"f": func() {}}})
	if got := strings.TrimSpace(rec.Body.String()); got != `{"status":400,"title":"Bad Request"}` {
		t.Errorf("%s", got)
	}
}

func TestRecover(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	e := edge.Errors{Log: slog.New(slog.NewTextHandler(&log, nil))}
	chain := edge.Recover(e)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/begun":
			_, _ = io.WriteString(w, "half of it")
			_ = http.NewResponseController(w).Flush()
			panic("in the middle")
		case "/flushed":
			_ = http.NewResponseController(w).Flush()
			panic("after a flush")
		case "/hijacked":
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			conn.Close()
			panic("of a connection that is another's")
		case "/hints":
			w.WriteHeader(http.StatusEarlyHints)
			panic("after hints")
		case "/aborted":
			panic(http.ErrAbortHandler)
		}
		panic("at once")
	}))
	var running sync.WaitGroup // the server itself does not wait for who took a connection over
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		running.Add(1)
		defer running.Done()
		chain.ServeHTTP(w, r)
	}))
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	t.Cleanup(server.Close)
	for path, want := range map[string]int{"/": 500, "/hints": 500} {
		got, err := server.Client().Get(server.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(got.Body)
		got.Body.Close()
		if got.StatusCode != want || err != nil || strings.Contains(string(body), "once") {
			t.Errorf("%s: %d %s, %v", path, got.StatusCode, body, err)
		}
	}
	for _, path := range []string{"/begun", "/flushed"} {
		got, err := server.Client().Get(server.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		if body, err := io.ReadAll(got.Body); err == nil {
			t.Errorf("%s: an answer that was cut short looks whole: %s", path, body)
		}
		got.Body.Close()
	}
	if got, err := server.Client().Get(server.URL + "/hijacked"); err == nil {
		t.Errorf("a connection that was taken over answers %d", got.StatusCode)
	}
	if _, err := server.Client().Get(server.URL + "/aborted"); err == nil {
		t.Error("an aborted handler has answered")
	}
	server.Close()
	running.Wait()
	for _, want := range []string{"in the middle", "after hints", "after a flush", "of a connection that is another's", "at once", "problem_test.go"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log does not say %q", want)
		}
	}
	if n := strings.Count(log.String(), "a request has failed"); n != 5 {
		t.Errorf("%d are logged:\n%s", n, log.String())
	}
}

func TestMaxBody(t *testing.T) {
	t.Parallel()
	handler := edge.MaxBody(10, edge.Errors{})(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.ReadAll(r.Body); err != nil {
			edge.Errors{}.Answer(w, r, err)
		}
	}))
	for body, want := range map[string]int{"": 200, "0123456789": 200, "0123456789a": 413} {
		for _, told := range []bool{true, false} {
			r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body))
			if !told {
				r.ContentLength = -1
			}
			rec := httptest.NewRecorder()
			if handler.ServeHTTP(rec, r); rec.Code != want {
				t.Errorf("%d bytes, told %v: %d", len(body), told, rec.Code)
			}
		}
	}
}
