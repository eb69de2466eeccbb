package live

import (
	"fmt"
	"math"
	"strings"
)

// State is how a hop is.
type State string

// States of a hop.
const (
	Idle State = "idle" // nothing goes there, or nothing is known of it
	OK   State = "ok"
	Busy State = "busy" // more than 70 %
	Full State = "full" // requests wait for it, or are refused
	Away State = "away" // it does not answer, or is behind
)

// Hop is one of those that requests pass, in their order.
type Hop struct {
	ID   string `json:"id"`
	Name string `json:"name"`
	// Utilisation is up to 1; nil where nobody measures it.
	Utilisation *float64 `json:"utilisation,omitempty"`
	// Of is what that is a share of.
	Of    string `json:"of,omitempty"`
	State State  `json:"state"`
	// Why it is full or away.
	Why   string `json:"why,omitempty"`
	Facts []Fact `json:"facts"`
}

// Fact is what is shown of it.
type Fact struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Tightest is the hop that would be in the way first.
type Tightest struct {
	Hop string `json:"hop"`
	Why string `json:"why"`
	// Until is at how many requests a second it would be full, if all grew in proportion; 0: it is, or nobody knows.
	Until float64 `json:"until,omitempty"`
}

const (
	busy = 0.7
	full = 0.95
	// known is from where on a utilisation says something of another rate: below, it is what goes on anyway.
	known = 0.2
	// behind is how old events may be that wait to be published, in seconds, as alerts have it. Of replicas, how far they may be behind.
	behind = 10
)

func (h *Hop) fact(name, format string, args ...any) {
	h.Facts = append(h.Facts, Fact{name, fmt.Sprintf(format, args...)})
}

func (h *Hop) measured(share float64, of string) {
	share = math.Round(1000*min(1, max(0, share))) / 1000
	h.Utilisation, h.Of = &share, of
	switch {
	case share >= full:
		h.is(Full, fmt.Sprintf("%.0f %% of its %s", 100*share, of))
	case share >= busy:
		h.is(Busy, "")
	default:
		h.is(OK, "")
	}
}

// is the worst that is said of it.
func (h *Hop) is(s State, why string) {
	order := map[State]int{"": -1, Idle: 0, OK: 1, Busy: 2, Full: 3, Away: 4}
	if order[s] > order[h.State] {
		h.State, h.Why = s, why
	}
}

// path has each hop, from the client to the broker. Load is what is known of servers from outside, by the hop's id.
func (w window) path(v *View, load map[string]float64) []Hop {
	path := []Hop{w.edge(v), w.app(v), w.cache(v)}
	path = append(path, databases(v)...)
	path = append(path, w.broker(v))
	for i := range path {
		h := &path[i]
		if share, ok := load[h.ID]; ok && h.Utilisation == nil {
			state := h.State
			h.measured(share, "processor")
			h.is(state, h.Why)
		}
		h.is(Idle, "")
		if h.Facts == nil {
			h.Facts = []Fact{}
		}
	}
	return path
}

func (w window) edge(v *View) Hop {
	h := Hop{ID: "edge", Name: "Edge"}
	limit, measured := w.sum("loadline_overload_limit")
	inFlight, _ := w.sum("loadline_overload_in_flight")
	queued, _ := w.sum("loadline_overload_queued")
	if measured && limit > 0 {
		h.measured(inFlight/limit, "places")
		h.fact("in flight", "%.0f of %.0f", inFlight, limit)
	} else if active, ok := w.sum("http_server_active_requests"); ok {
		h.fact("in flight", "%.0f", active)
		h.is(OK, "")
	}
	if shed := w.rate("loadline_overload_requests_total", func(l labels) bool { return l.get("outcome") == "shed" }); shed > 0 {
		h.fact("shed", "%s/s", number(shed))
		h.is(Full, fmt.Sprintf("it refuses %s requests a second for want of room", number(shed)))
	}
	if queued > 0 {
		h.fact("queued", "%.0f", queued)
	}
	if refused := w.rate("loadline_ratelimit_decisions_total", func(l labels) bool { return l.get("decision") == "denied" }); refused > 0 {
		h.fact("over limit", "%s/s", number(refused))
	}
	h.fact("requests", "%s/s", number(v.Now.Rate))
	return h
}

