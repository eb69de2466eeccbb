package ratelimit

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"
)

// In any window there are no more than the burst, and what comes back in it; and who keeps to the rate is never
// refused.
func TestLocalKeepsToTheRate(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		unit := rapid.Int64Range(1, 1000).Draw(t, "unit")
		burst := rapid.Int64Range(1, 20).Draw(t, "burst")
		l := newLocal(1000)
		var states [1]state
		c := []cell{{who: who{key: "k"}, cost: unit, ahead: burst * unit, unit: unit}}
		var taken []int64
		now := int64(1_000_000)
		for _, pause := range rapid.SliceOfN(rapid.Int64Range(0, 3000), 1, 100).Draw(t, "pauses") {
			now += pause
			if l.take(now, c, states[:]) {
				taken = append(taken, now)
				if states[0].retry != 0 || states[0].left < 0 || states[0].left >= burst {
					t.Fatalf("%+v", states[0])
				}
				continue
			}
			// At the time that was said it is let in.
			if retry := states[0].retry; retry < 1 || retry > burst*unit {
				t.Fatalf("%+v", states[0])
			}
			copied := newLocal(1000)
			was := *l.of[l.shard(who{key: "k"})].m[who{key: "k"}]
			copied.of[copied.shard(who{key: "k"})].m[who{key: "k"}] = &was
			var s [1]state
			if !copied.take(now+states[0].retry, c, s[:]) {
				t.Fatalf("not let in after the %d µs that it was told", states[0].retry)
			}
		}
		for i := range taken {
			for j := i; j < len(taken); j++ {
				if n, most := int64(j-i+1), burst+(taken[j]-taken[i])/unit; n > most {
					t.Fatalf("%d in %d µs, more than %d", n, taken[j]-taken[i], most)
				}
			}
		}
	})
}

// Who is refused by one policy is not charged by the others, and nobody waits for another for ever.
func TestLocalAllOrNone(t *testing.T) {
	t.Parallel()
	l := newLocal(1000)
	var states [2]state
	for range 3 {
		l.take(1000, []cell{{who: who{key: "a"}, cost: 10, ahead: 30, unit: 10}}, states[:1])
	}
	both := []cell{{who: who{key: "b"}, cost: 10, ahead: 30, unit: 10}, {who: who{key: "a"}, cost: 10, ahead: 30, unit: 10}}
	for range 100 {
		if l.take(1000, both, states[:]) {
			t.Fatal("let in by a policy that has none left")
		}
	}
	if states[0].left != 3 || states[0].retry != 0 || states[1].left != 0 || states[1].retry != 10 {
		t.Errorf("%+v", states)
	}
	var let atomic.Int64
	var wait sync.WaitGroup
	for g := range 8 {
		wait.Go(func() {
			var states [2]state
			for i := range 2000 {
				a, b := fmt.Sprint("x", i%7), fmt.Sprint("y", (i+g)%7)
				if g%2 == 0 {
					a, b = b, a
				}
				if l.take(1000, []cell{{who: who{key: a}, cost: 1, ahead: 100, unit: 1}, {who: who{key: b}, cost: 1, ahead: 100, unit: 1}}, states[:]) {
					let.Add(1)
				}
			}
		})
	}
	wait.Wait()
	if n := let.Load(); n < 1 || n > 700 {
		t.Errorf("%d are let in, of 7 keys with 100 each", n)
	}
}

// However many keys there are, it keeps so many.
func TestLocalIsBounded(t *testing.T) {
	t.Parallel()
	l := newLocal(640)
	var states [1]state
	for i := range 100_000 {
		l.take(int64(1000+i), []cell{{who: who{key: fmt.Sprint(i)}, cost: 1_000_000, ahead: 10_000_000, unit: 1_000_000}}, states[:])
	}
	n := 0
	for i := range l.of {
		n += len(l.of[i].m)
	}
	if n > 640 {
		t.Errorf("%d keys are kept", n)
	}
}
