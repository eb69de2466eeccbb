package live

import (
	"encoding/json"
	"math"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

func TestTightest(t *testing.T) {
	t.Parallel()
	share := func(v float64) *float64 { return &v }
	hop := func(id string, s State, utilisation *float64) Hop {
		return Hop{ID: id, State: s, Utilisation: utilisation}
	}
	for _, c := range []struct {
		name string
		path []Hop
		want string
	}{
		{"nothing is used", []Hop{hop("edge", Idle, nil), hop("app", OK, share(0))}, ""},
		{"the highest", []Hop{hop("edge", OK, share(0.2)), hop("app", OK, share(0.6)), hop("primary", OK, share(0.5))}, "app"},
		{"requests pile up before what is full", []Hop{hop("edge", Full, share(1)), hop("app", OK, share(0.3)), hop("primary", Full, share(1)), hop("broker", OK, nil)}, "primary"},
		{"full, and not the highest", []Hop{hop("edge", Busy, share(0.9)), hop("primary", Full, share(0.4))}, "primary"},
		{"nobody waits for the broker", []Hop{hop("primary", Full, share(1)), hop("broker", Full, share(1))}, "primary"},
		{"but for the broker all is well", []Hop{hop("primary", OK, share(0.5)), hop("broker", Full, share(0.1))}, "broker"},
		{"what is away is why others are full", []Hop{hop("edge", Full, share(1)), hop("cache", Away, nil), hop("primary", Full, share(1))}, "cache"},
	} {
		v := &View{Path: c.path, Now: Requests{Rate: 100}}
		got := tightest(v)
		if got == nil && c.want == "" {
			continue
		}
		if got == nil || got.Hop != c.want {
			t.Errorf("%s: %+v, want %s", c.name, got, c.want)
		}
		if c.name == "the highest" && (got.Until < 166 || got.Until > 167) {
			t.Errorf("%s: until %v", c.name, got.Until)
		}
	}
}

// What instances say makes the path.
func TestPath(t *testing.T) {
	t.Parallel()
	families := func(step float64) *sample {
		registry := prometheus.NewRegistry()
		gauge := func(name string, value float64, labels ...string) {
			l := prometheus.Labels{}
			for i := 0; i < len(labels); i += 2 {
				l[labels[i]] = labels[i+1]
			}
			g := prometheus.NewGauge(prometheus.GaugeOpts{Name: name, ConstLabels: l})
			g.Set(value)
			registry.MustRegister(g)
		}
		const pool, primary, replica = "db_client_connection_pool_name", "db1:5432", "db2:5432"
		gauge("db_client_connection_count", 9, pool, primary, "db_client_connection_state", "used")
		gauge("db_client_connection_max", 10, pool, primary)
		gauge("db_client_connection_pending_requests", 3, pool, primary)
		gauge("loadline_db_connection_occupied_seconds_total", 9.6*step, pool, primary)
		gauge("loadline_db_server_up", 1, "server", primary, "role", "primary")
		gauge("loadline_db_server_up", 1, "server", "other:5432", "role", "primary") // of another service
		gauge("db_client_connection_max", 10, pool, "other:5432")
		gauge("loadline_db_connection_occupied_seconds_total", step, pool, "other:5432")
		gauge("db_client_connection_max", 1, pool, "somebody else's")
		gauge("loadline_db_connection_occupied_seconds_total", step, pool, "somebody else's")
		gauge("db_client_connection_max", 20, pool, replica)
		gauge("loadline_db_connection_occupied_seconds_total", 5*step, pool, replica)
		gauge("loadline_db_server_up", 1, "server", replica, "role", "replica")
		gauge("loadline_db_replica_lag_seconds", 0.2, "server", replica)
		gauge("loadline_overload_limit", 40)
		gauge("loadline_overload_in_flight", 30)
		gauge("loadline_cache_reads_total", 70*step, "cache", "c", "class", "hot", "outcome", "hit_process")
		gauge("loadline_cache_reads_total", 30*step, "cache", "c", "class", "hot", "outcome", "load")
		gauge("loadline_cache_active", 1)
		for of, pending := range map[string]float64{"workers": 1, "workers-P00": 2, "workers-BATCH-x": 3, "other": 4, "other-email": 5} {
			gauge("loadline_events_subscription_pending", pending, "subscription", of)
		}
		gauge("loadline_outbox_depth", 12)
		gauge("loadline_outbox_age_seconds", 60)
		all, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		return sampleOf(start.Add(second(step)), all)
	}
	w := window{{families(0), families(10)}}
	v := &View{Servers: w.servers(), Caches: w.caches(), Outbox: w.outbox()}
	got := make(map[string]Hop)
	for _, h := range w.path(v, map[string]float64{"cache": 0.5}) {
		got[h.ID] = h
	}
	if len(v.Servers) != 3 {
		t.Errorf("%+v", v.Servers)
	}
	for id, want := range map[string]struct {
		state       State
		utilisation float64
	}{"edge": {Busy, 0.75}, "app": {Idle, -1}, "cache": {OK, 0.5}, "replicas": {OK, 0.25}, "primary": {Full, 0.96}, "broker": {Away, -1}} {
		h := got[id]
		utilisation := -1.0
		if h.Utilisation != nil {
			utilisation = *h.Utilisation
		}
		if h.State != want.state || utilisation != want.utilisation {
			t.Errorf("%s is %s with %v, want %+v: %+v", id, h.State, utilisation, want, h)
		}
	}
	if c := v.Caches[0]; c.Rate != 100 || c.Process != 0.7 || c.Loaded != 0.3 {
		t.Errorf("%+v", c)
	}
	if g := w.groups(); len(g) != 3 || g[0].Group != "other" || g[1].Pending != 5 || g[2].Pending != 6 {
		t.Errorf("%+v", g)
	}
	if s := v.Servers[0]; s.Waiting != 3 || s.Role != "primary" {
		t.Errorf("%+v", v.Servers)
	}
}

// Redis has been away for longer than the window, so that nobody waits for it any more; and of the processes one is lost.
func TestAwayForLong(t *testing.T) {
	t.Parallel()
	at := func(step float64) *sample {
		registry := prometheus.NewRegistry()
		waits := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "loadline_ratelimit_wait_seconds"})
		waits.Observe(0.025)
		local := prometheus.NewCounter(prometheus.CounterOpts{Name: "loadline_ratelimit_decisions_total", ConstLabels: prometheus.Labels{"by": "local", "decision": "allowed"}})
		local.Add(100 * step)
		odd := prometheus.NewGauge(prometheus.GaugeOpts{Name: "loadline_outbox_age_seconds"})
		odd.Set(math.NaN())
		registry.MustRegister(waits, local, odd)
		all, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		return sampleOf(start.Add(second(step)), all)
	}
	w := window{{at(0), at(10)}}
	v := &View{Instances: []Instance{{Name: "one"}, {Name: "two", Problem: "no answer", lost: true}}, Outbox: w.outbox()}
	v.Path = w.path(v, nil)
	if h := v.Path[2]; h.State != Away {
		t.Errorf("%+v", h)
	}
	if h := v.Path[1]; h.State != Away || h.Why != "1 of 2 processes do not answer any more" {
		t.Errorf("%+v", h)
	}
	if _, err := json.Marshal(v); err != nil {
		t.Error(err)
	}
}

var start = time.Unix(1_800_000_000, 0)

func second(n float64) time.Duration { return time.Duration(n * float64(time.Second)) }
