package load

import (
	"context"
	"runtime"
	"time"
)

// waiter sleeps until a time, or returns false as soon as ctx is done.
type waiter func(ctx context.Context, until time.Time) bool

// timerWait is exact to about a millisecond: an idle Go process sleeps in epoll_wait,
// whose waits are rounded up to that (runtime/netpoll_epoll.go).
func timerWait(ctx context.Context, until time.Time) bool {
	left := time.Until(until)
	if left <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(left)
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

// closeBy is how long before the time a precise waiter leaves the timer.
const closeBy = 2 * time.Millisecond

// yieldWait leaves the last millisecond to the scheduler's other goroutines. It burns
// that time where nothing else is to do, so it is for systems without a better sleep.
func yieldWait(ctx context.Context, until time.Time) bool {
	if !timerWait(ctx, until.Add(-closeBy/2)) {
		return false
	}
	for time.Until(until) > 0 {
		runtime.Gosched()
	}
	return ctx.Err() == nil
}
