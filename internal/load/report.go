package load

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// Outcome is the verdict on a run or a step.
type Outcome string

const (
	// Pass: the generator kept up, and the SLO, if there is one, was met.
	Pass Outcome = "PASS"
	// Fail: the generator kept up, and the SLO was missed.
	Fail Outcome = "FAIL"
	// Void: the figures are about the generator, or about nothing. Neither good nor bad.
	Void Outcome = "VOID"
)

// Report is what a run has measured.
type Report struct {
	Outcome Outcome `json:"outcome"`
	// Void says why the run as a whole is void; steps have their own reasons.
	Void     []string      `json:"void,omitempty"`
	Target   string        `json:"target,omitempty"`
	Seed     uint64        `json:"seed"`
	Arrivals string        `json:"arrivals"`
	SLO      SLO           `json:"slo"`
	Started  time.Time     `json:"started"`
	Elapsed  time.Duration `json:"elapsed_ns"` // with the drain
	Steps    []StepReport  `json:"steps"`
}

// StepReport is about the arrivals of a step, its warm-up excluded. A request counts
// for the step that its journey arrived in, however late it is made.
type StepReport struct {
	Title    string        `json:"title"`
	Rate     float64       `json:"rate"`
	EndRate  float64       `json:"end_rate,omitempty"`
	Measured time.Duration `json:"measured_ns"` // without the warm-up

	Outcome Outcome  `json:"outcome"`
	Void    []string `json:"void,omitempty"`
	Misses  []string `json:"misses,omitempty"` // of the SLO

	// Planned = Sent + Dropped + what an interrupt left unsent.
	Planned int64 `json:"planned"`
	Sent    int64 `json:"sent"`
	Late    int64 `json:"late"`    // of Sent, after the step's end
	Dropped int64 `json:"dropped"` // at MaxInFlight
	// Sent = Good + Failed + Unfinished.
	Good       int64 `json:"good"`
	Failed     int64 `json:"failed"`
	Unfinished int64 `json:"unfinished"` // cut off by the end of the run

	// Ended is how many journeys ended well during the measured part, whenever they
	// arrived. Where it stays below Planned, the backlog grows.
	Ended int64 `json:"ended"`
	// The backlog is what is due and has not ended, the time before sending included.
	BacklogStart int64   `json:"backlog_start"`
	BacklogEnd   int64   `json:"backlog_end"`
	BacklogMax   int64   `json:"backlog_max"`
	BacklogSlope float64 `json:"backlog_slope"` // per second, by least squares

	// CPU and MachineCPU are the shares that this process has used of the cores it may
	// use, and of the machine's.
	CPU        float64 `json:"cpu"`
	MachineCPU float64 `json:"machine_cpu"`

	Lag    Histogram     `json:"lag"` // from an arrival's intended start to its journey's
	Routes []RouteReport `json:"routes"`
}

// RouteReport is about the requests of one route in one step.
type RouteReport struct {
	Route    string           `json:"route"`
	Errors   int64            `json:"errors"`
	Failures map[string]int64 `json:"failures,omitempty"` // by cause
	// Fastest is the shortest service time of the whole run, warm-up included.
	Fastest time.Duration `json:"fastest_ns"`

	Response Histogram `json:"response"` // what a user waits, from the intended start on
	Service  Histogram `json:"service"`  // with a connection, to the answer's last byte
	Lag      Histogram `json:"lag"`      // of the requests that were due at a given time
	Queue    Histogram `json:"queue"`    // waiting for a connection, dialling included
}

// maxFailures bounds the causes that a report holds apart.
const maxFailures = 32

func (r *RouteReport) fail(cause string, n int64) {
	if r.Failures == nil {
		r.Failures = make(map[string]int64)
	}
	if _, ok := r.Failures[cause]; !ok && len(r.Failures) >= maxFailures {
		cause = "other"
	}
	r.Failures[cause] += n
	r.Errors += n
}

func (r *RouteReport) merge(from RouteReport) {
	for cause, n := range from.Failures {
		r.fail(cause, n)
	}
	if r.Fastest == 0 || (from.Fastest > 0 && from.Fastest < r.Fastest) {
		r.Fastest = from.Fastest
	}
	r.Response.Merge(from.Response)
	r.Service.Merge(from.Service)
	r.Lag.Merge(from.Lag)
	r.Queue.Merge(from.Queue)
}

