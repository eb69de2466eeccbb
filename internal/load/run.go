package load

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"net/http/cookiejar"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// Progress is the state of a run, once a second.
type Progress struct {
	Elapsed time.Duration
	Step    string // its title
	Planned int64  // arrivals of the whole run
	Sent    int64  // so far, as all below
	Dropped int64
	Done    int64 // ended, well or not
	Failed  int64
}

// InFlight is the number of journeys under way.
func (p Progress) InFlight() int64 { return p.Sent - p.Done }

// Run sends the arrivals of the schedule, waits for what is in flight, and reports.
//
// When ctx ends, Run stops sending, gives what is in flight two seconds to end, and
// reports what there is; the report is void. The error is for a configuration that
// makes no sense and for a target that does not answer at all; a bad result is a
// [Report.Outcome] and not an error.
func Run(ctx context.Context, cfg Config) (*Report, error) {
	schedule, err := cfg.Schedule()
	if err != nil {
		return nil, err
	}
	e := newEngine(cfg.withDefaults())
	defer e.close()
	if err := warm(ctx, e.cfg, e.http); err != nil {
		return nil, err
	}
	return e.run(ctx, e.cfg, schedule), nil
}

// engine is what outlives one run: connections and accounts.
type engine struct {
	cfg      Config // with defaults
	http     *http.Transport
	accounts []account // of the population
}

func newEngine(cfg Config) *engine {
	return &engine{cfg: cfg, http: newTransport(cfg), accounts: make([]account, cfg.Users)}
}

func (e *engine) close() { e.http.CloseIdleConnections() }

// account gives the lasting part of a user.
func (e *engine) account(user int) *account {
	a := &account{}
	if len(e.accounts) > 0 {
		a = &e.accounts[user]
	}
	if e.cfg.Cookies {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.jar == nil {
			a.jar, _ = cookiejar.New(nil) // without options it cannot fail
		}
	}
	return a
}

// run is one schedule's execution.
type run struct {
	*engine
	cfg      Config
	schedule *Schedule
	rec      *recorder
	began    time.Time

	// outcomes has one entry for each arrival, written once: the time of its end after
	// the start of the run, and how it ended. From these, and not from samples, the
	// backlog at any time is known.
	outcomes []atomic.Int64
	sends    []sends // of each step
	marks    []mark  // two for each step: the ends of its warm-up and of itself

	next    atomic.Int64 // the arrival to send next
	dropped atomic.Int64
	done    atomic.Int64
	failed  atomic.Int64
}

// result is the lower bits of an outcome. An arrival without one was not sent, or did
// not end.
type result int64

const (
	resultNone result = iota
	resultGood
	resultFailed
	resultDropped

	resultBits = 2
)

func (r *run) end(i int, how result) {
	r.outcomes[i].Store(int64(time.Since(r.began))<<resultBits | int64(how))
}

func (r *run) outcome(i int) (time.Duration, result) {
	v := r.outcomes[i].Load()
	return time.Duration(v >> resultBits), result(v & (1<<resultBits - 1))
}

// mark is the processor time used until a moment.
type mark struct {
	at  time.Time
	cpu time.Duration
}

// sends is how punctual a step's arrivals were sent, warm-up excluded.
type sends struct {
	mu   sync.Mutex
	lag  Histogram
	late int64 // sent after the step's end, by more than the lag that is allowed
}

func (e *engine) run(ctx context.Context, cfg Config, schedule *Schedule) *Report {
	r := &run{
		engine: e, cfg: cfg, schedule: schedule,
		rec:      newRecorder(len(schedule.steps)),
		outcomes: make([]atomic.Int64, schedule.Len()),
		sends:    make([]sends, len(schedule.steps)),
	}
	runtime.GC() // what came before is not collected during the first step
	journeys, cut := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cut(errCut)
	r.began = time.Now()

	var progress sync.WaitGroup
	stop := make(chan struct{})
	if cfg.Progress != nil {
		progress.Go(func() { r.progress(stop) })
	}
	var inFlight sync.WaitGroup
	r.dispatch(ctx, journeys, &inFlight)
	abandoned := r.drain(ctx, &inFlight, cut)
	close(stop)
	progress.Wait()
	return r.report(ctx.Err() != nil, abandoned)
}

