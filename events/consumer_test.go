package events_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/codes"
	sdk "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/loadlinehq/loadline/causal"
	"github.com/loadlinehq/loadline/events"
	"github.com/loadlinehq/loadline/tenancy"
)

var (
	viewed       = events.Define[int]("article.viewed", events.V1)
	numberedType = events.Define[int]("number.counted", events.V1)
)

func views(t testing.TB, numbers ...int) []events.Message {
	t.Helper()
	var all []events.Message
	for _, n := range numbers {
		m, err := viewed.New(n)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, m)
	}
	return all
}

func consumer(t testing.TB, f *fake, change func(*events.ConsumerConfig)) *events.Consumer {
	t.Helper()
	c := events.ConsumerConfig{Logger: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(&c)
	}
	consumer, err := events.NewConsumer(f, c)
	if err != nil {
		t.Fatal(err)
	}
	return consumer
}

// start runs a consumer until the test, or stop, ends it.
func start(t *testing.T, c *events.Consumer) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(stop)
	return stop
}

// Failures are tried again with delays, five times in all; then the event is a dead
// letter. A panic is a failure.
func TestRetries(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		c := consumer(t, f, nil)
		var attempts []int
		var at []time.Duration
		began := time.Now()
		events.Handle(c, viewed, func(_ context.Context, e events.Event[int]) error {
			attempts = append(attempts, e.Attempt)
			at = append(at, time.Since(began))
			if e.Attempt%2 == 0 {
				panic("even")
			}
			return errors.New("odd")
		})
		stop := start(t, c)
		f.publish(t, views(t, 1)...)
		time.Sleep(5 * time.Minute)
		stop()
		if !slices.Equal(attempts, []int{1, 2, 3, 4, 5}) {
			t.Errorf("attempts %v", attempts)
		}
		for i, mean := range []time.Duration{500 * time.Millisecond, 2 * time.Second, 8 * time.Second, 32 * time.Second} {
			if d := at[i+1] - at[i]; d < mean/2 || d > 3*mean/2 {
				t.Errorf("failure %d: again after %v, want %v, a half more or less", i+1, d, mean)
			}
		}
		letters := f.letters()
		if len(letters) != 1 || letters[0].says.Reason != events.ReasonFailed || letters[0].says.Attempts != 5 || letters[0].says.Error != "odd" || letters[0].says.Group != events.DefaultGroup {
			t.Errorf("%+v", letters)
		}
	})
}

// What no attempt can mend is dead at once; what asks for a delay gets it; what was
// delivered too often without a word kills no more processes.
func TestDeadLetters(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		c := consumer(t, f, nil)
		calls := make(map[int][]time.Duration)
		began := time.Now()
		events.Handle(c, viewed, func(_ context.Context, e events.Event[int]) error {
			calls[e.Payload] = append(calls[e.Payload], time.Since(began))
			switch {
			case e.Payload == 1:
				return events.Permanent(errors.New("never"))
			case e.Payload == 2 && e.Attempt == 1:
				return fmt.Errorf("busy: %w", events.RetryAfter(errors.New("later"), time.Minute))
			}
			return nil
		})
		stop := start(t, c)
		f.publish(t, views(t, 1, 2)...)
		wrong := views(t, 3, 4, 5)
		wrong[0].Payload = []byte(`"no number"`)
		wrong[1].Version = "v9"
		f.publish(t, wrong[:2]...)
		raw, err := events.Encode(&wrong[2], "/")
		if err != nil {
			t.Fatal(err)
		}
		raw.Body = []byte("{")
		f.Publish(t.Context(), []events.Raw{raw})
		time.Sleep(2 * time.Minute)
		stop()
		if len(calls[1]) != 1 || len(calls[2]) != 2 || calls[2][1]-calls[2][0] != time.Minute {
			t.Errorf("calls %v", calls)
		}
		var reasons []string
		for _, l := range f.letters() {
			reasons = append(reasons, string(l.says.Reason))
		}
		slices.Sort(reasons)
		if want := []string{"permanent", "undecodable", "undecodable", "unknown-version"}; !slices.Equal(reasons, want) {
			t.Errorf("%v, want %v", reasons, want)
		}
	})
}

