package db

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/loadlinehq/loadline/causal"
)

func TestGateIsFirstComeFirstServed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newGate("g", 1, 3)
		enter := func() error { return g.enter(t.Context(), time.Second) }
		if err := enter(); err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		var order []int
		for i := range 3 {
			go func() {
				if err := enter(); err != nil {
					t.Error(err)
				}
				mu.Lock()
				order = append(order, i)
				mu.Unlock()
				g.leave()
			}()
			synctest.Wait()
		}
		if err := enter(); !errors.Is(err, ErrPoolSaturated) {
			t.Errorf("the queue has no bound: %v", err)
		}
		g.leave()
		synctest.Wait()
		if !slices.Equal(order, []int{0, 1, 2}) || g.used != 0 || g.busy.Load() != 0 {
			t.Errorf("order %v, %d in use, %d busy", order, g.used, g.busy.Load())
		}
	})
}

func TestGateWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newGate("g", 1, 3)
		if err := g.enter(t.Context(), time.Second); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if err := g.enter(t.Context(), time.Second); !errors.Is(err, ErrPoolSaturated) || time.Since(began) != time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		why := errors.New("why")
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Millisecond, why)
		defer cancel()
		if err := g.enter(ctx, time.Second); !errors.Is(err, why) {
			t.Errorf("not the context's cause: %v", err)
		}
		g.setLimit(2, 3)
		if err := g.enter(t.Context(), 0); err != nil {
			t.Errorf("after raising the limit: %v", err)
		}
		g.setLimit(1, -1)
		g.leave()
		if err := g.enter(t.Context(), time.Second); !errors.Is(err, ErrPoolSaturated) {
			t.Errorf("after lowering the limit: %v", err)
		}
		g.leave()
		if g.used != 0 || g.busy.Load() != 0 || g.head != nil || g.tail != nil {
			t.Errorf("%d in use, %d busy", g.used, g.busy.Load())
		}
	})
}

// Whatever comes, waits, gives up and leaves: no more than the limit are in.
func TestGateStress(t *testing.T) {
	t.Parallel()
	g := newGate("g", 3, 100)
	var mu sync.Mutex
	in, most := 0, 0
	var wait sync.WaitGroup
	for i := range 50 {
		wait.Go(func() {
			for j := range 200 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i*j%5)*20*time.Microsecond)
				if g.enter(ctx, time.Second) == nil {
					mu.Lock()
					in++
					most = max(most, in)
					mu.Unlock()
					mu.Lock()
					in--
					mu.Unlock()
					g.leave()
				}
				cancel()
			}
		})
	}
	wait.Wait()
	if most > 3 || g.used != 0 || g.waiting != 0 || g.busy.Load() != 0 {
		t.Errorf("most %d, used %d, waiting %d, busy %d", most, g.used, g.waiting, g.busy.Load())
	}
}

func TestWithoutHeader(t *testing.T) {
	t.Parallel()
	for lsn, want := range map[causal.LSN]causal.LSN{
		3*walPage + shortHeader:         3 * walPage,
		2*walSegment + longHeader:       2 * walSegment,
		3*walPage + shortHeader + 8:     3*walPage + shortHeader + 8,
		2*walSegment + walPage + 40:     2*walSegment + walPage + 40,
		3 * walPage:                     3 * walPage,
		5*walPage - 8:                   5*walPage - 8,
		1<<40 + 7*walPage + shortHeader: 1<<40 + 7*walPage,
	} {
		if got := withoutHeader(lsn); got != want {
			t.Errorf("%v: %v, want %v", lsn, got, want)
		}
	}
}

// A replica that has reached what upTo says holds all that was committed until then,
// and one whose lag is d has all from longer ago.
func TestSamples(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		epoch := time.Unix(0, 0)
		s := samples{gap: 10 * time.Millisecond}
		var truth []sample
		at, lsn := epoch, causal.LSN(1)
		for range rapid.IntRange(1, 600).Draw(t, "polls") {
			at = at.Add(time.Duration(rapid.IntRange(1, 40).Draw(t, "ms")) * time.Millisecond)
			lsn += causal.LSN(rapid.IntRange(0, 3).Draw(t, "bytes"))
			s.add(at, 1, lsn)
			truth = append(truth, sample{at, lsn})
		}
		when := epoch.Add(time.Duration(rapid.IntRange(0, 20_000).Draw(t, "when")) * time.Millisecond)
		if got, ok := s.upTo(when); ok {
			for _, e := range truth {
				if e.at.Before(when) && e.lsn > got {
					t.Fatalf("upTo(%v) = %d, and the primary was at %d before", when.Sub(epoch), got, e.lsn)
				}
			}
		}
		replica := causal.LSN(rapid.IntRange(0, int(lsn)).Draw(t, "replica"))
		lag := s.lag(replica, at)
		for _, e := range truth[max(0, len(truth)-200):] {
			if e.lsn > replica && at.Sub(e.at) > lag+2*s.gap+80*time.Millisecond {
				t.Fatalf("lag %v, and the primary was past the replica %v ago", lag, at.Sub(e.at))
			}
		}
	})
}

