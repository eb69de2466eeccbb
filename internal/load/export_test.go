package load

import (
	"context"
	"time"
)

// OnTimer makes the dispatcher sleep on a timer, which a bubble of synctest can see.
func OnTimer(c Config) Config {
	c.wait = timerWait
	return c
}

// Stalled makes the dispatcher sleep for a while at a time of the run.
func Stalled(c Config, at, length time.Duration) Config {
	begin := time.Now().Add(at)
	c.wait = func(ctx context.Context, until time.Time) bool {
		if until.After(begin) && time.Since(begin) < length {
			until = begin.Add(length)
		}
		return timerWait(ctx, until)
	}
	return c
}
