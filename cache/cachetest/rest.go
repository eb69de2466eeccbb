package cachetest

import (
	"context"
	"time"

	"github.com/loadlinehq/loadline/causal"
)

// atRest compares what every process gives to who was told nothing with what is stored. It asks again for what is
// not the same until it is, or time is over: what is in a cache by then stays there.
func (a *attack) atRest(ctx context.Context) {
	type place struct{ process, key int }
	var open []place
	want := make([]int64, a.Keys)
	for key := range a.Keys {
		want[key] = a.latest[key].version
		if a.app.Stored != nil {
			stored, err := a.app.Stored(with(ctx, causal.Token{}), key)
			if err != nil {
				a.fail(err)
				return
			}
			want[key] = max(want[key], stored)
		}
		for process := range a.app.Processes {
			open = append(open, place{process, key})
		}
	}
	for limit := time.Now().Add(a.Settle); ; time.Sleep(settlePause) {
		var again []place
		a.unsettled = a.unsettled[:0]
		for _, p := range open {
			if ctx.Err() != nil {
				return
			}
			got, cached, err := a.app.Read(with(ctx, causal.Token{}), p.process, p.key)
			switch {
			case err != nil:
				a.fail(err)
			case cached:
				a.resting.Add(1)
			}
			if err != nil || got < want[p.key] {
				again = append(again, p)
				a.unsettled = append(a.unsettled, Stale{p.process, p.key, got, want[p.key], cached})
			}
		}
		if open = again; len(open) == 0 || time.Now().After(limit) {
			return
		}
	}
}

const settlePause = 20 * time.Millisecond
