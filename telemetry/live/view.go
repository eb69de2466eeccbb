package live

import (
	"cmp"
	"regexp"
	"slices"
	"strings"
	"time"
)

// View is what the page shows.
type View struct {
	Time time.Time `json:"time"`
	// Window is over how many seconds rates and percentiles are; less just after somebody has begun to watch.
	Window    float64    `json:"window"`
	Instances []Instance `json:"instances"`
	// Alive are those that have answered in the last seconds.
	Alive    int       `json:"alive"`
	Now      Requests  `json:"now"`
	Path     []Hop     `json:"path"`
	Tightest *Tightest `json:"tightest,omitempty"`
	Routes   []Route   `json:"routes"`
	Servers  []Server  `json:"servers"`
	Caches   []Cache   `json:"caches"`
	Outbox   *Outbox   `json:"outbox,omitempty"`
	Groups   []Group   `json:"groups"`
	Realtime *Realtime `json:"realtime,omitempty"`
	Deploys  []Deploy  `json:"deploys"`
	Traces   []Trace   `json:"traces"`
	// Stack is what [Config.Stack] has returned.
	Stack any `json:"stack,omitempty"`
}

// Instance is a process.
type Instance struct {
	Name    string `json:"name"`
	Service string `json:"service,omitempty"`
	Version string `json:"version,omitempty"`
	// Problem: it could not be looked at.
	Problem string `json:"problem,omitempty"`
	lost    bool   // though it could, before
}

// Requests are what was served in the window: a second, the share that has failed (5xx), and percentiles in milliseconds.
type Requests struct {
	Rate   float64 `json:"rate"`
	Failed float64 `json:"failed"`
	P50    float64 `json:"p50"`
	P95    float64 `json:"p95"`
	P99    float64 `json:"p99"`
}

// Route is what was served of one route.
type Route struct {
	Method string `json:"method"`
	Route  string `json:"route"`
	Requests
}

// Server is a database server, with the pools of all instances.
type Server struct {
	Name string `json:"name"`
	Role string `json:"role"`
	// Up is of how many instances, of those that it has, it answers the polls.
	Up          int      `json:"up"`
	Of          int      `json:"of"`
	Used        float64  `json:"used"`
	Max         float64  `json:"max"`
	Waiting     float64  `json:"waiting"`
	WaitP95     float64  `json:"waitP95"` // in milliseconds, of those who had to
	Utilisation float64  `json:"utilisation"`
	Lag         *float64 `json:"lag,omitempty"` // in seconds, the largest
}

// Cache is a class of a cache: reads a second, and how they were answered, as shares.
type Cache struct {
	Cache   string  `json:"cache"`
	Class   string  `json:"class"`
	Rate    float64 `json:"rate"`
	Process float64 `json:"process"` // by this process's memory, or a load that was under way
	Redis   float64 `json:"redis"`
	Loaded  float64 `json:"loaded"` // for the cache
	Past    float64 `json:"past"`   // the cache: it could not be used
	LoadP95 float64 `json:"loadP95"`
	Bytes   float64 `json:"bytes"`
}

// Outbox is what waits in the database to be published.
type Outbox struct {
	Age       float64 `json:"age"` // of the oldest, in seconds
	Depth     float64 `json:"depth"`
	Published float64 `json:"published"` // a second
	Failed    float64 `json:"failed"`    // attempts a second
	Dead      float64 `json:"dead"`
	Paused    string  `json:"paused,omitempty"` // why
	Leading   float64 `json:"leading"`          // relays that have the lease
}

// Group consumes events.
type Group struct {
	Group       string  `json:"group"`
	Pending     float64 `json:"pending"`
	Oldest      float64 `json:"oldest"` // in seconds
	Redelivered float64 `json:"redelivered"`
	Rate        float64 `json:"rate"`
	Retried     float64 `json:"retried"` // a second
	Dead        float64 `json:"dead"`    // a second
	AgeP95      float64 `json:"ageP95"`  // from the event to its end, in seconds
}

// Deploy is when a version was deployed.
type Deploy struct {
	Version string    `json:"version"`
	At      time.Time `json:"at"`
}

// requests are what a group of series says.
type requests struct {
	count, failed float64 // a second
	took          *histogram
}

func (r *requests) add(l labels, h *histogram, seconds float64) {
	r.count += h.count / seconds
	if code := l.get("http_response_status_code"); strings.HasPrefix(code, "5") || code == "" && l.get("error_type") != "" {
		r.failed += h.count / seconds
	}
	r.took = r.took.plus(h, 1)
}

