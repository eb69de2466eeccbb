package cachetest_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/loadlinehq/loadline/cache"
	"github.com/loadlinehq/loadline/cache/cachetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestClock(t *testing.T) {
	t.Parallel()
	exact := cache.Class{Name: "exact", TTL: time.Minute, Jitter: -1, Stale: -1, EarlyRefresh: -1}
	for _, c := range []struct {
		name         string
		class        cache.Class
		advance      time.Duration
		loads, given int // by the next read
	}{
		{"before the end", exact, time.Minute - 1, 1, 1},
		{"at the end", exact, time.Minute, 2, 2},
		{"a default class, after twice its time", cache.Hot(), 10 * time.Minute, 2, 2},
		{"nothing passes by itself", exact, 0, 1, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			store, clock := cachetest.Open(t)
			items, err := cache.New(store, cache.Config[string, int]{Name: "item", Class: c.class})
			if err != nil {
				t.Fatal(err)
			}
			loads := 0
			read := func() int {
				v, err := items.Get(t.Context(), "a", func(context.Context) (int, error) { loads++; return loads, nil })
				if err != nil {
					t.Error(err)
				}
				return v
			}
			read()
			clock.Advance(c.advance)
			if got := read(); got != c.given || loads != c.loads {
				t.Errorf("given %d after %d loads, want %d after %d", got, loads, c.given, c.loads)
			}
		})
	}
}

// A store that runs looks at the clock each time, too.
func TestClockOfARunningStore(t *testing.T) {
	t.Parallel()
	store, clock := cachetest.Open(t)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = store.Run(ctx) })
	t.Cleanup(func() { cancel(); running.Wait() })
	items, err := cache.New(store, cache.Config[string, int]{Name: "item", Class: cache.Hot()})
	if err != nil {
		t.Fatal(err)
	}
	loads := 0
	for range 1000 {
		if _, err := items.Get(t.Context(), "a", func(context.Context) (int, error) { loads++; return loads, nil }); err != nil {
			t.Fatal(err)
		}
		clock.Advance(time.Hour)
	}
	if loads != 1000 {
		t.Errorf("%d loads, want one each hour", loads)
	}
}

// Until a value is gone it is given when loading fails.
func TestStaleIfError(t *testing.T) {
	t.Parallel()
	store, clock := cachetest.Open(t)
	items, err := cache.New(store, cache.Config[string, int]{Name: "item", Class: cache.Class{Name: "exact", TTL: time.Minute, Jitter: -1, Stale: -1}})
	if err != nil {
		t.Fatal(err)
	}
	away := errors.New("the database is away")
	if _, err := items.Get(t.Context(), "a", func(context.Context) (int, error) { return 1, nil }); err != nil {
		t.Fatal(err)
	}
	fails := func(context.Context) (int, error) { return 0, away }
	clock.Advance(2*time.Minute - 1)
	if v, err := items.Get(t.Context(), "a", fails); err != nil || v != 1 {
		t.Errorf("%d, %v", v, err)
	}
	clock.Advance(1)
	if _, err := items.Get(t.Context(), "a", fails); !errors.Is(err, away) {
		t.Errorf("%v, want %v", err, away)
	}
}