// A position that was polled before a connection was made may be of an earlier life of
// the server, from which it has come back in the past.
func TestProven(t *testing.T) {
	t.Parallel()
	made := time.Unix(1000, 0)
	own := state{timeline: 1, lsn: 62}
	for _, test := range []struct {
		name string
		s    state
		want bool
	}{
		{"polled before", state{at: made.Add(-time.Second), timeline: 1, lsn: 136}, false},
		{"polled after", state{at: made.Add(time.Second), timeline: 1, lsn: 136}, true},
		{"polled after, not there", state{at: made.Add(time.Second), timeline: 1, lsn: 99}, false},
		{"another timeline", state{at: made.Add(time.Second), timeline: 2, lsn: 136}, false},
		{"promoted since", state{at: made.Add(time.Second), timeline: 1, lsn: 136, primary: true}, false},
		{"does not answer", state{at: made.Add(time.Second), timeline: 1, lsn: 136, err: errNotAsked}, false},
	} {
		i := &connInfo{since: made, state: own}
		if got := i.proven(&test.s, 1, 100); got != test.want {
			t.Errorf("%s: %t", test.name, got)
		}
	}
	i := &connInfo{since: made, state: state{timeline: 1, lsn: 100}}
	if !i.proven(&state{err: errNotAsked}, 1, 100) {
		t.Error("the connection's own answer is not taken")
	}
}

// Only a replica that answers, of the primary's own timeline, within the lag limit and
// at or past the mark may be chosen, and of those the least busy.
func TestPick(t *testing.T) {
	t.Parallel()
	type replica struct {
		state state
		lag   time.Duration
		busy  int32
	}
	good := state{timeline: 2, lsn: 100}
	for _, test := range []struct {
		name     string
		replicas []replica
		tried    uint64
		ahead    bool
		want     int // -1: none
	}{
		{"there", []replica{{state: good}}, 0, false, 0},
		{"not there", []replica{{state: state{timeline: 2, lsn: 99}}}, 0, false, -1},
		{"further on the timeline that a failover has ended", []replica{{state: state{timeline: 1, lsn: 500}}}, 0, false, -1},
		{"timeline not known", []replica{{state: state{lsn: 500}}}, 0, false, -1},
		{"a primary", []replica{{state: state{timeline: 2, lsn: 500, primary: true}}}, 0, false, -1},
		{"does not answer", []replica{{state: state{timeline: 2, lsn: 500, err: errNotAsked}}}, 0, false, -1},
		{"lags", []replica{{state: good, lag: time.Minute}}, 0, false, -1},
		{"tried", []replica{{state: good}, {state: good, busy: 9}}, 1, false, 1},
		{"the least busy", []replica{{state: good, busy: 3}, {state: good, busy: 1}, {state: good, busy: 2}}, 0, false, 1},
		{"the session is ahead", []replica{{state: good}}, 0, true, -1},
	} {
		r := &Router{config: Config{LagLimit: time.Second}}
		c := &cluster{timeline: 2}
		for i, replica := range test.replicas {
			n := &node{index: i, gate: newGate("n", 10, 10)}
			n.state.Store(&replica.state)
			n.lag.Store(int64(replica.lag))
			n.gate.busy.Store(replica.busy)
			c.replicas = append(c.replicas, n)
		}
		for range 4 { // wherever the turn begins
			got := -1
			if n := r.pick(c, &need{timeline: 2, target: 100, ahead: test.ahead}, test.tried); n != nil {
				got = n.index
			}
			if got != test.want {
				t.Errorf("%s: %d, want %d", test.name, got, test.want)
			}
		}
	}
}

// The position is that of the last promotion for what came before it, and a restart of
// a server that was promoted does not move it.
func TestForks(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name     string
		forks    map[uint32]causal.LSN
		mark     causal.Mark
		newest   uint32
		survived bool
		fork     causal.LSN
	}{
		{"before", map[uint32]causal.LSN{2: 100}, causal.Mark{Timeline: 1, LSN: 100}, 2, true, 100},
		{"after", map[uint32]causal.LSN{2: 100}, causal.Mark{Timeline: 1, LSN: 101}, 2, false, 100},
		{"not known", nil, causal.Mark{Timeline: 1, LSN: 101}, 2, false, 0},
		{"two failovers", map[uint32]causal.LSN{2: 100, 3: 200}, causal.Mark{Timeline: 1, LSN: 150}, 3, false, 100},
		{"lost by the second", map[uint32]causal.LSN{2: 100, 3: 200}, causal.Mark{Timeline: 2, LSN: 201}, 3, false, 200},
		{"past one that is known", map[uint32]causal.LSN{3: 200}, causal.Mark{Timeline: 1, LSN: 201}, 3, false, 200},
		{"before one that is known", map[uint32]causal.LSN{3: 200}, causal.Mark{Timeline: 1, LSN: 150}, 3, false, 0},
	} {
		r := &Router{lost: lost{forks: test.forks}}
		fork, survived := r.survived(test.mark, test.newest)
		if fork != test.fork || survived != test.survived {
			t.Errorf("%s: %d, %t, want %d, %t", test.name, fork, survived, test.fork, test.survived)
		}
	}
}