func (r *requests) shown() Requests {
	out := Requests{Rate: r.count}
	if r.count > 0 {
		out.Failed = r.failed / r.count
		out.P50, out.P95, out.P99 = 1000*r.took.quantile(0.5), 1000*r.took.quantile(0.95), 1000*r.took.quantile(0.99)
	}
	return out
}

const maxRoutes = 50

func (w window) requests() (all Requests, routes []Route) {
	var total requests
	type key struct{ method, route string }
	of := make(map[key]*requests)
	w.histograms("http_server_request_duration_seconds", func(l labels, h *histogram, seconds float64) {
		total.add(l, h, seconds)
		k := key{l.get("http_request_method"), cmp.Or(l.get("http_route"), "(no route)")}
		if of[k] == nil {
			of[k] = new(requests)
		}
		of[k].add(l, h, seconds)
	})
	routes = []Route{}
	for k, r := range of {
		if r.count > 0 {
			routes = append(routes, Route{k.method, k.route, r.shown()})
		}
	}
	slices.SortFunc(routes, func(a, b Route) int {
		return cmp.Or(cmp.Compare(b.Rate, a.Rate), cmp.Compare(a.Route, b.Route), cmp.Compare(a.Method, b.Method))
	})
	return total.shown(), routes[:min(len(routes), maxRoutes)]
}

func (w window) servers() []Server {
	of := make(map[string]*Server)
	server := func(name string) *Server {
		if of[name] == nil {
			of[name] = &Server{Name: name}
		}
		return of[name]
	}
	const pool = "db_client_connection_pool_name"
	w.gauges("db_client_connection_count", func(l labels, v float64) {
		if l.get("db_client_connection_state") == "used" {
			server(l.get(pool)).Used += v
		}
	})
	w.gauges("db_client_connection_max", func(l labels, v float64) { server(l.get(pool)).Max += v })
	w.gauges("db_client_connection_pending_requests", func(l labels, v float64) { server(l.get(pool)).Waiting += v })
	waits := make(map[string]*histogram)
	w.histograms("db_client_connection_wait_time_seconds", func(l labels, h *histogram, _ float64) {
		waits[l.get(pool)] = waits[l.get(pool)].plus(h, 1)
	})
	w.rates("loadline_db_connection_occupied_seconds_total", func(l labels, v float64) { server(l.get(pool)).Utilisation += v })
	w.gauges("loadline_db_server_up", func(l labels, v float64) {
		s := server(l.get("server"))
		s.Of++
		s.Up += int(v)
		if s.Role != "primary" { // while instances do not agree
			s.Role = l.get("role")
		}
	})
	w.gauges("loadline_db_replica_lag_seconds", func(l labels, v float64) {
		s := server(l.get("server"))
		if s.Lag == nil || *s.Lag < v {
			s.Lag = &v
		}
	})
	measured := make(map[string]float64) // connections of those of which there are rates
	w.steady().gauges("db_client_connection_max", func(l labels, v float64) { measured[l.get(pool)] += v })
	known := false // which servers package db has; pools of others are not shown beside
	for _, s := range of {
		known = known || s.Of > 0
	}
	all := make([]Server, 0, len(of))
	for name, s := range of {
		if known && s.Of == 0 {
			continue
		}
		s.WaitP95 = 1000 * waits[name].quantile(0.95)
		if measured[name] > 0 {
			s.Utilisation = min(1, s.Utilisation/measured[name])
		}
		all = append(all, *s)
	}
	slices.SortFunc(all, func(a, b Server) int { return cmp.Or(cmp.Compare(a.Role, b.Role), cmp.Compare(a.Name, b.Name)) })
	return all
}

func (w window) caches() []Cache {
	type key struct{ cache, class string }
	of := make(map[key]*Cache)
	class := func(l labels) *Cache {
		k := key{l.get("cache"), l.get("class")}
		if of[k] == nil {
			of[k] = &Cache{Cache: k.cache, Class: k.class}
		}
		return of[k]
	}
	w.rates("loadline_cache_reads_total", func(l labels, v float64) {
		c := class(l)
		c.Rate += v
		switch l.get("outcome") {
		case "hit_process", "joined", "stale":
			c.Process += v
		case "hit_redis":
			c.Redis += v
		case "load":
			c.Loaded += v
		default:
			c.Past += v
		}
	})
	w.gauges("loadline_cache_bytes", func(l labels, v float64) { class(l).Bytes += v })
	loads := make(map[key]*histogram)
	w.histograms("loadline_cache_load_duration_seconds", func(l labels, h *histogram, _ float64) {
		k := key{l.get("cache"), l.get("class")}
		loads[k] = loads[k].plus(h, 1)
	})
	all := make([]Cache, 0, len(of))
	for k, c := range of {
		if c.Rate > 0 {
			c.Process, c.Redis, c.Loaded, c.Past = c.Process/c.Rate, c.Redis/c.Rate, c.Loaded/c.Rate, c.Past/c.Rate
		}
		c.LoadP95 = 1000 * loads[k].quantile(0.95)
		all = append(all, *c)
	}
	slices.SortFunc(all, func(a, b Cache) int { return cmp.Or(cmp.Compare(a.Cache, b.Cache), cmp.Compare(a.Class, b.Class)) })
	return all
}