func TestCrashLoop(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.publish(t, views(t, 1)...)
		// Five processes have died of it.
		for range events.DefaultMaxDeliveries {
			ctx, cancel := context.WithCancel(t.Context())
			s := events.Subscription{Name: events.DefaultGroup, MaxInFlight: 1, Filters: []events.Filter{{Type: "article.viewed", Partition: -1}}}
			err := f.Subscribe(ctx, s, func(d events.Delivery) { _ = d.Retry(ctx, 0); cancel() })
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Millisecond)
		}
		c := consumer(t, f, nil)
		events.Handle(c, viewed, func(context.Context, events.Event[int]) error { t.Error("called"); return nil })
		stop := start(t, c)
		time.Sleep(time.Second)
		stop()
		if l := f.letters(); len(l) != 1 || l[0].says.Attempts != 6 || !strings.Contains(l[0].says.Error, "never settled") {
			t.Errorf("%+v", l)
		}
	})
}

// Events of a key come in order, although the first fails, and others do not wait for it.
func TestKeysInOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		c := consumer(t, f, nil)
		var mu sync.Mutex
		done := make(map[string][]string)
		var benDone time.Duration
		began := time.Now()
		events.Handle(c, articlePublished, func(_ context.Context, e events.Event[published]) error {
			mu.Lock()
			defer mu.Unlock()
			if e.Key == "ann" && e.Payload.Slug == "1" && e.Attempt < 3 {
				return errors.New("not yet")
			}
			if e.Key == "ben" {
				benDone = time.Since(began)
			}
			done[e.Key] = append(done[e.Key], e.Payload.Slug)
			return nil
		})
		stop := start(t, c)
		for _, slug := range []string{"1", "2", "3"} {
			f.publish(t, message(t, published{slug, "ann"}), message(t, published{slug, "ben"}))
		}
		time.Sleep(time.Minute)
		stop()
		for key, slugs := range done {
			if !slices.Equal(slugs, []string{"1", "2", "3"}) {
				t.Errorf("%s: %v", key, slugs)
			}
		}
		if len(done) != 2 || benDone != 0 {
			t.Errorf("%v; ben's were done after %v", done, benDone)
		}
	})
}

// A handler that runs long says so; when its time is over, its context ends.
func TestLongHandlers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		c := consumer(t, f, func(c *events.ConsumerConfig) { c.HandlerTimeout = 2 * time.Minute })
		began := time.Now()
		var ended time.Duration
		events.Handle(c, viewed, func(ctx context.Context, e events.Event[int]) error {
			if e.Attempt > 1 {
				return nil
			}
			<-ctx.Done()
			ended = time.Since(began)
			return ctx.Err()
		})
		stop := start(t, c)
		f.publish(t, views(t, 1)...)
		time.Sleep(3 * time.Minute)
		f.mu.Lock()
		settled := f.queues[events.DefaultGroup].inFlight == 0
		f.mu.Unlock()
		stop()
		if ended != 2*time.Minute || !settled {
			t.Errorf("ended after %v, settled: %t", ended, settled)
		}
	})
}

func TestSignsOfLife(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		c := consumer(t, f, nil)
		events.Handle(c, viewed, func(context.Context, events.Event[int]) error {
			time.Sleep(95 * time.Second)
			return nil
		})
		stop := start(t, c)
		f.publish(t, views(t, 1)...)
		time.Sleep(2 * time.Minute)
		stop()
		if n := f.extensions.Load(); n != 9 { // each 10 s
			t.Errorf("%d signs of life in 95 s", n)
		}
	})
}

