package cache

import (
	"context"
	"errors"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// span is what was asked of more than this process's memory, in a trace: where a slow read has waited. A hit in this process, of which there are
// many and none is slow, has none. The zero span records nothing.
type span struct{ trace.Span }

// span begins one if the caller is traced. The names are of few values.
func (s *Store) span(ctx context.Context, name string, attributes ...attribute.KeyValue) (context.Context, span) {
	if !trace.SpanFromContext(ctx).IsRecording() {
		return ctx, span{}
	}
	ctx, started := s.tracer.Start(ctx, name, trace.WithAttributes(attributes...))
	return ctx, span{started}
}

// span is that of a read of n keys.
func (c *Cache[K, V]) span(ctx context.Context, n int) (context.Context, span) {
	return c.s.span(ctx, "cache "+c.c.Name, attribute.String("cache", c.c.Name), attribute.String("class", c.c.Class.Name), attribute.Int("loadline.cache.keys", n))
}

// answered says how a key was: see metrics.
func (s span) answered(o outcome) {
	if s.Span != nil {
		s.SetAttributes(attribute.String("outcome", outcomeNames[o]))
	}
}

func (s span) end(err error) {
	if s.Span == nil {
		return
	}
	if err != nil && !errors.Is(err, ErrNotFound) && !errors.Is(err, context.Canceled) { // whose caller has gone
		s.SetStatus(codes.Error, err.Error())
	}
	s.End()
}