func (w window) app(v *View) Hop {
	h := Hop{ID: "app", Name: "Application"}
	lost := 0
	for _, i := range v.Instances {
		if i.lost {
			lost++
		}
	}
	if lost > 0 {
		h.is(Away, fmt.Sprintf("%d of %d processes do not answer any more", lost, len(v.Instances)))
	}
	processors, _ := w.steady().sum("go_processor_limit")
	cpu := w.rate("process_cpu_seconds_total", nil)
	if processors > 0 {
		state, why := h.State, h.Why
		h.measured(cpu/processors, "processors")
		h.is(state, why)
		h.fact("CPU", "%.2f of %.0f", cpu, processors)
	}
	if n, ok := w.sum("go_goroutine_count"); ok {
		h.fact("goroutines", "%.0f", n)
	}
	if bytes, ok := w.sum("process_resident_memory_bytes"); ok {
		h.fact("memory", "%.0f MB", bytes/1e6)
	}
	return h
}

func (w window) cache(v *View) Hop {
	h := Hop{ID: "cache", Name: "Cache"}
	var rate, process, redis float64
	for _, c := range v.Caches {
		rate += c.Rate
		process += c.Rate * c.Process
		redis += c.Rate * c.Redis
	}
	if rate > 0 {
		h.is(OK, "")
		h.fact("in process", "%.0f %%", 100*process/rate)
		h.fact("in Redis", "%.0f %%", 100*redis/rate)
		h.fact("reads", "%s/s", number(rate))
	}
	local := w.rate("loadline_ratelimit_decisions_total", func(l labels) bool { return l.get("by") == "local" })
	shared := w.rate("loadline_ratelimit_decisions_total", func(l labels) bool { return l.get("by") == "redis" })
	if w.counted("loadline_ratelimit_wait_seconds") { // there is a Redis, or nobody would ever have waited for it
		h.is(OK, "")
		if waits := w.merged("loadline_ratelimit_wait_seconds", nil); waits != nil && waits.count > 0 {
			h.fact("Redis, p95", "%s ms", number(1000*waits.quantile(0.95)))
		}
		if local > shared {
			h.is(Away, "Redis does not answer in time: limits are counted by each instance")
		}
	}
	idle := 0
	w.gauges("loadline_cache_active", func(_ labels, is float64) {
		if is == 0 {
			idle++
		}
	})
	if idle > 0 {
		h.is(Away, fmt.Sprintf("%d of %d instances cannot use it: Redis or the relay of invalidations is away", idle, len(w)))
	}
	return h
}

