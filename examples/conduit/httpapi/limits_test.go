package httpapi_test

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"

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
	s := newLimited(t, stub{}, newLimits(t, httpapi.LimitsConfig{PerMinute: 3, Loopback: 50, Instances: 1}), "10.0.0.0/8")
	allowed := func(times int, from, target, token string, header http.Header) (n int) {
		for range times {
			w := s.ask(t, from, target, token, header)
			switch {
			case w.Code < 400:
				n++
			case w.Code != http.StatusTooManyRequests || w.Header().Get("Retry-After") == "" || w.Header().Get("RateLimit") == "":
				t.Errorf("%d %v %s", w.Code, w.Header(), w.Body)
			default:
				wantError(t, w)
			}
		}
		return n
	}
	const articles = "/api/articles/s"
	for i, of := range []struct {
		from, target, token string
		header              http.Header
		want                int
	}{
		{"192.0.2.1:1", articles, "", nil, 3},
		{"192.0.2.1:2", articles, "", http.Header{"X-Forwarded-For": {"198.51.100.9"}}, 0}, // he says so himself
		{"10.1.2.3:1", articles, "", http.Header{"X-Forwarded-For": {"192.0.2.9, 192.0.2.2"}}, 3},
		{"10.1.2.4:1", articles, "", http.Header{"X-Forwarded-For": {"192.0.2.8, 192.0.2.2"}}, 0},
		{"192.0.2.1:3", articles, s.token, nil, 3},
		{"192.0.2.7:1", articles, s.token, nil, 0},
		{"192.0.2.1:3", "/healthz", "", nil, 10},
		{"[2001:db8::1]:1", articles, "", nil, 3},
		{"[2001:db8::2]:1", articles, "", nil, 0}, // of the same household
		{"127.0.0.1:1", articles, "", nil, 10},
	} {
		if n := allowed(10, of.from, of.target, of.token, of.header); n != of.want {
			t.Errorf("%d: of 10 requests %d were allowed, want %d", i, n, of.want)
		}
	}
	// Of one address, however many they are: ten times as many.
	if n := allowed(100, "192.0.2.77:1", articles, "Token none", nil); n != 3 {
		t.Errorf("%d were allowed to somebody with a bad token", n)
	}
	if n := allowed(60, "127.0.0.1:1", articles, s.token, nil); n != 40 {
		t.Errorf("on this machine %d more were allowed, want 40", n)
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
	if w := s.ask(t, "192.0.2.1:1", "/healthz", "", nil); w.Code != http.StatusOK {
		t.Errorf("health: %d", w.Code)
	}
	close(store.goOn)
	if code := <-first; code != http.StatusOK {
		t.Errorf("the first: %d", code)
	}
	if w := s.ask(t, "192.0.2.1:1", "/api/articles", "", nil); w.Code != http.StatusOK {
		t.Errorf("then: %d", w.Code)
	}
}