// A consumer that is asked to end lets handlers end, for a while, and begins no more.
func TestDrain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		c := consumer(t, f, func(c *events.ConsumerConfig) { c.Concurrency = 2 })
		var mu sync.Mutex
		outcomes := make(map[int]error)
		events.Handle(c, viewed, func(ctx context.Context, e events.Event[int]) error {
			var err error
			select {
			case <-time.After(time.Duration(e.Payload) * time.Second):
			case <-ctx.Done():
				err = ctx.Err()
			}
			mu.Lock()
			defer mu.Unlock()
			outcomes[e.Payload] = err
			return err
		})
		stop := start(t, c)
		f.publish(t, views(t, 5, 60, 1)...)
		time.Sleep(time.Second / 2)
		began := time.Now()
		stop()
		if took := time.Since(began); took != events.DefaultDrainTimeout {
			t.Errorf("it took %v", took)
		}
		if err, begun := outcomes[5]; !begun || err != nil {
			t.Errorf("the handler of 5 s: %v", err)
		}
		if !errors.Is(outcomes[60], context.Canceled) {
			t.Errorf("the handler of a minute: %v", outcomes[60])
		}
		if len(f.letters()) != 0 {
			t.Errorf("%+v", f.letters())
		}
		// Another member has what is left, and what was cut short.
		other := consumer(t, f, nil)
		var left []int
		events.Handle(other, viewed, func(_ context.Context, e events.Event[int]) error {
			mu.Lock()
			defer mu.Unlock()
			left = append(left, e.Payload)
			return nil
		})
		stop = start(t, other)
		time.Sleep(time.Second)
		stop()
		slices.Sort(left)
		if !slices.Equal(left, []int{1, 60}) {
			t.Errorf("left: %v", left)
		}
	})
}

func TestConcurrencyIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		c := consumer(t, f, func(c *events.ConsumerConfig) { c.Concurrency = 3 })
		var mu sync.Mutex
		now, most := 0, 0
		events.Handle(c, viewed, func(context.Context, events.Event[int]) error {
			mu.Lock()
			now++
			most = max(most, now)
			mu.Unlock()
			time.Sleep(time.Second)
			mu.Lock()
			now--
			mu.Unlock()
			return nil
		})
		stop := start(t, c)
		f.publish(t, views(t, make([]int, 12)...)...)
		time.Sleep(4*time.Second + time.Millisecond)
		stop()
		if most != 3 || now != 0 {
			t.Errorf("%d at once", most)
		}
	})
}

// Batches are as large as there are events, and the one that fails keeps no other.
func TestBatches(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		recorder := tracetest.NewSpanRecorder()
		c := consumer(t, f, func(c *events.ConsumerConfig) {
			c.TracerProvider = sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(recorder))
		})
		var sizes []int
		done := make(map[int]int)
		events.HandleBatch(c, viewed, events.BatchConfig{Size: 4, Wait: time.Second}, func(_ context.Context, all []events.Event[int]) error {
			sizes = append(sizes, len(all))
			for _, e := range all {
				if e.Payload == 6 && e.Attempt < 3 {
					return errors.New("six")
				}
			}
			for _, e := range all {
				done[e.Payload]++
			}
			return nil
		})
		stop := start(t, c)
		f.publish(t, views(t, 1, 2, 3, 4, 5, 6)...)
		time.Sleep(time.Minute)
		stop()
		for n := range 6 {
			if done[n+1] != 1 {
				t.Errorf("%d was done %d times", n+1, done[n+1])
			}
		}
		if !slices.Equal(sizes, []int{4, 2, 1, 1, 1, 1}) { // 5 and 6 together, each alone, 6 twice more
			t.Errorf("batches of %v", sizes)
		}
		failed := 0
		for _, s := range recorder.Ended() {
			if s.Status().Code == codes.Error {
				failed++
			}
		}
		if failed != 3 {
			t.Errorf("%d of %d traces have failed, want 3", failed, len(recorder.Ended()))
		}
	})
}

