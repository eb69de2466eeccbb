package telemetry

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/codes"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
)

// keeping returns a tracer of which nothing is sampled but by remote parents, and what is exported.
func keeping(t testing.TB, slow time.Duration, keep int) (trace.Tracer, *tracetest.InMemoryExporter, *keeper) {
	t.Helper()
	exported := tracetest.NewInMemoryExporter()
	k := newKeeper([]sdk.SpanProcessor{sdk.NewSimpleSpanProcessor(exported)}, slow, keep)
	provider := sdk.NewTracerProvider(sdk.WithSampler(sdk.AlwaysRecord(sdk.ParentBased(sdk.NeverSample()))), sdk.WithSpanProcessor(k))
	t.Cleanup(func() { _ = provider.Shutdown(context.Background()) })
	return provider.Tracer("test"), exported, k
}

// Of traces that were not sampled those are exported, whole, that have failed or were slow.
func TestKeep(t *testing.T) {
	t.Parallel()
	remote := func(sampled bool) context.Context {
		return trace.ContextWithRemoteSpanContext(context.Background(), trace.NewSpanContext(trace.SpanContextConfig{
			TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}, TraceFlags: trace.TraceFlags(0).WithSampled(sampled), Remote: true,
		}))
	}
	for _, c := range []struct {
		name    string
		do      func(tracer trace.Tracer)
		want    int
		outcome int
	}{
		{"ordinary", func(tracer trace.Tracer) {
			ctx, root := tracer.Start(context.Background(), "root")
			_, child := tracer.Start(ctx, "child")
			child.End()
			root.End()
		}, 0, ordinary},
		{"the caller has sampled it", func(tracer trace.Tracer) {
			ctx, root := tracer.Start(remote(true), "root")
			_, child := tracer.Start(ctx, "child")
			child.End()
			root.End()
		}, 2, sampled},
		{"slow", func(tracer trace.Tracer) {
			ctx, root := tracer.Start(remote(false), "root")
			_, child := tracer.Start(ctx, "child")
			child.End()
			time.Sleep(300 * time.Millisecond)
			root.End()
		}, 2, slow},
		{"slow in what it did not wait for", func(tracer trace.Tracer) {
			ctx, root := tracer.Start(context.Background(), "root")
			_, child := tracer.Start(ctx, "child")
			root.End()
			time.Sleep(300 * time.Millisecond)
			child.End()
		}, 0, ordinary},
		{"failed below", func(tracer trace.Tracer) {
			ctx, root := tracer.Start(context.Background(), "root")
			ctx, child := tracer.Start(ctx, "child")
			_, grandchild := tracer.Start(ctx, "grandchild")
			grandchild.SetStatus(codes.Error, "no")
			grandchild.End()
			child.End()
			root.End()
		}, 3, failed},
		{"failed after its root", func(tracer trace.Tracer) {
			ctx, root := tracer.Start(context.Background(), "root")
			_, child := tracer.Start(ctx, "child")
			root.End()
			child.SetStatus(codes.Error, "no")
			child.End()
		}, 2, failed},
		{"goes on after it has failed", func(tracer trace.Tracer) {
			ctx, root := tracer.Start(context.Background(), "root")
			_, child := tracer.Start(ctx, "child")
			root.SetStatus(codes.Error, "no")
			root.End()
			child.End()
		}, 2, failed},
		{"goes on for long", func(tracer trace.Tracer) {
			ctx, root := tracer.Start(context.Background(), "root")
			for range 3 {
				_, child := tracer.Start(ctx, "child")
				time.Sleep(maxAge)
				child.End() // from now on nothing is held back
			}
			root.End()
		}, 4, slow},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				tracer, exported, k := keeping(t, 250*time.Millisecond, 10)
				c.do(tracer)
				spans := exported.GetSpans()
				if len(spans) != c.want {
					t.Errorf("%d spans are exported, want %d", len(spans), c.want)
				}
				reasons := 0
				for _, s := range spans {
					if !s.SpanContext.IsSampled() {
						t.Errorf("%s does not look as if it were sampled", s.Name)
					}
					for _, a := range s.Attributes {
						if a.Key == "loadline.kept" {
							reasons++
							if s.Name != "root" || a.Value.AsString() != outcomeNames[c.outcome] {
								t.Errorf("%s was kept since it was %s", s.Name, a.Value.AsString())
							}
						}
					}
				}
				if want := min(1, c.want); c.outcome != sampled && reasons != want {
					t.Errorf("%d roots say why they are kept, want %d", reasons, want)
				}
				for i := range outcomes {
					if n := k.outcomes[i].Load(); (n == 1) != (i == c.outcome) {
						t.Errorf("%d traces were %s", n, outcomeNames[i])
					}
				}
				mustBeEmpty(t, k)
			})
		})
	}
}

