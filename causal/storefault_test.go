package causal_test

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/loadlinehq/loadline/causal"
)

// hanging is a store that does not answer; of its saves, the first few.
type hanging struct {
	saves []time.Duration // how long each had
	hang  int
}

func (h *hanging) Load(ctx context.Context, _ string) (causal.Token, error) {
	<-ctx.Done()
	return causal.Token{}, ctx.Err()
}

func (h *hanging) Save(ctx context.Context, _ string, _ causal.Token) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	deadline, _ := ctx.Deadline()
	h.saves = append(h.saves, time.Until(deadline))
	if len(h.saves) > h.hang {
		return nil
	}
	<-ctx.Done()
	return ctx.Err()
}

// levels notes how loud each message was.
type levels struct {
	slog.Handler
	seen []slog.Level
}

func (l *levels) Enabled(context.Context, slog.Level) bool { return true }

func (l *levels) Handle(_ context.Context, r slog.Record) error {
	l.seen = append(l.seen, r.Level)
	return nil
}

func askHanging(t *testing.T, ctx context.Context, store *hanging, write bool) *levels {
	t.Helper()
	log := new(levels)
	h, err := causal.NewHTTP(causal.HTTPConfig{
		Keys: keys(t), Store: store, Principal: func(*http.Request) string { return "ann" }, StoreTimeout: time.Second, Logger: slog.New(log),
	})
	if err != nil {
		t.Fatal(err)
	}
	h.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if _, _, incomplete := session(r).Mark(7); !incomplete {
			t.Error("reads replicas, although the store has not answered")
		}
		if write {
			session(r).Add(at(5))
		}
	})).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil).WithContext(ctx))
	return log
}

// A client that has gone is not a store that has failed.
func TestClientGone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		gone, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Millisecond, cancel)
		if log := askHanging(t, gone, new(hanging), false); !slices.Equal(log.seen, []slog.Level{slog.LevelDebug}) {
			t.Errorf("gone: %v", log.seen)
		}
		if log := askHanging(t, t.Context(), new(hanging), false); !slices.Equal(log.seen, []slog.Level{slog.LevelWarn}) {
			t.Errorf("there: %v", log.seen)
		}
		late, stop := context.WithTimeout(t.Context(), time.Millisecond)
		defer stop()
		if log := askHanging(t, late, new(hanging), false); !slices.Equal(log.seen, []slog.Level{slog.LevelWarn}) {
			t.Errorf("out of time: %v", log.seen)
		}
	})
}

// What a client wrote before it went is saved.
func TestClientGoneIsSaved(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		store := new(hanging)
		if askHanging(t, gone, store, true); len(store.saves) != 1 {
			t.Errorf("saves: %v", store.saves)
		}
	})
}

// A save that hangs leaves time for another.
func TestSaveIsRepeated(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		hang   int
		saves  []time.Duration
		took   time.Duration
		levels []slog.Level
	}{
		{0, []time.Duration{time.Second / 2}, 0, []slog.Level{slog.LevelWarn}}, // of the load
		{1, []time.Duration{time.Second / 2, time.Second / 2}, time.Second / 2, []slog.Level{slog.LevelWarn}},
		{2, []time.Duration{time.Second / 2, time.Second / 2}, time.Second, []slog.Level{slog.LevelWarn, slog.LevelWarn}},
	} {
		synctest.Test(t, func(t *testing.T) {
			began, store := time.Now(), &hanging{hang: test.hang}
			log := askHanging(t, t.Context(), store, true)
			if took := time.Since(began) - time.Second; took != test.took || !slices.Equal(store.saves, test.saves) || !slices.Equal(log.seen, test.levels) {
				t.Errorf("%d hang: took %v, saves %v, %v", test.hang, took, store.saves, log.seen)
			}
		})
	}
}
