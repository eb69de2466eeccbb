package load

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sys/unix"
)

// newWaiter sleeps in the kernel, which takes a thread, for the last two
// milliseconds: 0.1 ms late at the median where a timer is 0.5 ms late. The long part
// of a gap is spent on a timer, so that an interrupt ends it.
func newWaiter() waiter {
	return func(ctx context.Context, until time.Time) bool {
		if !timerWait(ctx, until.Add(-closeBy)) {
			return false
		}
		left := time.Until(until)
		if left <= 0 {
			return ctx.Err() == nil
		}
		// Read after left was computed: a pause in between makes the sleep late, which is
		// counted, and not early, which is not.
		var now unix.Timespec
		if unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) != nil {
			return yieldWait(ctx, until)
		}
		// An absolute time, so that a signal (the runtime sends them to preempt) does
		// not prolong the sleep.
		at := unix.NsecToTimespec(now.Nano() + int64(left))
		for {
			err := unix.ClockNanosleep(unix.CLOCK_MONOTONIC, unix.TIMER_ABSTIME, &at, nil)
			if !errors.Is(err, unix.EINTR) {
				return ctx.Err() == nil
			}
		}
	}
}
