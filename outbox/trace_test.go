package outbox_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/loadlinehq/loadline/events"
)

// The span of a batch leads to the traces of its writers, and says what was not stored; and each of these has a span of its event, unless it is
// not sampled.
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
	quiet, unsampled := sdktrace.NewTracerProvider(sdktrace.WithSampler(sdktrace.NeverSample())).Tracer("test").Start(t.Context(), "GET /articles")
	d.add(event(t, "q", 1).From(quiet))
	relay(t, c)
	within(t, 10*time.Second, func() error {
		published := slices.IndexFunc(recorder.Ended(), func(s sdktrace.ReadOnlySpan) bool {
			return s.SpanContext().TraceID() == writer.SpanContext().TraceID() && s.Name() != "POST /articles"
		})
		if published < 0 {
			return errors.New("the writer's trace does not have the publication")
		}
		if s := recorder.Ended()[published]; s.Parent().SpanID() != writer.SpanContext().SpanID() || !strings.HasPrefix(s.Name(), "send ") || s.Status().Code != codes.Error || len(s.Links()) != 1 {
			t.Errorf("%s of %v, status %v, links %v", s.Name(), s.Parent(), s.Status(), s.Links())
		}
		if slices.ContainsFunc(recorder.Ended(), func(s sdktrace.ReadOnlySpan) bool {
			return s.SpanContext().TraceID() == unsampled.SpanContext().TraceID()
		}) {
			t.Error("a trace that is not sampled has a publication")
		}
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
