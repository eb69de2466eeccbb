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

// span is that of publishing a batch, of many writers: it is linked to their traces. The
// handlers' spans are children of the writers'.
func (r *Relay) span(ctx context.Context, entries []entry) (context.Context, trace.Span) {
	ctx, span := r.tracer.Start(ctx, "send outbox", trace.WithSpanKind(trace.SpanKindProducer), trace.WithNewRoot())
	if !span.IsRecording() {
		return ctx, span
	}
	span.SetAttributes(
		attribute.String("messaging.operation.type", "send"), attribute.String("messaging.system", r.c.Driver.Capabilities().Name),
		attribute.Int("messaging.batch.message_count", len(entries)), attribute.Int("shard", r.c.Shard),
	)
	links := 0
	for i := range entries {
		m := &entries[i].message
		writer := trace.SpanContextFromContext(propagation.TraceContext{}.Extract(context.Background(), propagation.MapCarrier{"traceparent": m.TraceParent, "tracestate": m.TraceState}))
		if writer.IsValid() && links < maxLinks {
			links++
			span.AddLink(trace.Link{SpanContext: writer})
		}
	}
	return ctx, span
}

func endSpan(span trace.Span, errs []error) {
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
		span.SetStatus(codes.Error, strconv.Itoa(failed)+" not stored: "+first.Error())
	}
	span.End()
}
