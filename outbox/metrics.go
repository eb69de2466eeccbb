package outbox

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

const scope = "github.com/loadlinehq/loadline/outbox"

// boundaries are those that the semantic conventions have for durations in seconds, from 1 ms on; the SDK's
// own are for milliseconds. Views of the application may replace them.
var boundaries = []float64{.001, .0025, .005, .01, .025, .05, .075, .1, .25, .5, .75, 1, 2.5, 5, 10, 30, 60, 300}

// pauseReason is why a relay waits.
type pauseReason string

const (
	pauseNone         pauseReason = ""
	pauseUnavailable  pauseReason = "unavailable"  // the broker does not answer
	pauseBackpressure pauseReason = "backpressure" // it has no room
)

// metrics are those of a relay, each with its shard, beside the gauges of [Observe]:
//
//	loadline.outbox.published        events that the broker has acknowledged
//	loadline.outbox.failed{reason}   attempts that were counted: rejected, unencodable
//	loadline.outbox.dead             events that have gone to outbox_dead
//	loadline.outbox.invalidations    that the cache has taken
//	loadline.outbox.publish          how long calls of the driver took
//	loadline.outbox.relay.active     1 while this relay has the lease
//	loadline.outbox.relay.paused{reason}  1 while it waits for the broker: unavailable, backpressure
//	loadline.outbox.drained.lag      age of the position of the last Invalidator.Drained, or of the lease before the first
//
// The last two are of the relay that has the lease.
type metrics struct {
	shard                            metric.MeasurementOption
	meter                            metric.Meter
	published, failed, dead, applied metric.Int64Counter
	publish                          metric.Float64Histogram

	active  atomic.Bool
	paused  atomic.Value              // pauseReason
	drained atomic.Pointer[time.Time] // when the position of the last Drained was read; nil: there is no cache
}

func newMetrics(c RelayConfig) (*metrics, error) {
	m := &metrics{meter: c.MeterProvider.Meter(scope), shard: metric.WithAttributes(attribute.Int("shard", c.Shard))}
	m.paused.Store(pauseNone)
	var errs [5]error
	m.published, errs[0] = m.meter.Int64Counter("loadline.outbox.published", metric.WithUnit("{event}"), metric.WithDescription("Events that the broker has acknowledged."))
	m.failed, errs[1] = m.meter.Int64Counter("loadline.outbox.failed", metric.WithUnit("{attempt}"), metric.WithDescription("Attempts that the broker, or the encoder, has refused."))
	m.dead, errs[2] = m.meter.Int64Counter("loadline.outbox.dead", metric.WithUnit("{event}"), metric.WithDescription("Events that have gone to outbox_dead."))
	m.applied, errs[3] = m.meter.Int64Counter("loadline.outbox.invalidations", metric.WithUnit("{record}"), metric.WithDescription("Invalidations that the cache has taken."))
	m.publish, errs[4] = m.meter.Float64Histogram("loadline.outbox.publish", metric.WithUnit("s"), metric.WithDescription("How long calls of the driver took."), metric.WithExplicitBucketBoundaries(boundaries...))
	return m, errors.Join(errs[:]...)
}

func reasonOf(reason string) metric.MeasurementOption {
	return metric.WithAttributes(attribute.String("reason", reason))
}

func (m *metrics) publishing(ctx context.Context, took time.Duration) {
	m.publish.Record(ctx, took.Seconds(), m.shard)
}

func (m *metrics) pause(reason pauseReason) { m.paused.Store(reason) }

// observe registers the gauges, for as long as the relay runs.
func (m *metrics) observe() (stop func(), err error) {
	active, err1 := m.meter.Int64ObservableGauge("loadline.outbox.relay.active", metric.WithDescription("1 while this relay has the lease."))
	paused, err2 := m.meter.Int64ObservableGauge("loadline.outbox.relay.paused", metric.WithDescription("1 while the relay waits for the broker."))
	drained, err3 := m.meter.Float64ObservableGauge("loadline.outbox.drained.lag", metric.WithUnit("s"), metric.WithDescription("Age of the position up to which the cache has been told that it has all invalidations."))
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, err
	}
	registration, err := m.meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		if !m.active.Load() {
			o.ObserveInt64(active, 0, m.shard)
			return nil
		}
		o.ObserveInt64(active, 1, m.shard)
		if at := m.drained.Load(); at != nil {
			o.ObserveFloat64(drained, time.Since(*at).Seconds(), m.shard)
		}
		now := m.paused.Load().(pauseReason)
		for _, reason := range []pauseReason{pauseUnavailable, pauseBackpressure} {
			value := int64(0)
			if reason == now {
				value = 1
			}
			o.ObserveInt64(paused, value, m.shard, reasonOf(string(reason)))
		}
		return nil
	}, active, paused, drained)
	if err != nil {
		return nil, err
	}
	return func() { _ = registration.Unregister() }, nil
}
