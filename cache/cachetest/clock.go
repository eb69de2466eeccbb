package cachetest

import (
	"context"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/loadlinehq/loadline/cache"
)

// Open returns a store in this process alone, and the clock by which its values end. The store is closed when the test
// ends.
//
// A value is loaded anew for its reader when its TTL and Class.Stale have passed, and gone when TTL and
// StaleIfError have: after twice the TTL by default. In between, chance has its part: Jitter shortens TTLs by up to a
// tenth, and within Stale the old value is given while another is loaded. Tests that look at these moments use a
// class whose Jitter, Stale and EarlyRefresh are -1. How long loads take, and may take, is measured by the real clock.
func Open(t testing.TB) (*cache.Store, *Clock) {
	t.Helper()
	clock := NewClock()
	store, err := cache.OpenStore(context.Background(), cache.StoreConfig{Now: clock.Now, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatalf("cachetest: %v", err)
	}
	t.Cleanup(store.Close)
	return store, clock
}

// Clock stands still until it is advanced. It may be used by several goroutines.
type Clock struct{ passed atomic.Int64 }

// NewClock returns a clock for StoreConfig.Now, for tests that open stores themselves.
func NewClock() *Clock { return new(Clock) }

// start is any time; this one is easily recognized.
var start = time.Date(2000, time.January, 1, 0, 0, 0, 0, time.UTC)

// Now is midnight of January 1, 2000, UTC, and what was advanced since.
func (c *Clock) Now() time.Time { return start.Add(time.Duration(c.passed.Load())) }

// Advance lets d pass. It panics if d is negative.
func (c *Clock) Advance(d time.Duration) {
	if d < 0 {
		panic("cachetest: time does not go back")
	}
	c.passed.Add(int64(d))
}
