package live

import (
	"cmp"
	"slices"
)

// Realtime is what gateways of package realtime do, all together. Rates are a second.
type Realtime struct {
	// Gateways are those that say something, of which Draining take no new clients.
	Gateways int `json:"gateways"`
	Draining int `json:"draining"`
	// Connections are of all transports, and Limit what there may be; 0: one of them has none, or does not say.
	Connections   float64     `json:"connections"`
	Limit         float64     `json:"limit,omitempty"`
	Transports    []Transport `json:"transports"`
	Subscriptions float64     `json:"subscriptions"`
	Channels      float64     `json:"channels"` // one that is listened to at two gateways is two
	// Published are publications that were told to clients, the late ones among them, and Messages what clients were sent.
	Published float64 `json:"published"`
	Messages  float64 `json:"messages"`
	// Accepted and Refused are clients that came.
	Accepted float64   `json:"accepted"`
	Refused  []Refused `json:"refused"`
	// Recovered are those that came back and were brought what they had missed, and Lost those that were told to read anew.
	Recovered float64 `json:"recovered"`
	Lost      float64 `json:"lost"`
	// Slow are clients that were cut off since they did not read.
	Slow       float64     `json:"slow"`
	Namespaces []Namespace `json:"namespaces"`
}

// Transport is how many clients use it.
type Transport struct {
	Transport   string  `json:"transport"`
	Connections float64 `json:"connections"`
}

// Refused is how many clients are refused for a reason: limited, full, draining, unauthenticated, failed, origin.
type Refused struct {
	Reason string  `json:"reason"`
	Rate   float64 `json:"rate"`
}

// Namespace is what becomes of publications in it, a second.
type Namespace struct {
	Namespace string  `json:"namespace"`
	Published float64 `json:"published"`
	Late      float64 `json:"late"`    // told, without what they say
	Dropped   float64 `json:"dropped"` // a duplicate, or older than the state
	Failed    float64 `json:"failed"`
	DelayP95  float64 `json:"delayP95"` // from what they tell of, in seconds
}

// tooSlow is the code by which clients are cut off that do not read.
const tooSlow = "3008"

func (w window) realtime() *Realtime {
	r := &Realtime{Transports: []Transport{}, Refused: []Refused{}}
	unlimited := false
	for _, p := range w {
		one := window{p}
		if _, here := one.sum("loadline_realtime_connections"); !here {
			continue
		}
		r.Gateways++
		if draining, _ := one.sum("loadline_realtime_draining"); draining > 0 {
			r.Draining++
		}
		limit, limited := one.sum("loadline_realtime_connection_limit")
		r.Limit, unlimited = r.Limit+limit, unlimited || !limited
	}
	if r.Gateways == 0 {
		return nil
	}
	if unlimited {
		r.Limit = 0
	}
	transports, refused := make(map[string]float64), make(map[string]float64)
	w.gauges("loadline_realtime_connections", func(l labels, v float64) {
		r.Connections += v
		transports[l.get("transport")] += v
	})
	for name, n := range transports {
		r.Transports = append(r.Transports, Transport{name, n})
	}
	slices.SortFunc(r.Transports, func(a, b Transport) int {
		return cmp.Or(cmp.Compare(b.Connections, a.Connections), cmp.Compare(a.Transport, b.Transport))
	})
	r.Subscriptions, _ = w.sum("loadline_realtime_subscriptions")
	r.Channels, _ = w.sum("loadline_realtime_channels")
	r.Messages = w.rate("loadline_realtime_messages_total", nil)
	w.rates("loadline_realtime_handshakes_total", func(l labels, v float64) {
		if outcome := l.get("outcome"); outcome == "accepted" {
			r.Accepted += v
		} else {
			refused[outcome] += v
		}
	})
	for reason, v := range refused {
		if v > 0 {
			r.Refused = append(r.Refused, Refused{reason, v})
		}
	}
	slices.SortFunc(r.Refused, func(a, b Refused) int { return cmp.Or(cmp.Compare(b.Rate, a.Rate), cmp.Compare(a.Reason, b.Reason)) })
	w.rates("loadline_realtime_recoveries_total", func(l labels, v float64) {
		if l.get("outcome") == "recovered" {
			r.Recovered += v
		} else {
			r.Lost += v
		}
	})
	r.Slow = w.rate("loadline_realtime_disconnects_total", func(l labels) bool { return l.get("code") == tooSlow })
	r.Namespaces = w.namespaces()
	for _, n := range r.Namespaces {
		r.Published += n.Published + n.Late
	}
	return r
}

const channelNamespace = "channel_namespace"

func (w window) namespaces() []Namespace {
	of := make(map[string]*Namespace)
	w.rates("loadline_realtime_publications_total", func(l labels, v float64) {
		name := l.get(channelNamespace)
		if of[name] == nil {
			of[name] = &Namespace{Namespace: name}
		}
		switch n := of[name]; l.get("outcome") {
		case "published":
			n.Published += v
		case "late":
			n.Late += v
		case "failed":
			n.Failed += v
		default:
			n.Dropped += v
		}
	})
	delays := make(map[string]*histogram)
	w.histograms("loadline_realtime_publication_delay_seconds", func(l labels, h *histogram, _ float64) {
		delays[l.get(channelNamespace)] = delays[l.get(channelNamespace)].plus(h, 1)
	})
	all := make([]Namespace, 0, len(of))
	for name, n := range of {
		n.DelayP95 = delays[name].quantile(0.95)
		all = append(all, *n)
	}
	slices.SortFunc(all, func(a, b Namespace) int { return cmp.Compare(a.Namespace, b.Namespace) })
	return all
}