func mustBeEmpty(t *testing.T, k *keeper) {
	t.Helper()
	if len(k.traces) != 0 || k.spans != 0 || k.open.Len() != 0 || k.decided.Len() != 0 {
		t.Errorf("%d traces and %d spans are held back", len(k.traces), k.spans)
	}
}

// When all fail, so many are kept in a second and no more; and what fails below, or is slow, does not take the room of requests that fail.
func TestKeepIsLimited(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tracer, exported, k := keeping(t, 250*time.Millisecond, 5)
		for range 2 {
			for range 100 {
				ctx, root := tracer.Start(t.Context(), "below")
				_, child := tracer.Start(ctx, "child")
				child.SetStatus(codes.Error, "no")
				child.End()
				root.End()
			}
			for range 100 {
				_, root := tracer.Start(t.Context(), "root")
				root.SetStatus(codes.Error, "no")
				root.End()
			}
			time.Sleep(time.Second)
		}
		names := make(map[string]int)
		for _, s := range exported.GetSpans() {
			names[s.Name]++
		}
		if names["below"] != 10 || names["root"] != 10 {
			t.Errorf("of failures are exported %v, want 10 of each", names)
		}
		if n := k.outcomes[tooMany].Load(); n != 380 {
			t.Errorf("%d were too many, want 380", n)
		}
		mustBeEmpty(t, k)
	})
}

// Traces that never end, and such as have spans without end, are not held back for ever, nor without bounds.
func TestHeldIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tracer, exported, k := keeping(t, time.Second, 1_000_000)
		ctx, root := tracer.Start(context.Background(), "root")
		for range 10 * maxSpans {
			_, child := tracer.Start(ctx, "child")
			child.End()
		}
		if k.spans != maxSpans {
			t.Errorf("%d spans are held back of one trace, want %d", k.spans, maxSpans)
		}
		time.Sleep(time.Second)
		root.End()
		if n := len(exported.GetSpans()); n != maxSpans+1 {
			t.Errorf("%d are exported, want %d", n, maxSpans+1)
		}
		mustBeEmpty(t, k)
		for range 3 * maxTraces {
			ctx, _ := tracer.Start(context.Background(), "without an end")
			for range 12 {
				_, child := tracer.Start(ctx, "child")
				child.End()
			}
			if len(k.traces) > maxTraces || k.spans > maxHeld {
				t.Fatalf("%d traces and %d spans are held back", len(k.traces), k.spans)
			}
		}
		if n := k.outcomes[tooMany].Load(); n != 2*maxTraces {
			t.Errorf("%d were too many, want %d", n, 2*maxTraces)
		}
		// They have gone on for so long that they are slow: they give up their room, and who comes finds some.
		time.Sleep(maxAge)
		exported.Reset()
		_, late := tracer.Start(context.Background(), "late")
		if n := len(exported.GetSpans()); k.spans != 0 || n < maxHeld-maxSpans || len(k.traces) > maxTraces {
			t.Errorf("after %v %d spans are held back, %d are exported, and there are %d traces", maxAge, k.spans, n, len(k.traces))
		}
		late.SetStatus(codes.Error, "no")
		late.End()
		if spans := exported.GetSpans(); spans[len(spans)-1].Name != "late" {
			t.Error("there was no room")
		}
	})
}

