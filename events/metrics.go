package events

import (
	"context"
	"errors"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

const scope = "github.com/loadlinehq/loadline/events"

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
	duration, err2 := meter.Float64Histogram("loadline.events.duration", metric.WithUnit("s"), metric.WithDescription("How long handling took."))
	age, err3 := meter.Float64Histogram("loadline.events.age", metric.WithUnit("s"), metric.WithDescription("From the event to the end of its handling."))
	return metrics{attribute.String("group", group), count, duration, age}, errors.Join(err1, err2, err3)
}

func (m *metrics) handled(ctx context.Context, name, outcome string, took time.Duration, at time.Time) {
	attributes := metric.WithAttributes(attribute.String("type", name), m.group)
	m.count.Add(ctx, 1, attributes, metric.WithAttributes(attribute.String("outcome", outcome)))
	m.duration.Record(ctx, took.Seconds(), attributes)
	if outcome == outcomeDone {
		m.age.Record(ctx, time.Since(at).Seconds(), attributes)
	}
}