// What a handler needs is away for an hour: no attempt is counted, and the member that keeps
// the events says so. One that ends meanwhile gives them to another.
func TestUnavailable(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		var mu sync.Mutex
		away := true
		done := make(map[int]int) // payload to the attempt
		need := func() error {
			mu.Lock()
			defer mu.Unlock()
			if away {
				return fmt.Errorf("handler: %w", events.Unavailable(errors.New("the database is away")))
			}
			return nil
		}
		note := func(e events.Event[int]) {
			mu.Lock()
			defer mu.Unlock()
			done[e.Payload] = e.Attempt
		}
		member := func() (stop func()) {
			c := consumer(t, f, nil)
			events.HandleBatch(c, viewed, events.BatchConfig{}, func(_ context.Context, all []events.Event[int]) error {
				if err := need(); err != nil {
					return err
				}
				for _, e := range all {
					note(e)
				}
				return nil
			})
			events.Handle(c, numberedType, func(_ context.Context, e events.Event[int]) error {
				if err := need(); err != nil {
					return err
				}
				note(e)
				return nil
			})
			return start(t, c)
		}
		first := member()
		f.publish(t, views(t, 1, 2, 3)...)
		m, err := numberedType.New(4)
		if err != nil {
			t.Fatal(err)
		}
		f.publish(t, m)
		time.Sleep(time.Hour)
		if f.extensions.Load() < 4*60 {
			t.Errorf("%d signs of life", f.extensions.Load())
		}
		ended := time.Now()
		first()
		if took := time.Since(ended); took > time.Second {
			t.Errorf("it took %v to end", took)
		}
		defer member()()
		time.Sleep(time.Minute)
		mu.Lock()
		away = false
		mu.Unlock()
		time.Sleep(10 * time.Second)
		mu.Lock()
		defer mu.Unlock()
		for n := range 4 {
			if done[n+1] != 2 { // one for each member
				t.Errorf("%d was done at attempt %d", n+1, done[n+1])
			}
		}
		if len(f.letters()) != 0 {
			t.Errorf("dead letters: %v", f.letters())
		}
	})
}

// An event without a key of a type that has keys, as a writer in another language may send,
// is handled all the same.
func TestKeyLeftOut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		c := consumer(t, f, nil)
		var mu sync.Mutex
		var got []string
		events.Handle(c, articlePublished, func(_ context.Context, e events.Event[published]) error {
			mu.Lock()
			defer mu.Unlock()
			got = append(got, e.Key)
			return nil
		})
		stop := start(t, c)
		with, err := articlePublished.New(published{Author: "ann"})
		if err != nil {
			t.Fatal(err)
		}
		without := with
		without.ID, without.Key = "another", ""
		f.publish(t, with, without)
		time.Sleep(time.Second)
		stop()
		slices.Sort(got)
		if !slices.Equal(got, []string{"", "ann"}) {
			t.Errorf("handled are the keys %q", got)
		}
	})
}

// As many batches are handled at once as may be, each of them full.
func TestBatchConcurrency(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		c := consumer(t, f, nil)
		var mu sync.Mutex
		var now, most int
		var sizes []int
		events.HandleBatch(c, viewed, events.BatchConfig{Size: 2, Wait: time.Second, Concurrency: 3}, func(_ context.Context, all []events.Event[int]) error {
			mu.Lock()
			now++
			most, sizes = max(most, now), append(sizes, len(all))
			mu.Unlock()
			time.Sleep(time.Minute)
			mu.Lock()
			now--
			mu.Unlock()
			return nil
		})
		stop := start(t, c)
		f.publish(t, views(t, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10)...)
		time.Sleep(2*time.Minute + 2*time.Second)
		stop()
		if most != 3 || !slices.Equal(sizes, []int{2, 2, 2, 2, 2}) {
			t.Errorf("%d at once, of %v", most, sizes)
		}
	})
}

// A handler's context has what its event's writer had.
func TestHandlerContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		recorder := tracetest.NewSpanRecorder()
		provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(recorder))
		c := consumer(t, f, func(c *events.ConsumerConfig) { c.TracerProvider = provider })
		mark := causal.Mark{System: 7, Timeline: 1, LSN: 5}
		type seen struct {
			tenant string
			token  causal.Token
			trace  trace.TraceID
		}
		var got []seen
		events.Handle(c, plainV3, func(ctx context.Context, e events.Event[publishedV3]) error {
			tenant, _ := tenancy.FromContext(ctx)
			got = append(got, seen{tenant, causal.FromContext(ctx).Token(), trace.SpanContextFromContext(ctx).TraceID()})
			if e.Payload.Address != "/s" || len(e.Payload.Authors) != 1 {
				t.Errorf("%+v", e.Payload)
			}
			return nil
		})
		stop := start(t, c)
		ctx, err := tenancy.With(t.Context(), "acme")
		if err != nil {
			t.Fatal(err)
		}
		ctx = causal.WithSession(ctx, causal.NewSession(causal.NewToken(mark)))
		ctx, span := provider.Tracer("test").Start(ctx, "write")
		for _, at := range []time.Time{time.Now(), time.Now().Add(-2 * time.Hour)} {
			old, err := plainV1.New(published{"s", "ann"}, events.At(at))
			if err != nil {
				t.Fatal(err)
			}
			p, err := events.NewPublisher(f, events.PublisherConfig{})
			if err != nil {
				t.Fatal(err)
			}
			if err := p.Publish(ctx, old); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		span.End()
		stop()
		if len(got) != 2 {
			t.Fatalf("%d calls", len(got))
		}
		for i, g := range got {
			if g.tenant != "acme" || !g.token.Equal(causal.NewToken(mark)) {
				t.Errorf("%+v", g)
			}
			if inTrace := g.trace == span.SpanContext().TraceID(); inTrace != (i == 0) {
				t.Errorf("event %d is handled in its writer's trace: %t", i, inTrace)
			}
		}
		for _, s := range recorder.Ended() {
			if s.Name() == "process plain.published" && s.SpanContext().TraceID() != span.SpanContext().TraceID() && len(s.Links()) != 1 {
				t.Errorf("no link from %s", s.Name())
			}
		}
	})
}

