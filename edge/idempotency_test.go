package edge_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/loadlinehq/loadline/causal"
	"github.com/loadlinehq/loadline/edge"
	"github.com/loadlinehq/loadline/tenancy"
)

// memory is a store for unit tests; those of pgstore and redisstore are on real servers.
type memory struct {
	mu   sync.Mutex
	kept map[string]edge.Answer
	of   map[string]edge.Attempt
	away bool
}

func (m *memory) Do(ctx context.Context, a edge.Attempt, run func(context.Context) (*edge.Answer, error)) (*edge.Answer, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.away {
		return nil, false, fmt.Errorf("%w: it is a test", edge.ErrStoreAway)
	}
	if m.kept == nil {
		m.kept, m.of = make(map[string]edge.Answer), make(map[string]edge.Attempt)
	}
	id := string(a.Scope[:]) + a.Key
	if before, ok := m.of[id]; ok {
		if before.Fingerprint != a.Fingerprint {
			return nil, false, edge.ErrKeyReused
		}
		kept := m.kept[id]
		return &kept, true, nil
	}
	answer, err := run(ctx)
	if err == nil && answer.Kept() {
		m.of[id] = a
		m.kept[id] = edge.Answer{Status: answer.Status, Header: answer.Header.Clone(), Body: bytes.Clone(answer.Body), Cut: answer.Cut, Token: answer.Token}
	}
	return answer, false, err
}

// shop counts orders.
type shop struct {
	orders  int
	handler http.Handler
	store   memory
}

func newShop(t testing.TB, c edge.IdempotencyConfig, answer http.HandlerFunc) *shop {
	t.Helper()
	s := new(shop)
	c.Store = &s.store
	if c.Principal == nil {
		c.Principal = func(r *http.Request) string { return r.Header.Get("User") }
	}
	c.Errors.Log = slog.New(slog.DiscardHandler)
	idempotent, err := edge.Idempotency(c)
	if err != nil {
		t.Fatal(err)
	}
	if answer == nil {
		answer = func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			w.Header().Set("Location", fmt.Sprintf("/orders/%d", s.orders))
			w.Header().Set("Set-Cookie", "a=b")
			w.Header().Set("X-Other", "c")
			w.WriteHeader(http.StatusCreated)
			fmt.Fprintf(w, "order %d of %s", s.orders, body)
		}
	}
	s.handler = edge.Keys(c.Errors)(idempotent(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.orders++
		answer(w, r)
	})))
	return s
}

func (s *shop) order(key, body string, change ...func(*http.Request)) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, "/orders", strings.NewReader(body))
	r.Header.Set("User", "jane")
	if key != "" {
		r.Header.Set("Idempotency-Key", key)
	}
	for _, f := range change {
		f(r)
	}
	rec := httptest.NewRecorder()
	s.handler.ServeHTTP(rec, r)
	return rec
}

// draft-ietf-httpapi-idempotency-key-header-07, section 2.1: a string of RFC 9651, and the same without its quotes.
func TestDraft07Section21Syntax(t *testing.T) {
	t.Parallel()
	s := newShop(t, edge.IdempotencyConfig{}, nil)
	first := s.order(`"8e03978e-40d5-43e8-bc93-6894a57f9324"`, "tea")
	again := s.order(`8e03978e-40d5-43e8-bc93-6894a57f9324`, "tea")
	if s.orders != 1 || first.Body.String() != again.Body.String() || again.Header().Get(edge.ReplayedHeader) != "true" || first.Header().Get(edge.ReplayedHeader) != "" {
		t.Errorf("%d orders: %q, then %q", s.orders, first.Body, again.Body)
	}
	if rec := s.order(`"unended`, "tea"); rec.Code != http.StatusBadRequest {
		t.Errorf("a key without an end: %d", rec.Code)
	}
	if rec := s.order("a", "tea", func(r *http.Request) { r.Header.Add("Idempotency-Key", "b") }); rec.Code != http.StatusBadRequest {
		t.Errorf("two keys: %d", rec.Code)
	}
}

