package natsjs

import (
	"context"
	"errors"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

const scope = "github.com/loadlinehq/loadline/events/natsjs"

// metrics are what Run sees:
//
//	loadline.events.stream.messages{stream}        kept, acknowledged or not
//	loadline.events.stream.bytes{stream}
//	loadline.events.stream.used{stream}            share of the bound that is nearer
//	loadline.events.subscription.pending{stream, subscription}      not settled
//	loadline.events.subscription.redelivered{stream, subscription}  delivered more than once, not settled
//	loadline.events.subscription.oldest{stream, subscription}       age of the first that is not settled
//
// None of them tells of a message that the server has given up: the stream of advisories
// does.
type metrics struct {
	stream               attribute.KeyValue
	messages, bytes      metric.Int64Gauge
	used                 metric.Float64Gauge
	pending, redelivered metric.Int64Gauge
	oldest               metric.Float64Gauge
}

func newMetrics(provider metric.MeterProvider, stream string) (metrics, error) {
	meter := provider.Meter(scope)
	var errs []error
	whole := func(name, unit, description string) metric.Int64Gauge {
		g, err := meter.Int64Gauge(name, metric.WithUnit(unit), metric.WithDescription(description))
		errs = append(errs, err)
		return g
	}
	real := func(name, unit, description string) metric.Float64Gauge {
		g, err := meter.Float64Gauge(name, metric.WithUnit(unit), metric.WithDescription(description))
		errs = append(errs, err)
		return g
	}
	return metrics{
		stream:      attribute.String("stream", stream),
		messages:    whole("loadline.events.stream.messages", "{message}", "Messages that are kept, settled or not."),
		bytes:       whole("loadline.events.stream.bytes", "By", "What they take."),
		used:        real("loadline.events.stream.used", "1", "Share of the bound on messages or bytes that is nearer."),
		pending:     whole("loadline.events.subscription.pending", "{message}", "Messages that a subscription has not settled."),
		redelivered: whole("loadline.events.subscription.redelivered", "{message}", "Messages that were delivered more than once, and are not settled."),
		oldest:      real("loadline.events.subscription.oldest", "s", "Age of the first message that a subscription has not settled."),
	}, errors.Join(errs...)
}

func (m *metrics) saw(ctx context.Context, s *survey) {
	stream := metric.WithAttributes(m.stream)
	m.messages.Record(ctx, int64(s.messages), stream)
	m.bytes.Record(ctx, int64(s.bytes), stream)
	m.used.Record(ctx, s.used, stream)
	for _, c := range s.consumers {
		of := metric.WithAttributes(m.stream, attribute.String("subscription", c.name))
		m.pending.Record(ctx, c.pending, of)
		m.redelivered.Record(ctx, int64(c.redelivered), of)
		age := 0.0
		if !c.oldest.IsZero() {
			age = max(0, s.at.Sub(c.oldest).Seconds())
		}
		m.oldest.Record(ctx, age, of)
	}
}

// survey is what Run has seen.
type survey struct {
	at              time.Time // by the server's clock
	messages, bytes uint64
	used            float64
	last            uint64 // sequence
	consumers       []surveyed
}

type surveyed struct {
	name        string
	filters     []string
	floor       uint64 // all until here is settled
	pending     int64
	redelivered int
	oldest      time.Time
}
