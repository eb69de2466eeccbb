package events

import (
	"context"
	"errors"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

const scope = "github.com/loadlinehq/loadline/events"

// boundaries are those that the semantic conventions have for durations in seconds, from 1 ms on; the SDK's
// own are for milliseconds. Views of the application may replace them.
var boundaries = []float64{.001, .0025, .005, .01, .025, .05, .075, .1, .25, .5, .75, 1, 2.5, 5, 10, 30, 60, 300}

const (
	outcomeDone    = "done"
	outcomeRetried = "retried"
	outcomeDead    = "dead"
)

// metrics are those of a consumer:
//
//	loadline.events.handled{type, group, outcome}   deliveries: done, retried, dead
//	loadline.events.duration{type, group}           of handling one, batches counted whole
//	loadline.events.age{type, group}                from the event to the end of its handling
type metrics struct {
	group    attribute.KeyValue
	count    metric.Int64Counter
	duration metric.Float64Histogram
	age      metric.Float64Histogram
}

func newMetrics(provider metric.MeterProvider, group string) (metrics, error) {
	meter := provider.Meter(scope)
	count, err1 := meter.Int64Counter("loadline.events.handled", metric.WithUnit("{event}"), metric.WithDescription("Deliveries that were handled, by what became of them."))
	duration, err2 := meter.Float64Histogram("loadline.events.duration", metric.WithUnit("s"), metric.WithDescription("How long handling took."), metric.WithExplicitBucketBoundaries(boundaries...))
	age, err3 := meter.Float64Histogram("loadline.events.age", metric.WithUnit("s"), metric.WithDescription("From the event to the end of its handling."), metric.WithExplicitBucketBoundaries(boundaries...))
	return metrics{attribute.String("group", group), count, duration, age}, errors.Join(err1, err2, err3)
}

// attributes are those of a type's measurements: made once, since that takes longer than
// measuring.
type attributes struct {
	all                 metric.MeasurementOption
	done, retried, dead metric.MeasurementOption
}

func (m *metrics) attributes(name string) *attributes {
	typ := attribute.String("type", name)
	with := func(outcome string) metric.MeasurementOption {
		return metric.WithAttributeSet(attribute.NewSet(typ, m.group, attribute.String("outcome", outcome)))
	}
	return &attributes{metric.WithAttributeSet(attribute.NewSet(typ, m.group)), with(outcomeDone), with(outcomeRetried), with(outcomeDead)}
}

// attributesOf makes those of types that have no handler here anew.
func (c *Consumer) attributesOf(name string) *attributes {
	if h := c.handlers[name]; h != nil {
		return h.attributes
	}
	return c.metrics.attributes(name)
}

func (a *attributes) handled(ctx context.Context, m *metrics, outcome string, took time.Duration, at time.Time) {
	counted := a.done
	switch outcome {
	case outcomeRetried:
		counted = a.retried
	case outcomeDead:
		counted = a.dead
	}
	m.count.Add(ctx, 1, counted)
	m.duration.Record(ctx, took.Seconds(), a.all)
	if outcome == outcomeDone {
		m.age.Record(ctx, time.Since(at).Seconds(), a.all)
	}
}
