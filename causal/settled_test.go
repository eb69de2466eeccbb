package causal_test

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/loadlinehq/loadline/causal"
)

// After a failover a store still has the mark of the ended timeline, and each session of
// its principal is settled anew. That is saved and told once, not on each request; and
// whoever may not have the token is told.
func TestSettledIsToldOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		memory, err := causal.NewMemory(causal.MemoryConfig{TTL: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		store, who := &faulty{Store: memory}, "ann"
		h, err := causal.NewHTTP(causal.HTTPConfig{
			Keys: keys(t), Store: store, Principal: func(*http.Request) string { return who }, Logger: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			t.Fatal(err)
		}
		before, after := at(5), causal.Mark{System: 7, Timeline: 2, LSN: 4}
		old, settled := keys(t).Sign(causal.NewToken(before)), keys(t).Sign(causal.NewToken(after))
		save := func() {
			if err := memory.Save(t.Context(), who, causal.NewToken(before)); err != nil {
				t.Fatal(err)
			}
		}
		settle := func(s *causal.Session) { s.Add(after); s.Forget(before) } // as db does
		// ask expects to be told a token, or nothing, and a number of saves.
		ask := func(name, header, cookie string, handle func(*causal.Session), late bool, told string, saves int) {
			t.Helper()
			store.saves = 0
			r := httptest.NewRequest(http.MethodGet, "/", nil)
			if header != "" {
				r.Header.Set(causal.HeaderName, header)
			}
			if cookie != "" {
				r.AddCookie(&http.Cookie{Name: causal.HeaderName, Value: cookie})
			}
			w := httptest.NewRecorder()
			h.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if late {
					w.WriteHeader(http.StatusOK)
				}
				handle(session(r))
			})).ServeHTTP(w, r)
			fields := w.Result().Header
			if late {
				fields = w.Result().Trailer
			} else if n := len(w.Result().Cookies()); n != min(len(told), 1) {
				t.Errorf("%s: %d cookies", name, n)
			}
			if got := fields.Get(causal.HeaderName); got != told || store.saves != saves {
				t.Errorf("%s: told %q, want %q, %d saves, want %d", name, got, told, store.saves, saves)
			}
		}

		save()
		ask("while the store is in doubt", settled, "", settle, false, "", 1)
		ask("again, while it is in doubt", settled, "", settle, false, "", 1)
		time.Sleep(2 * time.Minute)
		who = "bob"
		save()
		ask("the first time", "", old, settle, false, settled, 1)
		ask("again, by cookie", "", settled, settle, false, "", 0)
		ask("again, by header", settled, "", settle, false, "", 0)
		ask("again, by both", settled, settled, settle, false, "", 0)
		ask("again, after the header", settled, "", settle, true, "", 0)
		ask("by nothing", "", "", settle, false, settled, 0)
		ask("by what it was", "", old, settle, false, settled, 0)
		ask("by two", settled, old, settle, false, settled, 0)
		ask("by two, after the header", settled, old, settle, true, settled, 0)
		ask("by one and a lesser one", settled, keys(t).Sign(causal.NewToken(causal.Mark{System: 7, Timeline: 2, LSN: 3})), settle, false, settled, 0)
		ask("by one of worth", settled, "worthless", settle, false, keys(t).Sign(causal.NewToken(after).Merge(causal.Unknown())), 1)

		written := causal.Mark{System: 7, Timeline: 2, LSN: 9}
		write := func(s *causal.Session) { settle(s); s.Add(written) }
		store.away = true
		ask("while the store is away", settled, "", settle, false, "", 0)
		ask("a write, while it is away", settled, "", write, false, keys(t).Sign(causal.NewToken(written)), 2)
		store.away = false
		who = "eve"
		save()
		ask("a write", settled, "", write, false, keys(t).Sign(causal.NewToken(written)), 1)
		ask("a write that another client has stored, before it was told", settled, "", write, false, keys(t).Sign(causal.NewToken(written)), 0)
	})
}