func databases(v *View) []Hop {
	primary, replicas := Hop{ID: "primary", Name: "Primary"}, Hop{ID: "replicas", Name: "Replicas"}
	var used, most, waiting, busiest, fullest float64
	n, up := 0, 0
	for _, s := range v.Servers {
		if s.Role != "replica" {
			if fullest = max(fullest, s.Utilisation); fullest == s.Utilisation { // where there are several, that of several services
				primary.measured(fullest, "connections")
			}
			primary.fact("connections", "%.0f of %.0f", s.Used, s.Max)
			if s.Waiting > 0 {
				primary.fact("waiting", "%.0f, p95 %s ms", s.Waiting, number(s.WaitP95))
				primary.is(Full, fmt.Sprintf("%.0f requests wait for one of its %.0f connections", s.Waiting, s.Max))
			}
			if s.Up < s.Of {
				primary.is(Away, fmt.Sprintf("it does not answer %d of %d instances", s.Of-s.Up, s.Of))
			}
			primary.fact("server", "%s", s.Name)
			continue
		}
		n++
		used, most, waiting, busiest = used+s.Used, most+s.Max, waiting+s.Waiting, max(busiest, s.Utilisation)
		if s.Up == s.Of {
			up++
		} else {
			replicas.is(Away, s.Name+" does not answer")
		}
		if s.Lag != nil && *s.Lag > behind {
			replicas.is(Away, fmt.Sprintf("%s is %s s behind", s.Name, number(*s.Lag)))
		}
	}
	if n == 0 {
		return []Hop{primary}
	}
	state, why := replicas.State, replicas.Why
	replicas.measured(busiest, "connections")
	replicas.is(state, why)
	replicas.fact("servers", "%d of %d", up, n)
	replicas.fact("connections", "%.0f of %.0f", used, most)
	if waiting > 0 {
		replicas.fact("waiting", "%.0f", waiting)
		replicas.is(Full, fmt.Sprintf("%.0f requests wait for one of their connections", waiting))
	}
	return []Hop{replicas, primary}
}

func (w window) broker(v *View) Hop {
	h := Hop{ID: "broker", Name: "Broker"}
	if o := v.Outbox; o != nil {
		h.is(OK, "")
		h.fact("published", "%s/s", number(o.Published))
		h.fact("outbox", "%.0f (%s s)", o.Depth, number(o.Age))
		switch {
		case o.Paused != "":
			h.is(Away, fmt.Sprintf("the relay waits for it (%s), and %.0f events for the relay", strings.ReplaceAll(o.Paused, "_", " "), o.Depth))
		case o.Age > behind:
			h.is(Away, fmt.Sprintf("the oldest event that waits to be published is %s s old", number(o.Age)))
		}
		if o.Dead > 0 {
			h.fact("dead letters", "%.0f", o.Dead)
		}
	}
	var pending, oldest float64
	worst := ""
	for _, g := range v.Groups {
		if pending += g.Pending; g.Oldest > oldest {
			oldest, worst = g.Oldest, g.Group
		}
	}
	if len(v.Groups) > 0 {
		h.fact("pending", "%.0f (%s s)", pending, number(oldest))
	}
	if oldest > behind {
		h.is(Full, fmt.Sprintf("%s is %s s behind", worst, number(oldest)))
	}
	share := 0.0
	w.gauges("loadline_events_stream_used_ratio", func(_ labels, v float64) { share = max(share, v) })
	if share > 0 {
		state, why := h.State, h.Why
		h.measured(share, "room")
		h.is(state, why)
	}
	return h
}

// tightest is, of the hops that are away, the first; of those that are full, the farthest from the client, since requests wait in front of it for as long
// as it is, and fill what is before it; and otherwise the one with the highest utilisation.
func tightest(v *View) *Tightest {
	var found *Hop
	for i := range v.Path {
		h := &v.Path[i]
		switch {
		case found != nil && found.State == Away:
		case h.State == Away, h.State == Full && (h.ID != "broker" || found == nil || found.State != Full): // nobody waits for the broker
			found = h
		case found != nil && found.State == Full:
		case h.Utilisation != nil && *h.Utilisation > 0 && (found == nil || *h.Utilisation > *found.Utilisation):
			found = h
		}
	}
	if found == nil {
		return nil
	}
	t := &Tightest{Hop: found.ID, Why: found.Why}
	if found.State == OK || found.State == Busy {
		t.Why = fmt.Sprintf("%.0f %% of its %s", 100**found.Utilisation, found.Of)
		if *found.Utilisation >= known {
			t.Until = v.Now.Rate / *found.Utilisation
		}
	}
	return t
}

// number has two significant digits, or all of a larger one.
func number(v float64) string {
	switch {
	case v >= 10 || v == 0:
		return fmt.Sprintf("%.0f", v)
	case v >= 1:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.2g", v)
	}
}