// Section 2.4: the fingerprint is of all that makes the request; section 2.5: a key is its user's.
func TestDraft07Section24Fingerprint(t *testing.T) {
	t.Parallel()
	s := newShop(t, edge.IdempotencyConfig{Route: func(*http.Request) string { return "POST /{what}" }}, nil)
	s.order("k", "tea")
	for name, change := range map[string]func(*http.Request){
		"body":  nil,
		"path":  func(r *http.Request) { r.URL.Path = "/refunds" },
		"query": func(r *http.Request) { r.URL.RawQuery = "to=me" },
		"type":  func(r *http.Request) { r.Header.Set("Content-Type", "text/plain") },
	} {
		body := "tea"
		if change == nil {
			body, change = "coffee", func(*http.Request) {}
		}
		if rec := s.order("k", body, change); rec.Code != http.StatusUnprocessableEntity || !strings.Contains(rec.Body.String(), "idempotency-key-reused") {
			t.Errorf("another %s: %d %s", name, rec.Code, rec.Body)
		}
	}
	for name, change := range map[string]func(*http.Request){
		"user":   func(r *http.Request) { r.Header.Set("User", "joe") },
		"nobody": func(r *http.Request) { r.Header.Del("User") },
		"method": func(r *http.Request) { r.Method = http.MethodPatch },
		"tenant": func(r *http.Request) {
			ctx, err := tenancy.With(r.Context(), "acme")
			if err != nil {
				t.Error(err)
			}
			*r = *r.WithContext(ctx)
		},
	} {
		if rec := s.order("k", "tea", change); rec.Code != http.StatusCreated || rec.Header().Get(edge.ReplayedHeader) != "" {
			t.Errorf("another %s: %d %s", name, rec.Code, rec.Body)
		}
	}
	if rec := s.order("k", "tea", func(r *http.Request) { r.URL.RawQuery = "" }); rec.Header().Get(edge.ReplayedHeader) != "true" {
		t.Errorf("the first one is not given again: %d", rec.Code)
	}
	s.order("q", "tea", func(r *http.Request) { r.URL.RawQuery = "a=1&b=2" })
	if rec := s.order("q", "tea", func(r *http.Request) { r.URL.RawQuery = "b=2&a=1" }); rec.Header().Get(edge.ReplayedHeader) != "true" {
		t.Errorf("a query in another order: %d", rec.Code)
	}
}

// Section 2.6: what is given again is the first answer, but what is of one session or one answer alone.
func TestDraft07Section26Replay(t *testing.T) {
	t.Parallel()
	s := newShop(t, edge.IdempotencyConfig{Headers: []string{"x-other"}}, nil)
	first, again := s.order("k", "tea"), s.order("k", "tea")
	if first.Header().Get("Set-Cookie") == "" || again.Header().Get("Set-Cookie") != "" {
		t.Error("a cookie is given again")
	}
	for _, name := range []string{"Location", "X-Other", "Content-Type"} {
		if again.Header().Get(name) == "" || again.Header().Get(name) != first.Header().Get(name) {
			t.Errorf("%s is %q, and was %q", name, again.Header().Get(name), first.Header().Get(name))
		}
	}
	if again.Code != http.StatusCreated || again.Header().Get(edge.RequestIDHeader) == first.Header().Get(edge.RequestIDHeader) {
		t.Errorf("%d, with the id %s", again.Code, again.Header().Get(edge.RequestIDHeader))
	}
}

// Section 2.7: 400 where a key is missing.
func TestDraft07Section27Errors(t *testing.T) {
	t.Parallel()
	s := newShop(t, edge.IdempotencyConfig{Required: func(*http.Request) bool { return true }}, nil)
	rec := s.order("", "tea")
	if rec.Code != http.StatusBadRequest || s.orders != 0 || rec.Header().Get("Content-Type") != "application/problem+json" {
		t.Errorf("%d, %d orders", rec.Code, s.orders)
	}
	s.store.away = true
	if rec = s.order("k", "tea"); rec.Code != http.StatusServiceUnavailable || rec.Header().Get("Retry-After") == "" || s.orders != 0 {
		t.Errorf("while the store is away: %d, %d orders", rec.Code, s.orders)
	}
	s = newShop(t, edge.IdempotencyConfig{}, nil)
	s.store.away = true
	if rec = s.order("k", "tea"); rec.Code != http.StatusCreated || rec.Body.String() != "order 1 of tea" {
		t.Errorf("where none is required: %d %s", rec.Code, rec.Body)
	}
}

// What fails, or may be another answer next time, is not kept.
func TestUnkept(t *testing.T) {
	t.Parallel()
	for status, kept := range map[int]bool{200: true, 204: true, 302: true, 400: true, 410: true, 404: false, 405: false, 499: false, 422: true, 401: false, 403: false, 408: false, 409: false, 425: false, 429: false, 500: false, 503: false} {
		s := newShop(t, edge.IdempotencyConfig{}, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) })
		for range 3 {
			if rec := s.order("k", "tea"); rec.Code != status {
				t.Errorf("%d, and not %d", rec.Code, status)
			}
		}
		if kept != (s.orders == 1) {
			t.Errorf("%d: %d orders", status, s.orders)
		}
	}
}

