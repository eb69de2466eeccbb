package outbox_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/loadlinehq/loadline/events"
)

// The span of a batch leads to the traces of its writers, and says what was not stored.
func TestTrace(t *testing.T) {
	t.Parallel()
	d, b := open(t), &broker{}
	b.does(func(_ context.Context, messages []events.Raw) []error { return every(messages, events.ErrRejected) })
	recorder := tracetest.NewSpanRecorder()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(recorder))
	c := quick(d, b)
	c.TracerProvider = provider
	ctx, writer := provider.Tracer("test").Start(t.Context(), "POST /articles")
	d.add(event(t, "k", 1).From(ctx))
	writer.End()
	relay(t, c)
	within(t, 10*time.Second, func() error {
		for _, span := range recorder.Ended() {
			if span.Name() != "send outbox" {
				continue
			}
			links := slices.ContainsFunc(span.Links(), func(l sdktrace.Link) bool { return l.SpanContext.TraceID() == writer.SpanContext().TraceID() })
			if !links || span.Status().Code != codes.Error {
				t.Errorf("links %v, status %v", span.Links(), span.Status())
			}
			return nil
		}
		return errors.New("there is no span")
	})
}
