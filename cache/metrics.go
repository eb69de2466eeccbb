package cache

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

const scope = "github.com/loadlinehq/loadline/cache"

// outcome is how a read was answered.
type outcome uint8

const (
	hitProcess outcome = iota // from this process
	hitRedis
	joined    // by a load that was under way
	loadedNew // by a load of its own
	uncovered // from the database, since the session has seen more than the caches have heard of
	givenOld  // past its time, since loading failed or took long
	inside    // by the load alone, in a transaction
	outcomes
)

var outcomeNames = [outcomes]string{"hit_process", "hit_redis", "joined", "load", "uncovered", "stale", "transaction"}

// metrics are:
//
//	loadline.cache.reads{cache, class, outcome}   keys: hit_process, hit_redis, joined, load, uncovered, stale, transaction;
//	                                              loads ahead of readers, which have had a hit, are not among them
//	loadline.cache.load.duration{cache, class, error.type}
//	loadline.cache.bytes{cache, class}            that this process holds
//	loadline.cache.unkept{cache, class}           values that could not be kept: too large, or not encodable
//	loadline.cache.epochs                         that this process has taken part in
//	loadline.cache.active                         1 while it takes part in one
type metrics struct {
	meter        metric.Meter
	duration     metric.Float64Histogram
	unkept       metric.Int64Counter
	epochs       metric.Int64Counter
	registration metric.Registration

	mu     sync.Mutex
	caches []*cacheMetrics
}

func newMetrics(s *Store, provider metric.MeterProvider) (*metrics, error) {
	m := &metrics{meter: provider.Meter(scope)}
	var errs [7]error
	m.duration, errs[0] = m.meter.Float64Histogram("loadline.cache.load.duration", metric.WithUnit("s"), metric.WithDescription("How long loads took."))
	m.unkept, errs[1] = m.meter.Int64Counter("loadline.cache.unkept", metric.WithUnit("{value}"), metric.WithDescription("Values that could not be kept."))
	m.epochs, errs[2] = m.meter.Int64Counter("loadline.cache.epochs", metric.WithUnit("{epoch}"), metric.WithDescription("Epochs that this process has taken part in."))
	reads, err := m.meter.Int64ObservableCounter("loadline.cache.reads", metric.WithUnit("{read}"), metric.WithDescription("How reads were answered."))
	errs[3] = err
	bytes, err := m.meter.Int64ObservableGauge("loadline.cache.bytes", metric.WithUnit("By"), metric.WithDescription("What this process holds."))
	errs[4] = err
	active, err := m.meter.Int64ObservableGauge("loadline.cache.active", metric.WithDescription("1 while this process takes part in an epoch."))
	errs[5] = err
	m.registration, errs[6] = m.meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		is := int64(0)
		if s.view.Load() != nil {
			is = 1
		}
		o.ObserveInt64(active, is)
		m.mu.Lock()
		defer m.mu.Unlock()
		for _, c := range m.caches {
			for i := range outcomes {
				o.ObserveInt64(reads, c.count(i), c.outcomes[i])
			}
			o.ObserveInt64(bytes, c.bytes(), c.set)
		}
		return nil
	}, reads, bytes, active)
	return m, errors.Join(errs[:]...)
}

func (m *metrics) entered(ctx context.Context) { m.epochs.Add(ctx, 1) }

func (m *metrics) close() {
	if m.registration != nil {
		_ = m.registration.Unregister()
	}
}

// cacheMetrics are those of one cache.
type cacheMetrics struct {
	m        *metrics
	set      metric.MeasurementOption
	outcomes [outcomes]metric.MeasurementOption
	failed   metric.MeasurementOption
	bytes    func() int64
	// counters are spread, since all processors count hits.
	counters [16]struct {
		n [outcomes]atomic.Int64
		_ [128 - 8*outcomes%128]byte
	}
}

func (m *metrics) of(name, class string, bytes func() int64) *cacheMetrics {
	c := &cacheMetrics{m: m, bytes: bytes}
	attributes := []attribute.KeyValue{attribute.String("cache", name), attribute.String("class", class)}
	c.set = metric.WithAttributeSet(attribute.NewSet(attributes...))
	for i := range outcomes {
		c.outcomes[i] = metric.WithAttributeSet(attribute.NewSet(append(attributes, attribute.String("outcome", outcomeNames[i]))...))
	}
	c.failed = metric.WithAttributeSet(attribute.NewSet(append(attributes, attribute.String("error.type", "load"))...))
	m.mu.Lock()
	m.caches = append(m.caches, c)
	m.mu.Unlock()
	return c
}

func (c *cacheMetrics) read(o outcome) { c.reads(o, 1) }

func (c *cacheMetrics) reads(o outcome, n int) { c.counters[rand.Uint32()%16].n[o].Add(int64(n)) }

func (c *cacheMetrics) count(o outcome) (sum int64) {
	for i := range c.counters {
		sum += c.counters[i].n[o].Load()
	}
	return sum
}

func (c *cacheMetrics) load(ctx context.Context, took time.Duration, err error) {
	set := c.set
	if err != nil {
		set = c.failed
	}
	c.m.duration.Record(ctx, took.Seconds(), set)
}

func (c *cacheMetrics) unkept(ctx context.Context) { c.m.unkept.Add(ctx, 1, c.set) }