// An edge-made key is not stored, a key of GET means nothing, and a long answer is given once.
func TestWithoutReplay(t *testing.T) {
	t.Parallel()
	s := newShop(t, edge.IdempotencyConfig{MaxAnswer: 10}, nil)
	s.order("", "tea")
	s.order("", "tea")
	s.order("k", "tea", func(r *http.Request) { r.Method = http.MethodGet })
	s.order("k", "tea", func(r *http.Request) { r.Method = http.MethodGet })
	if s.orders != 4 {
		t.Errorf("%d orders", s.orders)
	}
	first, again := s.order("k", "tea"), s.order("k", "tea")
	if first.Code != http.StatusCreated || !strings.HasSuffix(first.Body.String(), "tea") {
		t.Errorf("%d %s", first.Code, first.Body)
	}
	if again.Code != http.StatusConflict || again.Header().Get("Location") != "/orders/5" || !strings.Contains(again.Body.String(), `"answered":201`) || s.orders != 5 {
		t.Errorf("%d %s %s", again.Code, again.Header(), again.Body)
	}
	if rec := s.order("l", strings.Repeat("x", edge.DefaultMaxFingerprint+1)); rec.Code != http.StatusRequestEntityTooLarge || s.orders != 5 {
		t.Errorf("a long body: %d, %d orders", rec.Code, s.orders)
	}
}

// Nothing is sent before the commit, whatever the handler does; and what it has said is not sent if there is none.
func TestHeldBack(t *testing.T) {
	t.Parallel()
	s := newShop(t, edge.IdempotencyConfig{}, func(w http.ResponseWriter, r *http.Request) {
		control := http.NewResponseController(w)
		if err := control.Flush(); !errors.Is(err, http.ErrNotSupported) {
			t.Errorf("it can flush: %v", err)
		}
		if _, _, err := control.Hijack(); !errors.Is(err, http.ErrNotSupported) {
			t.Errorf("it can hijack: %v", err)
		}
		w.Header().Set("Location", "/nowhere")
		switch r.Header.Get("How") {
		case "long":
			for range 9 {
				_, _ = w.Write(make([]byte, 1<<20))
			}
		case "given up":
			ctx, cancel := context.WithCancel(r.Context())
			cancel()
			*r = *r.WithContext(ctx)
		}
	})
	if rec := s.order("a", "", func(r *http.Request) { r.Header.Set("How", "long") }); rec.Code != http.StatusInternalServerError || rec.Header().Get("Location") != "" || rec.Body.Len() > 1000 {
		t.Errorf("%d %v, %d bytes", rec.Code, rec.Header(), rec.Body.Len())
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if rec := s.order("b", "", func(r *http.Request) { *r = *r.WithContext(ctx) }); rec.Code < 400 {
		t.Errorf("a handler that has given up: %d", rec.Code)
	}
	if rec := s.order("c", ""); rec.Code != http.StatusOK || rec.Header().Get("Location") == "" {
		t.Errorf("%d %v", rec.Code, rec.Header())
	}
}

// Whoever is given an answer again has seen what the first one had.
func TestReplayHasToken(t *testing.T) {
	t.Parallel()
	mark := causal.Mark{System: 7, Timeline: 1, LSN: 100}
	s := newShop(t, edge.IdempotencyConfig{}, func(w http.ResponseWriter, r *http.Request) {
		causal.FromContext(r.Context()).Add(mark)
		w.WriteHeader(http.StatusNoContent)
	})
	for range 2 {
		session := causal.NewSession(causal.Token{})
		s.order("k", "tea", func(r *http.Request) { *r = *r.WithContext(causal.WithSession(r.Context(), session)) })
		if m, _ := session.Token().Mark(7); m != mark {
			t.Errorf("the session has seen %+v", m)
		}
	}
	if s.orders != 1 {
		t.Errorf("%d orders", s.orders)
	}
}

func TestIdempotencyConfig(t *testing.T) {
	t.Parallel()
	_, err := edge.Idempotency(edge.IdempotencyConfig{Headers: []string{"set-cookie"}, MaxAnswer: -1})
	for _, want := range []string{"Store is missing", "Principal is missing", "set-cookie", "MaxAnswer"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
}

// Keys, queries and bodies of strangers: no panic, no answer but those that there are.
func FuzzIdempotency(f *testing.F) {
	f.Add(`"a"`, "b=c", "text/plain", []byte("{}"))
	f.Add("\x00", "%zz", ";;", []byte(nil))
	f.Fuzz(func(t *testing.T, key, query, typ string, body []byte) {
		s := newShop(t, edge.IdempotencyConfig{}, nil)
		var codes [2]int
		for i := range codes {
			rec := s.order("", string(body), func(r *http.Request) {
				r.Header["Idempotency-Key"] = []string{key}
				r.Header["Content-Type"] = []string{typ}
				r.URL.RawQuery = query
			})
			codes[i] = rec.Code
		}
		if codes[0] != codes[1] || codes[0] != http.StatusCreated && codes[0] != http.StatusBadRequest || s.orders > 1 {
			t.Errorf("%q: %v, %d orders", key, codes, s.orders)
		}
	})
}
