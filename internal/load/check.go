package load

import (
	"fmt"
	"net/url"
	"time"
)

// selfCheck gives the reasons why a step says nothing about the server.
func (c Config) selfCheck(s *StepReport) []string {
	if s.Rate == 0 && s.EndRate == 0 {
		return nil // a pause
	}
	var void []string
	because := func(format string, args ...any) { void = append(void, fmt.Sprintf(format, args...)) }
	all := s.All()
	switch {
	case s.Planned == 0:
		because("no arrival was planned: the step is too short for its rate")
		return void
	case all.Response.Count() == 0:
		because("the journeys made no request")
	}
	if inTime := s.Sent + s.Dropped - s.Late; float64(inTime) < minInTime*float64(s.Planned) {
		because("%d of %d arrivals were sent in time (%.1f %%, want %.0f %%)",
			inTime, s.Planned, 100*float64(inTime)/float64(s.Planned), 100*minInTime)
	}
	if p99 := s.Lag.Quantile(0.99); c.MaxLag > 0 && p99 > c.MaxLag {
		because("p99 of the send lag is %v, more than %v", p99, c.MaxLag)
	}
	if c.MaxCPU > 0 && s.CPU > c.MaxCPU {
		because("the generator used %.0f %% of its cores, more than %.0f %%", 100*s.CPU, 100*c.MaxCPU)
	}
	if c.colocated() && c.MaxMachineCPU > 0 && s.MachineCPU > c.MaxMachineCPU {
		because("the generator used %.0f %% of the machine that the server runs on, more than %.0f %%",
			100*s.MachineCPU, 100*c.MaxMachineCPU)
	}
	if wait, served, fastest, starved := c.starved(s); starved {
		because("requests waited for one of the %d connections (p90 %v) while the server was as fast as ever (mean %v, at best %v): MaxConns is the limit",
			c.MaxConns, wait, served, fastest)
	}
	return void
}

// minInTime is the least share of arrivals to be sent within their step.
const minInTime = 0.99

// colocated reports whether the server shares this machine. Without a target the
// journeys drive something in this process or near it.
func (c Config) colocated() bool {
	u, err := url.Parse(c.Target)
	return c.Target == "" || (err == nil && local(u.Hostname()))
}

// starved reports whether the client's connections were the limit. A full pool alone
// does not tell: an overloaded server fills it too. But then its answers are slow,
// while behind a pool that is too small the server idles along at its best. Slow is
// twice the fastest answer of the run, so a route with answers of very different
// kinds is not found out; the queue is in the report all the same.
func (c Config) starved(s *StepReport) (wait, served, fastest time.Duration, starved bool) {
	for _, route := range s.Routes {
		wait, served, fastest = route.Queue.Quantile(0.9), route.Service.Mean(), route.Fastest
		if wait > max(served, c.MaxLag) && served < 2*fastest {
			return wait, served, fastest, true
		}
	}
	return 0, 0, 0, false
}

// misses gives what of the SLO a step did not meet. A drop is a request that took too
// long: whoever was turned away at the generator's bound got no answer.
func (s *StepReport) misses(slo SLO) []string {
	if !slo.given() || s.Planned == 0 {
		return nil
	}
	var misses []string
	all := s.All()
	total := all.Response.Count() + s.Dropped
	for _, limit := range []struct {
		name  string
		share float64
		at    time.Duration
	}{{"p95", 0.95, slo.P95}, {"p99", 0.99, slo.P99}} {
		if limit.at <= 0 {
			continue
		}
		if slow := all.Response.Above(limit.at) + s.Dropped; float64(slow) > (1-limit.share)*float64(total) {
			misses = append(misses, fmt.Sprintf("%s is %v, more than %v (%d of %d were slower or dropped)",
				limit.name, all.Response.Quantile(limit.share), limit.at, slow, total))
		}
	}
	if bad := s.Failed + s.Unfinished + s.Dropped; float64(bad) > max(0, slo.MaxErrors)*float64(s.Planned) {
		misses = append(misses, fmt.Sprintf("%d of %d arrivals failed or were dropped, more than %.2g %%",
			bad, s.Planned, 100*max(0, slo.MaxErrors)))
	}
	return misses
}

// judge decides the outcomes from what the steps hold.
func (r *Report) judge() {
	r.Outcome = Pass
	if len(r.Void) > 0 {
		r.Outcome = Void
	}
	measured := false
	for i := range r.Steps {
		s := &r.Steps[i]
		s.Misses = s.misses(r.SLO)
		measured = measured || s.Planned > 0
		switch {
		case len(s.Void) > 0:
			s.Outcome, r.Outcome = Void, Void
		case len(s.Misses) > 0:
			s.Outcome = Fail
			if r.Outcome == Pass {
				r.Outcome = Fail
			}
		default:
			s.Outcome = Pass
		}
	}
	if !measured {
		r.Outcome = Void
	}
}
