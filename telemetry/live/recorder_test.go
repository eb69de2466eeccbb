package live

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/slogtest"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

func recording(t *testing.T) (*Recorder, trace.Tracer) {
	t.Helper()
	r := NewRecorder(50 * time.Millisecond)
	provider := sdk.NewTracerProvider(sdk.WithSpanProcessor(r))
	t.Cleanup(func() { _ = provider.Shutdown(context.Background()) })
	return r, provider.Tracer("test")
}

// request is a trace with a statement in it.
func request(tracer trace.Tracer, name string, failed bool, took time.Duration) context.Context {
	began := time.Now()
	ctx, root := tracer.Start(context.Background(), name, trace.WithTimestamp(began))
	_, child := tracer.Start(ctx, "postgresql SELECT", trace.WithTimestamp(began.Add(took/4)), trace.WithAttributes(attribute.String("db.query.text", "SELECT 1")))
	if failed {
		child.SetStatus(codes.Error, "it is away")
		root.SetStatus(codes.Error, "") // as otelhttp has it, for a 5xx
	}
	child.End(trace.WithTimestamp(began.Add(took / 2)))
	root.End(trace.WithTimestamp(began.Add(took)))
	return ctx
}

// What has failed and what was slow is kept, whole, with its lines; what was neither is not.
func TestRecorder(t *testing.T) {
	t.Parallel()
	r, tracer := recording(t)
	var out bytes.Buffer
	log := slog.New(r.LogHandler(slog.NewTextHandler(&out, nil))).With("app", "shop")
	request(tracer, "quick", false, time.Millisecond)
	time.Sleep(time.Millisecond)
	request(tracer, "slow", false, 80*time.Millisecond)
	time.Sleep(time.Millisecond)
	ctx := request(tracer, "failed", true, time.Millisecond)
	log.WarnContext(ctx, "no answer", "after", time.Second)
	log.InfoContext(context.Background(), "of nobody")
	log.DebugContext(ctx, "not wanted")
	_, late := tracer.Start(ctx, "late")
	late.End()

	all := r.Traces()
	if len(all) != 2 || all[0].Name != "failed" || !all[0].Failed || all[0].Error != "it is away" || all[1].Name != "slow" || !all[1].Slow || all[1].Took != 80 {
		t.Fatalf("%+v", all)
	}
	whole, ok := r.Trace(all[0].ID)
	if !ok || len(whole.Spans) != 3 || whole.Spans[0].Name != "failed" {
		t.Fatalf("%+v", whole)
	}
	sql := whole.Spans[slices.IndexFunc(whole.Spans, func(s Span) bool { return s.Name == "postgresql SELECT" })]
	if sql.Attributes["db.query.text"] != "SELECT 1" || sql.Parent != whole.Spans[0].ID || sql.After != 0.25 {
		t.Fatalf("%+v", whole)
	}
	if len(whole.Lines) != 1 || whole.Lines[0].Text != `msg="no answer" app=shop after=1s` || whole.Lines[0].Level != "WARN" {
		t.Errorf("%+v", whole.Lines)
	}
	if n := strings.Count(out.String(), "\n"); n != 2 {
		t.Errorf("%d lines were passed on:\n%s", n, out.String())
	}
	if _, ok := r.Trace("none"); ok {
		t.Error("there is a trace none")
	}
}

// However much there is, no more is kept than is said, and it is the latest.
func TestRecorderIsBounded(t *testing.T) {
	t.Parallel()
	r, tracer := recording(t)
	log := slog.New(r.LogHandler(slog.NewTextHandler(&bytes.Buffer{}, nil)))
	for i := range 200 {
		request(tracer, fmt.Sprint("failed ", i), true, time.Millisecond)
		request(tracer, fmt.Sprint("slow ", i), false, time.Second)
		_, open := tracer.Start(context.Background(), "goes on")
		ctx := trace.ContextWithSpan(context.Background(), open)
		for range 20 {
			_, child := tracer.Start(ctx, "child")
			child.End()
			log.InfoContext(ctx, strings.Repeat("x", 3000))
		}
	}
	ctx, root := tracer.Start(context.Background(), "large")
	for range 300 {
		_, child := tracer.Start(ctx, "child", trace.WithAttributes(attribute.String("db.query.text", strings.Repeat("x", 10_000))))
		child.End()
	}
	root.SetStatus(codes.Error, "no")
	root.End()

	ctx, root = tracer.Start(context.Background(), "a job")
	root.SetStatus(codes.Error, "no")
	root.End()
	remote := trace.ContextWithRemoteSpanContext(context.Background(), trace.SpanContextFromContext(ctx))
	for range 1000 { // each event that it has written
		_, handled := tracer.Start(remote, "process event")
		handled.End()
	}

	all := r.Traces()
	if job, _ := r.Trace(all[0].ID); job.Name != "a job" || len(job.Spans) != spansOf || job.More != 901 {
		t.Errorf("%s: %d spans, %d more", job.Name, len(job.Spans), job.More)
	}
	all = all[1:]
	if len(all) != 2*keptTraces-1 || !slices.ContainsFunc(all, func(t Trace) bool { return t.Name == "failed 199" }) || slices.ContainsFunc(all, func(t Trace) bool { return t.Name == "failed 0" }) {
		t.Errorf("%d traces are kept", len(all))
	}
	if len(r.open) > openTraces || len(r.lines) > keptLines {
		t.Errorf("%d traces are open, and %d lines kept", len(r.open), len(r.lines))
	}
	for _, l := range r.lines {
		if text := l.shown().Text; len(text) > lineOf {
			t.Fatalf("a line has %d bytes", len(text))
		}
	}
	for _, kept := range r.failed {
		if len(kept.spans) > 0 {
			t.Fatal("spans of the SDK are held, whatever their size")
		}
	}
	large, _ := r.Trace(all[0].ID)
	if large.Name != "large" || len(large.Spans) != spansOf+1 || large.More != 200 || len(large.Spans[1].Attributes["db.query.text"]) > attributeOf+10 {
		t.Errorf("%s: %d spans, %d more", large.Name, len(large.Spans), large.More)
	}
}

// speaker logs when it is asked what it is.
type speaker struct{ log *slog.Logger }

func (s speaker) LogValue() slog.Value {
	s.log.Error("asked", "by", fmt.Errorf("an error"))
	return slog.StringValue("spoken")
}

// What is logged may itself log, and may change afterwards.
func TestLogged(t *testing.T) {
	t.Parallel()
	r, tracer := recording(t)
	log := slog.New(r.LogHandler(slog.NewTextHandler(&bytes.Buffer{}, nil)))
	changing := &struct{ N int }{1}
	ctx, root := tracer.Start(context.Background(), "root")
	log.ErrorContext(ctx, "well", "who", speaker{log}, slog.Group("g", "n", changing, "s", "t"))
	changing.N = 2
	root.SetStatus(codes.Error, "no")
	root.End()
	whole, _ := r.Trace(root.SpanContext().TraceID().String())
	if len(whole.Lines) != 1 || whole.Lines[0].Text != "msg=well who=spoken g.n=&{1} g.s=t" {
		t.Errorf("%+v", whole.Lines)
	}
}

// The log's handler is one: groups, attributes, and levels go through it.
func TestLogHandler(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	slogtest.Run(t, func(*testing.T) slog.Handler {
		out.Reset()
		return NewRecorder(time.Second).LogHandler(slog.NewJSONHandler(&out, nil))
	}, func(t *testing.T) map[string]any {
		return decode(t, out.Bytes())
	})
}
