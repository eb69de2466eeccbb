package outbox

import (
	"context"
	"strconv"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// maxLinks bounds the writers that a batch's span is linked to.
const maxLinks = 32

// spans are those of publishing a batch, of many writers: one that is linked to their traces, and in each of those that
// are sampled one of the event. The handlers' spans are children of the writers'.
type spans struct {
	batch  trace.Span
	events []trace.Span // nil where there is none
}

// spans begins them, of those entries that are sent.
func (r *Relay) spans(ctx context.Context, entries []entry, sent []int) (context.Context, spans) {
	ctx, span := r.tracer.Start(ctx, "send outbox", trace.WithSpanKind(trace.SpanKindProducer), trace.WithNewRoot())
	all := spans{batch: span, events: make([]trace.Span, len(sent))}
	if !span.IsRecording() {
		return ctx, all
	}
	system := attribute.String("messaging.system", r.c.Driver.Capabilities().Name)
	span.SetAttributes(
		attribute.String("messaging.operation.type", "send"), system,
		attribute.Int("messaging.batch.message_count", len(sent)), attribute.Int("shard", r.c.Shard),
	)
	links := 0
	for n, i := range sent {
		m := &entries[i].message
		if m.TraceParent == "" {
			continue
		}
		of := propagation.TraceContext{}.Extract(context.Background(), propagation.MapCarrier{"traceparent": m.TraceParent, "tracestate": m.TraceState})
		writer := trace.SpanContextFromContext(of)
		if writer.IsValid() && links < maxLinks {
			links++
			span.AddLink(trace.Link{SpanContext: writer})
		}
		if writer.IsSampled() {
			_, all.events[n] = r.tracer.Start(of, "send "+m.Type, trace.WithSpanKind(trace.SpanKindProducer), trace.WithLinks(trace.Link{SpanContext: span.SpanContext()}),
				trace.WithAttributes(attribute.String("messaging.operation.type", "send"), system, attribute.String("messaging.message.id", m.ID)))
		}
	}
	return ctx, all
}

// end has an error for each that was sent.
func (s spans) end(errs []error) {
	for i, event := range s.events {
		if event == nil {
			continue
		}
		if i < len(errs) && errs[i] != nil {
			event.SetStatus(codes.Error, errs[i].Error())
		}
		event.End()
	}
	failed := 0
	var first error
	for _, err := range errs {
		if err != nil {
			failed++
			if first == nil {
				first = err
			}
		}
	}
	if first != nil {
		s.batch.SetStatus(codes.Error, strconv.Itoa(failed)+" not stored: "+first.Error())
	}
	s.batch.End()
}