// A server is believed about its fork if it was a standby in the same life, on the
// timeline just before.
func TestNoteFork(t *testing.T) {
	t.Parallel()
	began := time.Unix(1000, 0)
	before := began.Add(-time.Hour)
	for _, test := range []struct {
		name  string
		polls []state // as a standby
		want  bool
	}{
		{"promoted", []state{{started: began, timeline: 1}}, true},
		{"asked while it was promoted", []state{{started: began, timeline: 1}, {started: began, timeline: 2}}, true},
		{"asked twice then", []state{{started: began, timeline: 1}, {started: began, timeline: 2}, {started: began, timeline: 2}}, true},
		{"asked then only", []state{{started: began, timeline: 2}}, false},
		{"restarted before that", []state{{started: before, timeline: 1}, {started: began, timeline: 2}}, false},
		{"restarted since", []state{{started: before, timeline: 1}}, false},
		{"never seen as a standby", nil, false},
		{"not from the timeline before", []state{{started: began}}, false},
	} {
		r := &Router{log: slog.New(slog.DiscardHandler), lost: lost{forks: make(map[uint32]causal.LSN)}}
		n := new(node)
		for _, s := range test.polls {
			n.sawStandby(&s)
		}
		r.noteFork(n, &state{primary: true, timeline: 2, replayed: 100, started: began})
		if _, known := r.lost.forks[2]; known != test.want {
			t.Errorf("%s: %t", test.name, known)
		}
	}
}

// A session that has seen a newer timeline does not write to an older primary.
func TestMayWrite(t *testing.T) {
	t.Parallel()
	r := &Router{}
	c := &cluster{system: 7, timeline: 2, primary: &node{name: "a"}}
	for timeline, want := range map[uint32]error{1: nil, 2: nil, 3: ErrNoEligibleNode} {
		session := causal.NewSession(causal.NewToken(causal.Mark{System: 7, Timeline: timeline, LSN: 100}))
		if err := r.mayWrite(causal.WithSession(t.Context(), session), c); !errors.Is(err, want) {
			t.Errorf("timeline %d: %v", timeline, err)
		}
	}
	if err := r.mayWrite(t.Context(), &cluster{timeline: 2}); !errors.Is(err, ErrNoEligibleNode) {
		t.Errorf("no primary: %v", err)
	}
}

// Choosing costs a comparison per replica.
func BenchmarkChoose(b *testing.B) {
	r := &Router{config: Config{LagLimit: time.Second}}
	c := &cluster{system: 7, timeline: 1}
	for i := range 2 {
		n := &node{index: i, gate: newGate("n", 10, 10)}
		n.state.Store(&state{timeline: 1, lsn: 1000})
		c.replicas = append(c.replicas, n)
	}
	session := causal.NewSession(causal.NewToken(causal.Mark{System: 7, Timeline: 1, LSN: 900}))
	ctx := causal.WithSession(b.Context(), session)
	o := &callOptions{}
	b.ReportAllocs()
	for b.Loop() {
		n := r.needOf(ctx, c, o)
		if r.pick(c, &n, 0) == nil {
			b.Fatal("none")
		}
	}
}

// An old primary that still answers hides a crash of the new one.
func TestCrashBehindOldPrimary(t *testing.T) {
	t.Parallel()
	for _, old := range []bool{false, true} {
		var told []LostWrite
		r := &Router{log: slog.New(slog.DiscardHandler), config: Config{LostWrite: func(l LostWrite) { told = append(told, l) }}}
		r.lost.reported = make(map[causal.Mark]struct{})
		r.lost.judged = 2
		t0 := time.Now()
		oldState := &state{primary: true, timeline: 1, started: t0.Add(-time.Hour), replayed: 10, lsn: 900}
		before := &state{primary: true, timeline: 2, started: t0, replayed: 500, lsn: 1000}
		after := &state{primary: true, timeline: 2, started: t0, replayed: 1100, lsn: 1101}
		poll := func(s *state) {
			r.mu.Lock()
			r.noteCrash(s)
			r.unlock()
		}
		poll(before)
		r.acknowledged(ownWrite{Mark: causal.Mark{System: 1, Timeline: 2, LSN: 1200}, era: life{t0, 500}.era()})
		if old {
			poll(oldState)
		}
		poll(after)
		if len(told) != 1 {
			t.Errorf("old primary answers: %t: %d lost writes reported, want 1", old, len(told))
		}
	}
}
