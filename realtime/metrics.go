package realtime

import (
	"context"
	"errors"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/centrifugal/centrifuge"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

const scope = "github.com/loadlinehq/loadline/realtime"

// What became of clients that came.
const (
	accepted  = "accepted"
	leaving   = "draining"
	full      = "full"
	tooFast   = "limited"
	stranger  = "unauthenticated"
	failed    = "failed"
	elsewhere = "origin"
)

// byNamespace is an attribute: one called namespace would be hidden by that of the pod, which most Prometheus in Kubernetes add.
const byNamespace = "channel.namespace"

// boundaries are of seconds, for who takes no exponential histograms: what has not been told within some seconds waits for something.
var boundaries = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 600, 3600}

// transports are those that clients have.
var transports = [...]string{"websocket", "sse", "http_stream", "poll"}

// metrics are:
//
//	loadline.realtime.connections{transport}              now; those of polls come and go
//	loadline.realtime.connection.limit                    Config.MaxConnections, where there is one
//	loadline.realtime.draining                            1: no new clients should come here
//	loadline.realtime.subscriptions                       now
//	loadline.realtime.channels                            that somebody listens to here
//	loadline.realtime.handshakes{outcome}                 accepted, limited, full, draining, unauthenticated, failed, origin
//	loadline.realtime.disconnects{code}                   of centrifuge: 3000 by the client, 3008 slow, 3010 it has missed something, 3011 drained
//	loadline.realtime.publications{channel.namespace, outcome}  of the application, and of clients: published, late, duplicate, outdated, failed
//	loadline.realtime.publication.delay{channel.namespace}  of those that say At: from then until they were published
//	loadline.realtime.messages                            that were sent to clients
//	loadline.realtime.recoveries{outcome}                 of those that came back: recovered, lost
type metrics struct {
	registry                              *prometheus.Registry // of centrifuge
	publications, handshakes, disconnects metric.Int64Counter
	delay                                 metric.Float64Histogram
	namespaces                            map[string]metric.MeasurementOption // of the delay, made once
	connections                           [len(transports)]atomic.Int64
	pollsLost                             atomic.Int64
	registration                          metric.Registration
}

