package httpapi_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/loadlinehq/loadline/causal"
	"github.com/loadlinehq/loadline/examples/conduit"
)

func TestPanicIsAnswered(t *testing.T) {
	t.Parallel()
	s := newServer(t, nil) // a nil store panics
	res := s.do(t, "GET", "/api/articles/s", "", "")
	if res.StatusCode != 500 || len(problems(t, res)) != 1 {
		t.Errorf("status %d", res.StatusCode)
	}
	if !strings.Contains(s.log.String(), "nil pointer") || !strings.Contains(s.log.String(), "getArticle") {
		t.Errorf("the log says %s", s.log)
	}
}

func TestClientGoneIsNotAnError(t *testing.T) {
	t.Parallel()
	s := newServer(t, stub{err: context.Canceled})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s.handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(ctx, "GET", "/api/articles/s", nil))
	if log := s.log.String(); strings.Contains(log, "ERROR") || !strings.Contains(log, "status=499") {
		t.Errorf("the log says %s", log)
	}
}

func TestAccessLog(t *testing.T) {
	t.Parallel()
	s := newServer(t, stub{})
	r := httptest.NewRequestWithContext(t.Context(), "GET", "/api/articles/some-slug", nil)
	r.Header.Set("X-Request-ID", "abc-123")
	w := httptest.NewRecorder()
	s.handler.ServeHTTP(w, r)
	if got := w.Header().Get("X-Request-Id"); got != "abc-123" {
		t.Errorf("the request id came back as %q", got)
	}
	log := s.log.String()
	for _, want := range []string{"request_id=abc-123", "method=GET", "route=/api/articles/{slug}", "status=200", "duration_ms=", "bytes="} {
		if !strings.Contains(log, want) {
			t.Errorf("no %s in %s", want, log)
		}
	}
	if strings.Contains(log, "some-slug") {
		t.Errorf("the log has the address: %s", log)
	}
}

func TestRequestIDIsFitForTheLog(t *testing.T) {
	t.Parallel()
	s := newServer(t, stub{})
	for _, id := range []string{"", "a b", "a\"b", strings.Repeat("a", 65)} {
		r := httptest.NewRequestWithContext(t.Context(), "GET", "/healthz", nil)
		r.Header.Set("X-Request-ID", id)
		w := httptest.NewRecorder()
		s.handler.ServeHTTP(w, r)
		if got := w.Header().Get("X-Request-Id"); len(got) != 36 {
			t.Errorf("the id %q became %q", id, got)
		}
	}
}

// Who registers is told what he has seen, and known for it when he comes back with no
// more than his name.
func TestSessions(t *testing.T) {
	t.Parallel()
	s := newServer(t, stub{})
	res := s.do(t, "POST", "/api/users", "", `{"user": {"username": "ann", "email": "ann@example.com", "password": "correct horse"}}`)
	if res.StatusCode != http.StatusCreated || res.Header.Get(causal.HeaderName) == "" || res.Header.Get("Set-Cookie") != "" {
		t.Errorf("status %d, header %v", res.StatusCode, res.Header)
	}
	token, err := s.tokens.Load(t.Context(), "user:7")
	if mark, ok := token.Mark(1); err != nil || !ok || mark.LSN != 5 {
		t.Errorf("stored: %v, %v", token, err)
	}
	if !strings.Contains(s.log.String(), "route=/api/users ") {
		t.Errorf("the log says %s", s.log)
	}
}

func TestCORS(t *testing.T) {
	t.Parallel()
	s := newServer(t, stub{})
	r := httptest.NewRequestWithContext(t.Context(), http.MethodOptions, "/api/articles", nil)
	r.Header.Set("Origin", "https://front.example")
	r.Header.Set("Access-Control-Request-Method", "PUT")
	r.Header.Set("Access-Control-Request-Headers", "authorization,content-type")
	w := httptest.NewRecorder()
	s.handler.ServeHTTP(w, r)
	for header, want := range map[string]string{
		"Access-Control-Allow-Origin":  "*",
		"Access-Control-Allow-Methods": "PUT",
		"Access-Control-Allow-Headers": "authorization,content-type",
	} {
		if got := w.Header().Get(header); got != want {
			t.Errorf("%s: %q, want %q", header, got, want)
		}
	}
	// The answer to an error can be read, too.
	r = httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/api/user", nil)
	r.Header.Set("Origin", "https://front.example")
	w = httptest.NewRecorder()
	s.handler.ServeHTTP(w, r)
	if got := w.Header().Get("Access-Control-Allow-Origin"); w.Code != 401 || got != "*" {
		t.Errorf("status %d, Access-Control-Allow-Origin %q", w.Code, got)
	}
}

func TestHealth(t *testing.T) {
	t.Parallel()
	up, down := newServer(t, stub{}), newServer(t, stub{err: errors.New("password authentication failed for db.internal")})
	draining := newServer(t, stub{err: conduit.ErrUnavailable})
	draining.health.Drain()
	for _, test := range []struct {
		name, target string
		server       server
		status       int
		body         string
	}{
		{"live", "/healthz", up, 200, `{"status":"ok"}`},
		{"ready", "/readyz", up, 200, `{"status":"ok"}`},
		{"live without database", "/healthz", down, 200, `{"status":"ok"}`},
		{"not ready without database", "/readyz", down, 503, `{"status":"unavailable","reason":"the database does not answer"}`},
		{"not ready while draining", "/readyz", draining, 503, `{"status":"unavailable","reason":"the server is shutting down"}`},
	} {
		w := httptest.NewRecorder()
		test.server.handler.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", test.target, nil))
		if w.Code != test.status || strings.TrimSpace(w.Body.String()) != test.body {
			t.Errorf("%s: %d %s", test.name, w.Code, w.Body)
		}
	}
}