// dispatch starts every journey at its time, and never waits for one. Locking it to a
// thread made it no more punctual (BenchmarkJourney: a p99 of the lag of 0.3 ms either
// way) and cost a tenth of the processor time in switches between threads.
func (r *run) dispatch(ctx, journeys context.Context, inFlight *sync.WaitGroup) {
	wait := r.cfg.wait
	for i, a := range r.schedule.arrivals {
		if !r.markUntil(ctx, a.at) || !wait(ctx, r.began.Add(a.at)) {
			return
		}
		r.next.Store(int64(i) + 1)
		if r.next.Load()-1-r.dropped.Load()-r.done.Load() >= int64(r.cfg.MaxInFlight) {
			r.dropped.Add(1)
			r.end(i, resultDropped)
			continue
		}
		inFlight.Go(func() { r.journey(journeys, i) })
	}
	r.markUntil(ctx, r.schedule.Duration())
}

// markUntil takes the marks that are due up to a time of the run.
func (r *run) markUntil(ctx context.Context, at time.Duration) bool {
	for len(r.marks) < 2*len(r.schedule.steps) {
		step := len(r.marks) / 2
		due := r.schedule.measuredFrom(step)
		if len(r.marks)%2 == 1 {
			due = r.schedule.starts[step+1]
		}
		if due > at {
			return true
		}
		if !r.cfg.wait(ctx, r.began.Add(due)) {
			return false
		}
		r.marks = append(r.marks, mark{at: time.Now(), cpu: processCPU()})
	}
	return true
}

func (r *run) journey(ctx context.Context, i int) {
	a := r.schedule.arrivals[i]
	due := r.began.Add(a.at)
	u := &User{
		ID:   int(a.user),
		Rand: rand.New(rand.NewPCG(r.cfg.Seed, streamJourney+uint64(i))),
		run:  r, account: r.account(int(a.user)),
		step: int(a.step), warm: r.schedule.warm(a), due: due,
	}
	if !u.warm {
		r.sent(u.step, due)
	}
	err := r.cfg.Journeys[a.journey].Run(ctx, u)
	if errors.Is(context.Cause(ctx), errCut) {
		return // whether it would have ended well is not known
	}
	if err != nil || u.failed {
		r.failed.Add(1)
		r.end(i, resultFailed)
	} else {
		r.end(i, resultGood)
	}
	r.done.Add(1)
}

func (r *run) sent(step int, due time.Time) {
	now := time.Now()
	s := &r.sends[step]
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lag.Record(now.Sub(due))
	if r.cfg.MaxLag >= 0 && now.Sub(r.began) > r.schedule.starts[step+1]+r.cfg.MaxLag {
		s.late++
	}
}

const (
	// stopGrace is how long one who has interrupted a run waits for it. A guess.
	stopGrace = 2 * time.Second
	// cutGrace is for journeys to notice that their context has ended. A guess.
	cutGrace = 2 * time.Second
)

// drain waits for the journeys under way: a run that does not would leave out the
// slowest answers. It cuts off what takes too long, and reports whether some go on
// even then.
func (r *run) drain(ctx context.Context, inFlight *sync.WaitGroup, cut context.CancelCauseFunc) (abandoned bool) {
	ended := make(chan struct{})
	go func() {
		inFlight.Wait()
		close(ended)
	}()
	within := func(d time.Duration, done <-chan struct{}) bool {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-ended:
			return true
		case <-timer.C:
		case <-done:
		}
		return false
	}
	if within(r.cfg.DrainTimeout, ctx.Done()) {
		return false
	}
	if ctx.Err() != nil && within(min(stopGrace, r.cfg.DrainTimeout), nil) {
		return false
	}
	cut(errCut)
	return !within(cutGrace, nil)
}

func (r *run) progress(stop <-chan struct{}) {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-stop:
			return
		case <-ticker.C:
			r.cfg.Progress(r.state())
		}
	}
}

func (r *run) state() Progress {
	p := Progress{Elapsed: time.Since(r.began), Planned: int64(r.schedule.Len())}
	step := 0
	for step < len(r.schedule.steps)-1 && r.schedule.starts[step+1] <= p.Elapsed {
		step++
	}
	p.Step = r.schedule.steps[step].title()
	p.Failed, p.Done, p.Dropped = r.failed.Load(), r.done.Load(), r.dropped.Load()
	p.Sent = r.next.Load() - p.Dropped
	return p
}
