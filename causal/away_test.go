package causal_test

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/loadlinehq/loadline/causal"
)

// stalled is a store that can stand still.
type stalled struct {
	causal.Store
	hangs        bool
	loads, saves int
}

func (h *stalled) Load(ctx context.Context, principal string) (causal.Token, error) {
	h.loads++
	if h.hangs {
		<-ctx.Done()
		return causal.Token{}, ctx.Err()
	}
	return h.Store.Load(ctx, principal)
}

func (h *stalled) Save(ctx context.Context, principal string, t causal.Token) error {
	h.saves++
	if h.hangs {
		<-ctx.Done()
		return ctx.Err()
	}
	return h.Store.Save(ctx, principal, t)
}

// While the store hangs few requests wait for what it has, and those that it may not know are in doubt; what is written it is told
// all the same, since another process may ask it for that a moment later. Afterwards it is asked again.
func TestStoreHangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		memory, err := causal.NewMemory(causal.MemoryConfig{TTL: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second) // what was before it is over
		store := &stalled{Store: memory}
		h, err := causal.NewHTTP(causal.HTTPConfig{Keys: keys(t), Store: store, Principal: func(*http.Request) string { return "ann" }, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		request := func(do http.HandlerFunc) time.Duration {
			began := time.Now()
			h.Handler(do).ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil))
			return time.Since(began)
		}
		read := func(doubt bool) http.HandlerFunc {
			return func(_ http.ResponseWriter, r *http.Request) {
				if _, _, got := session(r).Mark(7); got != doubt {
					t.Errorf("in doubt: %t", got)
				}
			}
		}
		request(read(false))
		store.hangs, store.loads = true, 0
		waited := time.Duration(0)
		for range 100 {
			waited += request(read(true))
			time.Sleep(10 * time.Millisecond)
		}
		if store.loads > 3+3 || waited > 6*causal.DefaultStoreTimeout {
			t.Errorf("in a second and a half of 100 requests %d asked the store, and they waited %v", store.loads, waited)
		}
		store.saves = 0
		request(func(_ http.ResponseWriter, r *http.Request) { session(r).Add(at(9)) })
		if store.saves == 0 {
			t.Error("the store is not told of what is written")
		}
		store.hangs = false
		time.Sleep(500 * time.Millisecond)
		request(read(false))
		store.loads = 0
		for range 10 {
			request(read(false))
		}
		if store.loads != 10 {
			t.Errorf("of 10 requests %d asked the store that is back", store.loads)
		}
		// Clients that go are none of its failures.
		store.hangs = true
		for range 10 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
			h.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})).ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(ctx, http.MethodGet, "/", nil))
			cancel()
		}
		store.hangs, store.loads = false, 0
		if request(read(false)); store.loads != 1 {
			t.Error("it is taken for away, since clients have gone")
		}
	})
}