func newMetrics(g *Gateway, registry *prometheus.Registry, provider metric.MeterProvider) (*metrics, error) {
	m := &metrics{registry: registry, namespaces: make(map[string]metric.MeasurementOption, len(g.c.Namespaces))}
	for name := range g.c.Namespaces {
		m.namespaces[name] = metric.WithAttributeSet(attribute.NewSet(attribute.String(byNamespace, name)))
	}
	meter := provider.Meter(scope)
	var errs [11]error
	m.publications, errs[0] = meter.Int64Counter("loadline.realtime.publications", metric.WithUnit("{publication}"), metric.WithDescription("What became of publications."))
	m.handshakes, errs[1] = meter.Int64Counter("loadline.realtime.handshakes", metric.WithUnit("{handshake}"), metric.WithDescription("Clients that came."))
	m.disconnects, errs[2] = meter.Int64Counter("loadline.realtime.disconnects", metric.WithUnit("{disconnect}"), metric.WithDescription("Why connections have ended, by centrifuge's codes."))
	connections, err := meter.Int64ObservableUpDownCounter("loadline.realtime.connections", metric.WithUnit("{connection}"), metric.WithDescription("Connections of clients."))
	errs[3] = err
	subscriptions, err := meter.Int64ObservableUpDownCounter("loadline.realtime.subscriptions", metric.WithUnit("{subscription}"), metric.WithDescription("Channels that clients listen to, each by each."))
	errs[4] = err
	channels, err := meter.Int64ObservableUpDownCounter("loadline.realtime.channels", metric.WithUnit("{channel}"), metric.WithDescription("Channels that somebody listens to here."))
	errs[5] = err
	messages, err := meter.Int64ObservableCounter("loadline.realtime.messages", metric.WithUnit("{message}"), metric.WithDescription("Messages that were sent to clients."))
	errs[6] = err
	recoveries, err := meter.Int64ObservableCounter("loadline.realtime.recoveries", metric.WithUnit("{recovery}"), metric.WithDescription("Whether those that came back were brought what they had missed."))
	errs[7] = err
	limit, err := meter.Int64ObservableUpDownCounter("loadline.realtime.connection.limit", metric.WithUnit("{connection}"), metric.WithDescription("How many connections there may be."))
	errs[8] = err
	draining, err := meter.Int64ObservableGauge("loadline.realtime.draining", metric.WithDescription("1: no new clients should come."))
	errs[9] = err
	m.delay, errs[10] = meter.Float64Histogram("loadline.realtime.publication.delay", metric.WithUnit("s"), metric.WithDescription("From what a publication tells of until it was published."), metric.WithExplicitBucketBoundaries(boundaries...))
	if err := errors.Join(errs[:]...); err != nil {
		return nil, err
	}
	m.registration, err = meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		for i, name := range transports {
			o.ObserveInt64(connections, m.connections[i].Load(), metric.WithAttributes(attribute.String("transport", name)))
		}
		if g.c.MaxConnections > 0 {
			o.ObserveInt64(limit, int64(g.c.MaxConnections))
		}
		var is int64
		if !g.Ready() {
			is = 1
		}
		o.ObserveInt64(draining, is)
		o.ObserveInt64(subscriptions, int64(g.node.Hub().NumSubscriptions()))
		o.ObserveInt64(channels, int64(g.node.Hub().NumChannels()))
		sent, recovered, lost := counted(registry)
		lost += m.pollsLost.Load() // which centrifuge does not know of
		o.ObserveInt64(messages, sent)
		o.ObserveInt64(recoveries, recovered, metric.WithAttributes(attribute.String("outcome", "recovered")))
		o.ObserveInt64(recoveries, lost, metric.WithAttributes(attribute.String("outcome", "lost")))
		return nil
	}, connections, limit, draining, subscriptions, channels, messages, recoveries)
	return m, err
}

// counted is what centrifuge alone knows.
func counted(registry *prometheus.Registry) (sent, recovered, lost int64) {
	families, err := registry.Gather()
	if err != nil {
		return 0, 0, 0
	}
	for _, f := range families {
		for _, series := range f.GetMetric() {
			n := int64(series.GetCounter().GetValue())
			switch f.GetName() {
			case "centrifuge_transport_messages_sent":
				sent += n
			case "centrifuge_client_recover":
				for _, l := range series.GetLabel() {
					if l.GetName() == "recovered" {
						if l.GetValue() == "yes" {
							recovered += n
						} else {
							lost += n
						}
					}
				}
			}
		}
	}
	return sent, recovered, lost
}

func (m *metrics) close() {
	if m.registration != nil {
		_ = m.registration.Unregister()
	}
}

func (m *metrics) connected(transport string, change int64) {
	for i, name := range transports {
		if name == transport {
			m.connections[i].Add(change)
		}
	}
}

func (m *metrics) disconnected(code uint32) {
	m.disconnects.Add(context.Background(), 1, metric.WithAttributes(attribute.String("code", strconv.FormatUint(uint64(code), 10))))
}

func (m *metrics) handshake(ctx context.Context, outcome string) {
	m.handshakes.Add(ctx, 1, metric.WithAttributes(attribute.String("outcome", outcome)))
}

func (m *metrics) published(ctx context.Context, namespace string, at time.Time, r centrifuge.PublishResult, late bool, err error) {
	outcome := "published"
	switch {
	case err != nil:
		outcome = "failed"
	case r.Suppressed && r.SuppressReason == centrifuge.SuppressReasonVersion:
		outcome = "outdated"
	case r.Suppressed:
		outcome = "duplicate"
	case late:
		outcome = "late"
	}
	m.publications.Add(ctx, 1, metric.WithAttributes(attribute.String(byNamespace, namespace), attribute.String("outcome", outcome)))
	if !at.IsZero() && err == nil && !r.Suppressed {
		m.delay.Record(ctx, max(0, time.Since(at).Seconds()), m.namespaces[namespace]) // clocks differ
	}
}
