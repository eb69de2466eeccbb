package load

import (
	"runtime"
	"slices"
	"sort"
	"time"
)

// report turns what was recorded into figures and a verdict.
func (r *run) report(interrupted, abandoned bool) *Report {
	out := &Report{
		Target: r.cfg.Target, Seed: r.cfg.Seed, Arrivals: r.cfg.Arrivals.String(), SLO: r.cfg.SLO,
		Started: r.began, Elapsed: time.Since(r.began), Steps: make([]StepReport, len(r.schedule.steps)),
	}
	if interrupted {
		out.Void = append(out.Void, "interrupted")
	}
	if abandoned {
		out.Void = append(out.Void, "a journey goes on after its context has ended")
	}
	for i, step := range r.schedule.steps {
		out.Steps[i] = StepReport{
			Title: step.title(), Rate: step.Rate, EndRate: step.EndRate, Measured: step.Duration - step.Warmup,
			Routes: r.rec.take(i),
		}
		s := &out.Steps[i]
		r.sends[i].mu.Lock()
		s.Lag, s.Late = r.sends[i].lag, r.sends[i].late
		r.sends[i].lag = Histogram{} // as in take
		r.sends[i].mu.Unlock()
		if len(r.marks) > 2*i+1 {
			s.CPU, s.MachineCPU = r.marks[2*i].until(r.marks[2*i+1])
		}
	}
	r.count(out.Steps)
	for i := range out.Steps {
		out.Steps[i].Void = r.cfg.selfCheck(&out.Steps[i])
	}
	out.judge()
	return out
}

// until gives the shares of this process's cores, and of the machine's, that it used.
func (m mark) until(end mark) (own, machine float64) {
	wall := end.at.Sub(m.at).Seconds()
	if wall <= 0 {
		return 0, 0
	}
	used := (end.cpu - m.cpu).Seconds() / wall
	return used / float64(min(runtime.GOMAXPROCS(0), runtime.NumCPU())), used / float64(runtime.NumCPU())
}

// count fills in what became of the arrivals, and the backlog.
func (r *run) count(steps []StepReport) {
	var due, ends, goodEnds []time.Duration
	sent := int(r.next.Load())
	for i, a := range r.schedule.arrivals {
		s := &steps[a.step]
		counted := !r.schedule.warm(a)
		if counted {
			s.Planned++
		}
		if i >= sent {
			continue
		}
		at, how := r.outcome(i)
		if how != resultDropped {
			due = append(due, a.at)
		}
		switch how {
		case resultGood:
			goodEnds = append(goodEnds, at)
			ends = append(ends, at)
		case resultFailed:
			ends = append(ends, at)
		}
		if counted {
			s.add(how)
		}
	}
	slices.Sort(ends)
	slices.Sort(goodEnds)
	for i := range steps {
		from, to := r.schedule.measuredFrom(i), r.schedule.starts[i+1]
		steps[i].Ended = int64(below(goodEnds, to) - below(goodEnds, from))
		steps[i].backlog(from, to, func(t time.Duration) int64 { return int64(below(due, t) - below(ends, t)) })
	}
}

func (s *StepReport) add(how result) {
	switch how {
	case resultDropped:
		s.Dropped++
		return
	case resultGood:
		s.Good++
	case resultFailed:
		s.Failed++
	case resultNone:
		s.Unfinished++
	}
	s.Sent++
}

// below is how many of the sorted times come before t.
func below(times []time.Duration, t time.Duration) int {
	return sort.Search(len(times), func(i int) bool { return times[i] >= t })
}

// backlog regresses the backlog on time. Its slope tells an overload minutes before
// the percentiles do, and in a stable system it is near zero whatever they are.
func (s *StepReport) backlog(from, to time.Duration, at func(time.Duration) int64) {
	const points = 200 // more change nothing
	var sumX, sumY, sumXX, sumXY float64
	for i := range points {
		t := from + (to-from)*time.Duration(i)/(points-1)
		y := at(t)
		s.BacklogMax = max(s.BacklogMax, y)
		x := (t - from).Seconds()
		sumX, sumY, sumXX, sumXY = sumX+x, sumY+float64(y), sumXX+x*x, sumXY+x*float64(y)
	}
	s.BacklogStart, s.BacklogEnd = at(from), at(to)
	if spread := points*sumXX - sumX*sumX; spread > 0 {
		s.BacklogSlope = (points*sumXY - sumX*sumY) / spread
	}
}