// All is the step's routes as one.
func (s *StepReport) All() RouteReport {
	all := RouteReport{Route: "all"}
	for _, route := range s.Routes {
		all.merge(route)
	}
	return all
}

// Throughput is the number of journeys that ended well per second.
func (s *StepReport) Throughput() float64 { return perSecond(s.Ended, s.Measured) }

// SentRate is the number of arrivals sent in time per second.
func (s *StepReport) SentRate() float64 { return perSecond(s.Sent-s.Late, s.Measured) }

func perSecond(n int64, d time.Duration) float64 {
	if d <= 0 {
		return 0
	}
	return float64(n) / d.Seconds()
}

// ErrOtherRun is the refusal to merge reports whose steps differ in number or length.
var ErrOtherRun = errors.New("load: reports of different runs")

// Merge joins the reports of processes that each sent a part of one load: rates and
// counts add up, percentiles come from all requests, and the SLO is checked anew. The
// whole is void where a part is. Shares of processors are the largest of the parts',
// which may be on one machine or on several.
func Merge(first *Report, others ...*Report) (*Report, error) {
	out := *first
	out.Void = slices.Clone(first.Void)
	out.Steps = make([]StepReport, len(first.Steps))
	for i := range first.Steps {
		out.Steps[i] = first.Steps[i].copied()
	}
	for _, other := range others {
		if len(other.Steps) != len(out.Steps) {
			return nil, fmt.Errorf("%w: %d steps and %d", ErrOtherRun, len(out.Steps), len(other.Steps))
		}
		out.Void = union(out.Void, other.Void)
		out.Elapsed = max(out.Elapsed, other.Elapsed)
		if other.Started.Before(out.Started) {
			out.Started = other.Started
		}
		for i := range out.Steps {
			if out.Steps[i].Measured != other.Steps[i].Measured {
				return nil, fmt.Errorf("%w: step %d is measured for %v and %v", ErrOtherRun, i+1, out.Steps[i].Measured, other.Steps[i].Measured)
			}
			out.Steps[i].merge(&other.Steps[i])
		}
	}
	out.judge()
	return &out, nil
}

func (s *StepReport) copied() StepReport {
	out := *s
	out.Void, out.Lag, out.Routes = slices.Clone(s.Void), Histogram{}, nil
	out.Lag.Merge(s.Lag)
	for _, route := range s.Routes {
		fresh := RouteReport{Route: route.Route}
		fresh.merge(route)
		out.Routes = append(out.Routes, fresh)
	}
	return out
}

func (s *StepReport) merge(from *StepReport) {
	s.Rate += from.Rate
	s.EndRate += from.EndRate
	s.Title = Step{Rate: s.Rate, EndRate: s.EndRate}.title()
	s.Void = union(s.Void, from.Void)
	for _, sum := range []struct{ into, add *int64 }{
		{&s.Planned, &from.Planned},
		{&s.Sent, &from.Sent},
		{&s.Late, &from.Late},
		{&s.Dropped, &from.Dropped},
		{&s.Good, &from.Good},
		{&s.Failed, &from.Failed},
		{&s.Unfinished, &from.Unfinished},
		{&s.Ended, &from.Ended},
		{&s.BacklogStart, &from.BacklogStart},
		{&s.BacklogEnd, &from.BacklogEnd},
		{&s.BacklogMax, &from.BacklogMax},
	} {
		*sum.into += *sum.add
	}
	s.BacklogSlope += from.BacklogSlope
	s.CPU, s.MachineCPU = max(s.CPU, from.CPU), max(s.MachineCPU, from.MachineCPU)
	s.Lag.Merge(from.Lag)
	routes := make(map[string]RouteReport)
	for _, route := range append(s.Routes, from.Routes...) {
		into := routes[route.Route]
		into.Route = route.Route
		into.merge(route)
		routes[route.Route] = into
	}
	s.Routes = nil
	for _, name := range slices.Sorted(maps.Keys(routes)) {
		s.Routes = append(s.Routes, routes[name])
	}
}

// union is a, and what b has beside that.
func union(a, b []string) []string {
	for _, s := range b {
		if !slices.Contains(a, s) {
			a = append(a, s)
		}
	}
	return a
}