// Whatever spans begin and end when, what is held back is accounted for, and nothing of a failed trace is missing.
func TestKeepUnderLoad(t *testing.T) {
	t.Parallel()
	tracer, exported, k := keeping(t, time.Hour, 1_000_000)
	var wait sync.WaitGroup
	want := make([]int, 8)
	for g := range want {
		wait.Go(func() {
			random := rand.New(rand.NewPCG(uint64(g), 1))
			for i := range 500 {
				ctx, root := tracer.Start(context.Background(), fmt.Sprint(g, "/", i))
				n := random.IntN(6)
				fails := random.IntN(3) == 0
				var children sync.WaitGroup
				for c := range n {
					_, child := tracer.Start(ctx, "child")
					children.Go(func() {
						if fails && c == 0 {
							child.SetStatus(codes.Error, "no")
						}
						child.End()
					})
				}
				if random.IntN(2) == 0 {
					children.Wait()
				}
				root.End()
				children.Wait()
				if fails && n > 0 {
					want[g] += n + 1
				}
			}
		})
	}
	wait.Wait()
	sum := 0
	for _, n := range want {
		sum += n
	}
	if n := len(exported.GetSpans()); n != sum {
		t.Errorf("%d spans of failed traces are exported, want %d", n, sum)
	}
	mustBeEmpty(t, k)
}

// What many requests wait for at a time is seen: they are slow, and those that were admitted are exported, as many as are kept.
func TestAllHang(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tracer, exported, k := keeping(t, 250*time.Millisecond, 20)
		for range 3 * maxTraces {
			_, root := tracer.Start(context.Background(), "root")
			go func() {
				time.Sleep(5 * time.Second)
				root.End()
			}()
		}
		time.Sleep(6 * time.Second)
		synctest.Wait()
		if n := len(exported.GetSpans()); n != 20 {
			t.Errorf("%d are exported, want 20", n)
		}
		if slow, many := k.outcomes[slow].Load(), k.outcomes[tooMany].Load(); slow != 20 || many != 3*maxTraces-20 {
			t.Errorf("%d were slow, and %d too many", slow, many)
		}
		mustBeEmpty(t, k)
	})
}

// What is held back at the end is decided by what is known of it.
func TestShutdownDecides(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		passed := tracetest.NewSpanRecorder()
		k := newKeeper([]sdk.SpanProcessor{passed}, time.Second, 20)
		tracer := sdk.NewTracerProvider(sdk.WithSampler(sdk.AlwaysRecord(sdk.NeverSample())), sdk.WithSpanProcessor(k)).Tracer("test")
		ctx, _ := tracer.Start(context.Background(), "goes on")
		_, child := tracer.Start(ctx, "child")
		child.SetStatus(codes.Error, "no")
		child.End()
		if n := len(passed.Ended()); n != 0 {
			t.Fatalf("%d are passed on before their root has ended", n)
		}
		if err := k.Shutdown(context.Background()); err != nil {
			t.Fatal(err)
		}
		if n := len(passed.Ended()); n != 1 {
			t.Errorf("%d are passed on, want 1", n)
		}
	})
}

func BenchmarkOrdinary(b *testing.B) {
	for name, sampler := range map[string]sdk.Sampler{"head": sdk.ParentBased(sdk.NeverSample()), "kept": sdk.AlwaysRecord(sdk.ParentBased(sdk.NeverSample()))} {
		b.Run(name, func(b *testing.B) {
			k := newKeeper([]sdk.SpanProcessor{sdk.NewSimpleSpanProcessor(tracetest.NewInMemoryExporter())}, time.Second, 20)
			tracer := sdk.NewTracerProvider(sdk.WithSampler(sampler), sdk.WithSpanProcessor(k)).Tracer("bench")
			b.ReportAllocs()
			for b.Loop() {
				ctx, root := tracer.Start(context.Background(), "root")
				for range 4 {
					_, child := tracer.Start(ctx, "child")
					child.End()
				}
				root.End()
			}
		})
	}
}