func TestRegistrations(t *testing.T) {
	t.Parallel()
	nothing := func(context.Context, events.Event[int]) error { return nil }
	f := newFake()
	run := func(c *events.Consumer) string {
		err := c.Run(t.Context())
		if err == nil {
			return ""
		}
		return err.Error()
	}
	if got := run(consumer(t, f, nil)); !strings.Contains(got, "no handlers") {
		t.Error(got)
	}
	c := consumer(t, f, nil)
	events.Handle(c, viewed, nothing)
	events.Handle(c, viewed, nothing)
	events.HandleBatch(c, articlePublished, events.BatchConfig{}, func(context.Context, []events.Event[published]) error { return nil })
	if got := run(c); !strings.Contains(got, "two handlers") || !strings.Contains(got, "no batches") {
		t.Error(got)
	}
	unordered := newFake()
	unordered.can.Ordered = false
	c = consumer(t, unordered, nil)
	events.Handle(c, articlePublished, func(context.Context, events.Event[published]) error { return nil })
	if got := run(c); !strings.Contains(got, "keeps no order") {
		t.Error(got)
	}
	unordered.can.DelayedRetry = false
	if _, err := events.NewConsumer(unordered, events.ConsumerConfig{}); err == nil {
		t.Error("a consumer without retries")
	}
	_, err := events.NewConsumer(f, events.ConsumerConfig{Group: "A b", Concurrency: -1, MaxDeliveries: -1, AckWait: 1, HandlerTimeout: -1, DrainTimeout: -1})
	for _, want := range []string{"Group", "Concurrency", "MaxDeliveries", "AckWait", "HandlerTimeout", "DrainTimeout"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		reader := sdk.NewManualReader()
		c := consumer(t, f, func(c *events.ConsumerConfig) { c.MeterProvider = sdk.NewMeterProvider(sdk.WithReader(reader)) })
		events.Handle(c, viewed, func(_ context.Context, e events.Event[int]) error {
			if e.Payload == 1 {
				return errors.New("one")
			}
			return nil
		})
		stop := start(t, c)
		f.publish(t, views(t, 0, 0, 1)...)
		time.Sleep(5 * time.Minute)
		stop()
		var got metricdata.ResourceMetrics
		if err := reader.Collect(t.Context(), &got); err != nil {
			t.Fatal(err)
		}
		counts := make(map[string]int64)
		for _, m := range got.ScopeMetrics[0].Metrics {
			if sum, ok := m.Data.(metricdata.Sum[int64]); ok {
				for _, p := range sum.DataPoints {
					outcome, _ := p.Attributes.Value("outcome")
					counts[outcome.AsString()] = p.Value
				}
			}
		}
		if counts["done"] != 2 || counts["retried"] != 4 || counts["dead"] != 1 {
			t.Errorf("%v", counts)
		}
	})
}

// A broker that keeps nothing for groups to come cannot do what StartAt asks for.
func TestStartNeedsReplay(t *testing.T) {
	t.Parallel()
	if _, err := events.NewConsumer(newFake(), events.ConsumerConfig{StartAt: time.Now()}); err == nil || !strings.Contains(err.Error(), "StartAt") {
		t.Errorf("got %v", err)
	}
}
