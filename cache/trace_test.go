package cache_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/loadlinehq/loadline/cache"
)

// A trace says what was asked of Redis and of loads, and how it was answered; what this process has makes no span.
func TestTrace(t *testing.T) {
	t.Parallel()
	recorder := tracetest.NewSpanRecorder()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(recorder))
	f := newFleet(t)
	f.config.TracerProvider = provider
	first, second := f.process(), f.process()
	one, two := articles(t, first, cache.Hot()), articles(t, second, cache.Hot())
	var s source
	get(t, one, &s, "untraced")
	if n := len(recorder.Ended()); n != 0 {
		t.Errorf("%d spans without a trace around them", n)
	}
	ctx, request := provider.Tracer("test").Start(t.Context(), "GET /articles")
	wrong := errors.New("the database is away")
	for _, c := range []*cache.Cache[string, article]{one, one, two, two} { // a load, a hit here, a hit in Redis, a hit here
		if _, err := c.Get(ctx, "a", s.load); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := one.Get(ctx, "b", func(context.Context) (article, error) { return article{}, wrong }); !errors.Is(err, wrong) {
		t.Errorf("%v", err)
	}
	if _, err := one.GetMany(ctx, []string{"a", "c", "d"}, func(context.Context, []string) (map[string]article, error) { return nil, nil }); err != nil {
		t.Error(err)
	}
	if err := first.Invalidate(ctx, one.Key(ctx, "a")); err != nil {
		t.Error(err)
	}
	request.End()
	var got []string
	for _, span := range recorder.Ended() {
		if span.SpanContext().TraceID() != request.SpanContext().TraceID() || span.Name() == "GET /articles" {
			continue
		}
		line := []string{span.Name()}
		for _, a := range span.Attributes() {
			if a.Key == "outcome" || a.Key == "loadline.cache.keys" {
				line = append(line, a.Value.String())
			}
		}
		if span.Status().Code == codes.Error {
			line = append(line, span.Status().Description)
		}
		got = append(got, strings.Join(line, " "))
	}
	want := []string{
		"cache article 1 load", "cache article 1 hit_redis", "cache article 1 load the database is away", "cache article 2", "cache invalidate 1",
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
