package cachetest

import (
	"context"
	"time"

	"github.com/loadlinehq/loadline/causal"
)

// place is a key of a process.
type place struct{ process, key int }

// atRest compares what every process gives to who was told nothing with what is stored. It asks again for what is
// not the same until it is, or time is over: what is in a cache by then stays there.
func (a *attack) atRest(ctx context.Context) {
	var open []place
	for process := range a.app.Processes {
		for key := range a.Keys {
			open = append(open, place{process, key})
		}
	}
	want := make(map[int]int64)
	for limit := time.Now().Add(a.Settle); ; time.Sleep(settlePause) {
		var again []place
		a.unsettled = nil
		for _, p := range open {
			if ctx.Err() != nil {
				a.unsettled = append(a.unsettled, Stale{Process: p.process, Key: p.key, Err: context.Cause(ctx)})
				continue
			}
			if s, is := a.differs(ctx, p, want); is {
				again, a.unsettled = append(again, p), append(a.unsettled, s)
			}
		}
		if open = again; len(open) == 0 || time.Now().After(limit) {
			return
		}
	}
}

// differs compares one place, and keeps what is stored in want.
func (a *attack) differs(ctx context.Context, p place, want map[int]int64) (s Stale, is bool) {
	s = Stale{Process: p.process, Key: p.key}
	var known bool
	if s.Want, known = want[p.key]; !known {
		s.Want = a.latest[p.key].version
		if a.app.Stored != nil {
			var stored int64
			if stored, s.Err = a.stored(ctx, p.key); s.Err != nil {
				return s, true
			}
			s.Want = max(s.Want, stored)
		}
		want[p.key] = s.Want
	}
	if s.Got, s.Cached, s.Err = a.call(ctx, causal.Token{}, p.process, p.key); s.Err != nil {
		return s, true
	}
	if s.Cached {
		a.resting.Add(1)
	}
	return s, s.Got < s.Want
}

const settlePause = 20 * time.Millisecond

func (a *attack) stored(ctx context.Context, key int) (version int64, err error) {
	ctx, cancel := with(ctx, causal.Token{})
	defer cancel()
	return a.app.Stored(ctx, key)
}
