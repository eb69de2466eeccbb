package load

import (
	"maps"
	"slices"
	"sync"
	"time"
)

// timing is what one request took. Negative: did not happen, or is not known.
type timing struct {
	response time.Duration // from when it was wanted to the answer's last byte
	service  time.Duration // from when it had a connection
	lag      time.Duration // from when it was due to when the journey asked for it
	queue    time.Duration // waiting for a connection, dialling included
}

// recorder keeps the timings of every route and step.
type recorder struct {
	mu     sync.Mutex
	steps  []map[string]*series
	routes map[string]*route
}

type series struct {
	mu     sync.Mutex
	report RouteReport
}

// route is what is known of a route over the whole run.
type route struct {
	mu      sync.Mutex
	fastest time.Duration // service, warm-up included; 0 before the first
}

func newRecorder(steps int) *recorder {
	r := &recorder{steps: make([]map[string]*series, steps), routes: make(map[string]*route)}
	for i := range r.steps {
		r.steps[i] = make(map[string]*series)
	}
	return r
}

// otherRoutes collects what is beyond the bound: a journey that puts an identifier
// into the route's name must not take all memory.
const otherRoutes = "(other routes)"

// find gives where a request is recorded; no series in the warm-up.
func (r *recorder) find(step int, name string, warm bool) (*route, *series) {
	r.mu.Lock()
	defer r.mu.Unlock()
	known, ok := r.routes[name]
	if !ok {
		if len(r.routes) >= maxRoutes {
			name = otherRoutes
			known = r.routes[name]
		}
		if known == nil {
			known = &route{}
			r.routes[name] = known
		}
	}
	if warm {
		return known, nil
	}
	s, ok := r.steps[step][name]
	if !ok {
		s = &series{report: RouteReport{Route: name}}
		r.steps[step][name] = s
	}
	return known, s
}

func (r *recorder) record(step int, name string, warm bool, t timing, failure string) {
	known, s := r.find(step, name, warm)
	if t.service >= 0 {
		known.mu.Lock()
		if known.fastest == 0 || t.service < known.fastest {
			known.fastest = t.service
		}
		known.mu.Unlock()
	}
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	into := &s.report
	into.Response.Record(t.response)
	for _, part := range []struct {
		took time.Duration
		into *Histogram
	}{{t.service, &into.Service}, {t.lag, &into.Lag}, {t.queue, &into.Queue}} {
		if part.took >= 0 {
			part.into.Record(part.took)
		}
	}
	if failure != "" {
		into.fail(failure, 1)
	}
}

// take gives what a step has, by route. What an abandoned journey records afterwards
// goes nowhere.
func (r *recorder) take(step int) []RouteReport {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []RouteReport
	for _, name := range slices.Sorted(maps.Keys(r.steps[step])) {
		s := r.steps[step][name]
		s.mu.Lock()
		report := s.report
		s.report = RouteReport{Route: name}
		s.mu.Unlock()
		known := r.routes[name]
		known.mu.Lock()
		report.Fastest = known.fastest
		known.mu.Unlock()
		out = append(out, report)
	}
	return out
}