func (w window) outbox() *Outbox {
	var o Outbox
	found := false
	most := func(name string, into *float64) {
		w.gauges(name, func(_ labels, v float64) { *into, found = max(*into, v), true }) // each instance says the same
	}
	most("loadline_outbox_age_seconds", &o.Age)
	most("loadline_outbox_depth", &o.Depth)
	most("loadline_outbox_dead_depth", &o.Dead)
	if leading, ok := w.sum("loadline_outbox_relay_active"); ok {
		o.Leading, found = leading, true
	}
	w.gauges("loadline_outbox_relay_paused", func(l labels, v float64) {
		if v > 0 {
			o.Paused = cmp.Or(l.get("reason"), "yes")
		}
	})
	o.Published, o.Failed = w.rate("loadline_outbox_published_total", nil), w.rate("loadline_outbox_failed_total", nil)
	if !found {
		return nil
	}
	return &o
}

func (w window) groups() []Group {
	of := make(map[string]*Group)
	group := func(name string) *Group {
		if of[name] == nil {
			of[name] = &Group{Group: name}
		}
		return of[name]
	}
	most := func(name string, field func(*Group) *float64) {
		w.gauges(name, func(l labels, v float64) {
			into := field(group(l.get("subscription")))
			*into = max(*into, v)
		})
	}
	most("loadline_events_subscription_pending", func(g *Group) *float64 { return &g.Pending })
	most("loadline_events_subscription_oldest_seconds", func(g *Group) *float64 { return &g.Oldest })
	most("loadline_events_subscription_redelivered", func(g *Group) *float64 { return &g.Redelivered })
	w.rates("loadline_events_handled_total", func(l labels, v float64) {
		g := group(l.get("group"))
		switch l.get("outcome") {
		case "retried":
			g.Retried += v
		case "dead":
			g.Dead += v
		default:
			g.Rate += v
		}
	})
	ages := make(map[string]*histogram)
	w.histograms("loadline_events_age_seconds", func(l labels, h *histogram, _ float64) {
		ages[l.get("group")] = ages[l.get("group")].plus(h, 1)
	})
	all := make([]Group, 0, len(of))
	for name, g := range of {
		if whole := of[wholeOf(name, of)]; whole != nil {
			whole.Pending, whole.Oldest, whole.Redelivered = whole.Pending+g.Pending, max(whole.Oldest, g.Oldest), whole.Redelivered+g.Redelivered
		}
	}
	for name, g := range of {
		if wholeOf(name, of) == "" {
			g.AgeP95 = ages[name].quantile(0.95)
			all = append(all, *g)
		}
	}
	slices.SortFunc(all, func(a, b Group) int { return cmp.Compare(a.Group, b.Group) })
	return all
}

// wholeOf is the group that a subscription is a part of, such as workers of workers-P03; empty: it is one itself.
func wholeOf(name string, of map[string]*Group) string {
	if found := part.FindStringSubmatch(name); found != nil && of[found[1]] != nil {
		return found[1]
	}
	return ""
}

// part is what package events calls the subscriptions of a group that has several.
var part = regexp.MustCompile(`^(.+?)-(?:P\d+|BATCH-.+)$`)

func (w window) deploys() []Deploy {
	first := make(map[string]float64)
	w.gauges("loadline_deploy_time_seconds", func(l labels, at float64) {
		version := l.get("service_version")
		if was, ok := first[version]; !ok || at < was {
			first[version] = at
		}
	})
	all := make([]Deploy, 0, len(first))
	for version, at := range first {
		all = append(all, Deploy{version, time.UnixMilli(int64(at * 1000)).UTC()})
	}
	slices.SortFunc(all, func(a, b Deploy) int { return a.At.Compare(b.At) })
	return all
}
