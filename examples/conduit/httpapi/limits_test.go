package httpapi_test

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/loadlinehq/loadline/examples/conduit"
	"github.com/loadlinehq/loadline/examples/conduit/httpapi"
)

func newLimits(t *testing.T, c httpapi.LimitsConfig) *httpapi.Limits {
	t.Helper()
	c.Log = slog.New(slog.DiscardHandler)
	l, err := httpapi.NewLimits(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// ask sends a request from an address, and returns what is answered.
func (s server) ask(t *testing.T, from, target, token string, header http.Header) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, target, nil)
	r.RemoteAddr = from
	for name := range header {
		r.Header.Set(name, header.Get(name))
	}
	if token != "" {
		r.Header.Set("Authorization", token)
	}
	w := httptest.NewRecorder()
	s.handler.ServeHTTP(w, r)
	return w
}

// Each has so many requests a minute: a user wherever he is, and an address without one. Nobody gets more by saying that he is
// elsewhere, nor is refused for what another does.
func TestRateLimits(t *testing.T) {
	t.Parallel()
	const perMinute, loopback = 3, 50
	s := newLimited(t, stub{}, newLimits(t, httpapi.LimitsConfig{PerMinute: perMinute, Loopback: loopback, Instances: 1}), "10.0.0.0/8")
	began := time.Now()
	allowed := func(times int, from, target, token string, header http.Header) (n int) {
		t.Helper()
		for range times {
			w := s.ask(t, from, target, token, header)
			switch {
			case w.Code < 400 || w.Code == http.StatusUnauthorized:
				n++
			case w.Code != http.StatusTooManyRequests || w.Header().Get("Retry-After") == "" || w.Header().Get("RateLimit") == "":
				t.Errorf("%d %v %s", w.Code, w.Header(), w.Body)
			default:
				wantError(t, w)
			}
		}
		return n
	}
	user := s.tokenOf
	const articles = "/api/articles/s"
	by := func(client string) http.Header { return http.Header{"X-Forwarded-For": {client}} }
	for i, of := range []struct {
		from, target, token string
		header              http.Header
		want                int
	}{
		{"192.0.2.1:1", articles, "", nil, 3},
		{"192.0.2.1:2", articles, "", by("198.51.100.9"), 0}, // he says so himself,
		{"198.51.100.9:1", articles, "", nil, 3},             // and does not use up another's
		{"10.1.2.3:1", articles, "", by("192.0.2.9, 192.0.2.2"), 3},
		{"10.1.2.4:1", articles, "", by("192.0.2.8, 192.0.2.2"), 0},
		{"10.1.2.4:1", articles, "", by("192.0.2.9"), 3},
		{"192.0.2.1:3", articles, user(t, 42), nil, 3},
		{"192.0.2.7:1", articles, user(t, 42), nil, 0}, // wherever he is
		{"192.0.2.7:1", articles, user(t, 43), nil, 3}, // which is nothing to his colleague
		{"192.0.2.8:1", articles, "Token none", nil, 3},
		{"192.0.2.1:3", "/healthz", "", nil, 10},
		{"192.0.2.1:3", "/readyz", "", nil, 10},
		{"[2001:db8::1]:1", articles, "", nil, 3},
		{"[2001:db8::2]:1", articles, "", nil, 0}, // of the same household
		{"[2001:db8:0:1::2]:1", articles, "", nil, 3},
		{"127.0.0.1:1", articles, "", nil, 10},
		{"127.0.0.1:1", articles, "", by("192.0.2.1"), 3}, // by a proxy here that nobody has said is one: all its clients are one
	} {
		if n := allowed(10, of.from, of.target, of.token, of.header); n != of.want {
			t.Errorf("%d: of 10 requests %d were allowed, want %d", i, n, of.want)
		}
	}
	// Of one address, whoever they are: ten times as many.
	n := 0
	for id := range int64(12) {
		n += allowed(3, "192.0.2.100:1", articles, user(t, 100+id), nil)
	}
	most := func(burst int, perMinute float64) int { return burst + int(time.Since(began).Minutes()*perMinute) }
	if n < 30 || n > most(30, 30) {
		t.Errorf("%d were allowed to an address, want 30", n)
	}
	// Here a user has as many as the address.
	n = allowed(30, "127.0.0.1:1", articles, user(t, 200), nil)
	n += allowed(40, "[::1]:1", articles, user(t, 200), nil)
	if n < loopback || n > most(loopback, loopback) {
		t.Errorf("%d were allowed to a user here, want %d", n, loopback)
	}
}

func wantError(t *testing.T, w *httptest.ResponseRecorder) {
	t.Helper()
	if got := problems(t, w.Result()); len(got["request"]) != 1 {
		t.Errorf("%v", got)
	}
}

// slow is a store whose answers wait.
type slow struct {
	stub
	asked chan struct{}
	goOn  chan struct{}
}

func (s slow) Article(ctx context.Context, slug string) (conduit.Article, error) {
	s.asked <- struct{}{}
	<-s.goOn
	return s.stub.Article(ctx, slug)
}

// What is too much is refused, and health is not.
func TestShedding(t *testing.T) {
	t.Parallel()
	store := slow{asked: make(chan struct{}), goOn: make(chan struct{})}
	s := newLimited(t, store, newLimits(t, httpapi.LimitsConfig{MaxInFlight: 1}))
	first := make(chan int)
	go func() { first <- s.ask(t, "192.0.2.1:1", "/api/articles/s", "", nil).Code }()
	<-store.asked
	w := s.ask(t, "192.0.2.1:1", "/api/articles", "", nil)
	if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
		t.Errorf("%d %v %s", w.Code, w.Header(), w.Body)
	}
	for _, target := range []string{"/healthz", "/readyz"} {
		if w := s.ask(t, "192.0.2.1:1", target, "", nil); w.Code != http.StatusOK {
			t.Errorf("%s: %d", target, w.Code)
		}
	}
	for _, credentials := range []string{"/api/users", "/api/users/login"} { // which have a queue of their own
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, credentials, strings.NewReader("{}"))
		w := httptest.NewRecorder()
		if s.handler.ServeHTTP(w, r); w.Code == http.StatusServiceUnavailable {
			t.Errorf("%s: %d", credentials, w.Code)
		}
	}
	close(store.goOn)
	if code := <-first; code != http.StatusOK {
		t.Errorf("the first: %d", code)
	}
	if w := s.ask(t, "192.0.2.1:1", "/api/articles", "", nil); w.Code != http.StatusOK {
		t.Errorf("then: %d", w.Code)
	}
}
