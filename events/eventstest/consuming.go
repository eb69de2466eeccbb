package eventstest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/loadlinehq/loadline/events"
	"github.com/loadlinehq/loadline/tenancy"
)

type thing struct {
	Name string `json:"name"`
	N    int    `json:"n"`
}

func things(t testing.TB, typ events.Type[thing], n int) []events.Raw {
	t.Helper()
	all := make([]events.Message, n)
	for i := range all {
		all[i] = message(t, typ, thing{Name: typ.Name(), N: i})
	}
	return encode(t, all...)
}

func letters(t testing.TB, b Broker) []DeadLetter {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	all, err := b.DeadLetters(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func testDead(t *testing.T, b Broker) {
	typ := events.Define[thing]("dead", events.V1)
	var attempts tally
	cause := errors.New("the third party says no: " + strings.Repeat("no,\n", 2000))
	consume(t, b.Driver, events.ConsumerConfig{Group: "dead", Version: "build-7"}, func(c *events.Consumer) {
		events.Handle(c, typ, func(_ context.Context, e events.Event[thing]) error {
			attempts.add(e.ID)
			return cause
		})
	})
	sent := things(t, typ, 1)
	publish(t, b.Driver, sent...)
	until(t, "a dead letter", func() bool { return len(letters(t, b)) > 0 })
	never(t, "a second one, or a sixth attempt", 500*time.Millisecond, func() bool { return len(letters(t, b)) != 1 || attempts.of(sent[0].ID) != 5 })
	l := letters(t, b)[0]
	if l.Reason != events.ReasonFailed || l.Attempts != 5 || l.Group != "dead" || l.Handler != "build-7" || !strings.HasPrefix(l.Error, "the third party says no") {
		t.Errorf("the letter says %+v", l)
	}
	if string(l.Raw.Body) != string(sent[0].Body) {
		t.Errorf("its body is %s", l.Raw.Body)
	}
	for name, value := range sent[0].Header {
		if l.Raw.Header[name] != value {
			t.Errorf("its header %s is %q, and was %q", name, l.Raw.Header[name], value)
		}
	}
	if lag, err := b.Lag(t.Context(), "dead"); err != nil || lag != 0 {
		t.Errorf("the lag is %d, %v", lag, err)
	}
}

func testPoison(t *testing.T, b Broker) {
	typ := events.Define[thing]("poison", events.V1)
	const n, bad = 1001, 500
	var good tally
	consume(t, b.Driver, events.ConsumerConfig{Group: "poison", MaxInFlight: 100}, func(c *events.Consumer) {
		events.Handle(c, typ, func(_ context.Context, e events.Event[thing]) error {
			if e.Payload.N == bad {
				return errors.New("poison")
			}
			good.add(e.ID)
			return nil
		})
	})
	publish(t, b.Driver, things(t, typ, n)...)
	until(t, "all that are good", func() bool { return good.different() == n-1 })
	until(t, "the one that is not, among the dead letters", func() bool { return len(letters(t, b)) == 1 })
	// Said to be permanent, it does not take five attempts.
	other := events.Define[thing]("permanent", events.V1)
	var attempts tally
	consume(t, b.Driver, events.ConsumerConfig{Group: "permanent"}, func(c *events.Consumer) {
		events.Handle(c, other, func(_ context.Context, e events.Event[thing]) error {
			attempts.add(e.ID)
			return events.Permanent(errors.New("never"))
		})
	})
	publish(t, b.Driver, things(t, other, 1)...)
	until(t, "a second dead letter", func() bool { return len(letters(t, b)) == 2 })
	if attempts.all() != 1 {
		t.Errorf("there were %d attempts", attempts.all())
	}
}

func testPanic(t *testing.T, b Broker) {
	typ := events.Define[thing]("panic", events.V1)
	done := make(chan int, 10)
	consume(t, b.Driver, events.ConsumerConfig{Group: "panic"}, func(c *events.Consumer) {
		events.Handle(c, typ, func(_ context.Context, e events.Event[thing]) error {
			if e.Attempt < 3 {
				panic("on purpose")
			}
			done <- e.Attempt
			return nil
		})
	})
	publish(t, b.Driver, things(t, typ, 1)...)
	if n := <-done; n != 3 {
		t.Errorf("it was done at attempt %d", n)
	}
}

func testUnknownVersion(t *testing.T, b Broker) {
	v1, v2 := events.Define[thing]("version", events.V1), events.Define[thing]("version", "v2")
	var got tally
	consume(t, b.Driver, events.ConsumerConfig{Group: "version"}, func(c *events.Consumer) {
		events.Handle(c, v1, func(_ context.Context, e events.Event[thing]) error {
			got.add(e.Version)
			return nil
		})
	})
	publish(t, b.Driver, things(t, v2, 1)...)
	publish(t, b.Driver, things(t, v1, 1)...)
	broken := things(t, v1, 1)[0]
	broken.Body = []byte("no JSON")
	publish(t, b.Driver, broken)
	until(t, "two dead letters", func() bool { return len(letters(t, b)) == 2 && got.of("v1") == 1 })
	var reasons []string
	for _, l := range letters(t, b) {
		reasons = append(reasons, string(l.Reason))
	}
	slices.Sort(reasons)
	if !slices.Equal(reasons, []string{string(events.ReasonUndecodable), string(events.ReasonUnknownVersion)}) {
		t.Errorf("the reasons are %q", reasons)
	}
}

func testSlowHandlers(t *testing.T, b Broker) {
	single, batch := events.Define[thing]("slow.single", events.V1), events.Define[thing]("slow.batch", events.V1)
	var done tally
	var again atomic.Int64
	handle := func(all ...events.Event[thing]) {
		time.Sleep(3 * time.Second)
		for _, e := range all {
			if done.add(e.ID); e.Attempt > 1 {
				again.Add(1)
			}
		}
	}
	config := events.ConsumerConfig{Group: "slow-handlers", Concurrency: 1, AckWait: 2 * time.Second, MaxDeliveries: 2}
	consume(t, b.Driver, config, func(c *events.Consumer) {
		events.Handle(c, single, func(_ context.Context, e events.Event[thing]) error {
			handle(e)
			return nil
		})
		events.HandleBatch(c, batch, events.BatchConfig{Size: 2, Concurrency: 1, Wait: 100 * time.Millisecond}, func(_ context.Context, all []events.Event[thing]) error {
			handle(all...)
			return nil
		})
	})
	publish(t, b.Driver, things(t, single, 3)...)
	publish(t, b.Driver, things(t, batch, 6)...)
	until(t, "all", func() bool { return done.different() == 9 })
	if done.all() != 9 || again.Load() != 0 || len(letters(t, b)) != 0 {
		t.Errorf("%d were handled, of 9, %d of them not at their first delivery, and %d are dead", done.all(), again.Load(), len(letters(t, b)))
	}
}

// A handler that hangs, whatever its context says, keeps neither its own event nor those behind it.
func testHanging(t *testing.T, b Broker) {
	if !b.Driver.Capabilities().Ordered {
		t.Skip("this driver keeps no order")
	}
	keyed := events.Define("hanging.keyed", events.V1, events.KeyedBy(func(p thing) string { return "key" }))
	single := events.Define[thing]("hanging.single", events.V1)
	hang := make(chan struct{})
	var hanging, done tally
	member := func(d events.Driver, handle func(e *events.Message)) {
		config := events.ConsumerConfig{Group: "hanging", Concurrency: 1, AckWait: 600 * time.Millisecond, HandlerTimeout: 500 * time.Millisecond, DrainTimeout: time.Millisecond}
		consume(t, d, config, func(c *events.Consumer) {
			f := func(_ context.Context, e events.Event[thing]) error {
				handle(&e.Message)
				return nil
			}
			events.Handle(c, keyed, f)
			events.Handle(c, single, f)
		})
	}
	member(b.Driver, func(e *events.Message) {
		hanging.add(e.ID)
		<-hang
	})
	t.Cleanup(func() { close(hang) }) // before the member is stopped
	publish(t, b.Driver, things(t, keyed, 3)...)
	publish(t, b.Driver, things(t, single, 6)...)
	until(t, "one of each hangs", func() bool { return hanging.different() == 2 })
	other, _ := connect(t, b)
	member(other, func(e *events.Message) { done.add(e.ID) })
	until(t, "all, by the other member", func() bool { return done.different() == 9 })
}

func testEffectOnce(t *testing.T, b Broker) {
	typ := events.Define[thing]("once", events.V1)
	var effects tally
	var deliveries atomic.Int64
	seen := make(map[string]bool) // as an inbox, in one transaction with the effect
	var mu sync.Mutex
	consume(t, b.Driver, events.ConsumerConfig{Group: "once"}, func(c *events.Consumer) {
		events.Handle(c, typ, func(_ context.Context, e events.Event[thing]) error {
			deliveries.Add(1)
			mu.Lock()
			if !seen[e.ID] {
				seen[e.ID] = true
				effects.add(e.ID)
			}
			mu.Unlock()
			if e.Attempt == 1 {
				return errors.New("committed, and died before it could say so")
			}
			return nil
		})
	})
	sent := things(t, typ, 20)
	publish(t, b.Driver, sent...)
	publish(t, b.Driver, sent...) // the writer did not get the answer
	until(t, "all twice", func() bool { return deliveries.Load() >= 40 && effects.different() == 20 })
	until(t, "quiet", func() bool { lag, err := b.Lag(t.Context(), "once"); return err == nil && lag == 0 })
	if n := effects.all(); n != 20 {
		t.Errorf("%d effects", n)
	}
}

func testOrder(t *testing.T, b Broker) {
	if !b.Driver.Capabilities().Ordered {
		t.Skip("this driver keeps no order")
	}
	typ := events.Define("ordered", events.V1, events.KeyedBy(func(p thing) string { return p.Name }))
	const keys, each = 20, 15
	var mu sync.Mutex
	last := make(map[string]int)
	var done tally
	var inversions atomic.Int64
	handle := func(_ context.Context, e events.Event[thing]) error {
		mu.Lock()
		defer mu.Unlock()
		if e.Payload.N%5 == 2 && e.Attempt == 1 {
			return errors.New("the first attempt fails")
		}
		switch {
		case e.Payload.N > last[e.Key]+1:
			inversions.Add(1)
			t.Errorf("%s: %d came after %d", e.Key, e.Payload.N, last[e.Key])
		case e.Payload.N == last[e.Key]+1:
			last[e.Key] = e.Payload.N
		}
		done.add(e.ID)
		return nil
	}
	member := func() (stop func(), crash func()) {
		d, crash := connect(t, b)
		return consume(t, d, events.ConsumerConfig{Group: "ordered", AckWait: time.Second}, func(c *events.Consumer) { events.Handle(c, typ, handle) }), crash
	}
	member()
	for round := range 3 {
		stop, crash := member()
		var batch []events.Message
		for i := range each / 3 {
			for key := range keys {
				batch = append(batch, message(t, typ, thing{fmt.Sprint("key ", key), round*each/3 + i + 1}))
			}
		}
		publish(t, b.Driver, encode(t, batch...)...)
		if round == 1 {
			crash()
		} else {
			stop()
		}
	}
	until(t, "all of all keys", func() bool { return done.different() == keys*each || inversions.Load() > 0 })
}

func testGraceful(t *testing.T, b Broker) {
	typ := events.Define[thing]("graceful", events.V1)
	publish(t, b.Driver, things(t, typ, 60)...)
	var done tally
	began := make(chan struct{}, 100)
	stop := consume(t, b.Driver, events.ConsumerConfig{Group: "graceful", Concurrency: 4, AckWait: patience}, func(c *events.Consumer) {
		events.Handle(c, typ, func(_ context.Context, e events.Event[thing]) error {
			began <- struct{}{}
			time.Sleep(300 * time.Millisecond)
			done.add(e.ID)
			return nil
		})
	})
	<-began
	at := time.Now()
	stop()
	if took := time.Since(at); took > 10*time.Second {
		t.Errorf("it took %v to end", took)
	}
	if n := done.all(); n < 1 || n > 20 {
		t.Errorf("%d were done: those under way should be, and not many more", n)
	}
	// The others are somebody else's at once.
	other, _ := connect(t, b)
	at = time.Now()
	consume(t, other, events.ConsumerConfig{Group: "graceful", AckWait: patience}, func(c *events.Consumer) {
		events.Handle(c, typ, func(_ context.Context, e events.Event[thing]) error { done.add(e.ID); return nil })
	})
	until(t, "the rest", func() bool { return done.different() == 60 })
	if took := time.Since(at); took > 10*time.Second {
		t.Errorf("the rest came after %v", took)
	}
	if done.all() != 60 {
		t.Errorf("%d were done, of 60", done.all())
	}
}

func testBatch(t *testing.T, b Broker) {
	typ := events.Define[thing]("batch", events.V1)
	var good, sizes tally
	consume(t, b.Driver, events.ConsumerConfig{Group: "batch"}, func(c *events.Consumer) {
		events.HandleBatch(c, typ, events.BatchConfig{Size: 20}, func(_ context.Context, all []events.Event[thing]) error {
			sizes.add(fmt.Sprint(len(all)))
			for _, e := range all {
				if e.Payload.N == 33 {
					return errors.New("a bad apple")
				}
			}
			for _, e := range all {
				good.add(e.ID)
			}
			return nil
		})
	})
	publish(t, b.Driver, things(t, typ, 100)...)
	until(t, "all but one, and that one dead", func() bool { return good.different() == 99 && len(letters(t, b)) == 1 })
	if sizes.of("20") == 0 {
		t.Errorf("there was no full batch: %v", sizes.names())
	}
}

func testContext(t *testing.T, b Broker) {
	typ := events.Define("context", events.V1, events.KeyedBy(func(p thing) string { return p.Name }))
	sc := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1, 2, 3}, SpanID: trace.SpanID{4, 5}, TraceFlags: trace.FlagsSampled})
	ctx, err := tenancy.With(trace.ContextWithSpanContext(t.Context(), sc), "acme")
	if err != nil {
		t.Fatal(err)
	}
	p, err := events.NewPublisher(b.Driver, events.PublisherConfig{Source: "/eventstest"})
	if err != nil {
		t.Fatal(err)
	}
	type seen struct {
		tenant string
		trace  trace.TraceID
		e      events.Event[thing]
	}
	got := make(chan seen, 10)
	consume(t, b.Driver, events.ConsumerConfig{Group: "context"}, func(c *events.Consumer) {
		events.Handle(c, typ, func(ctx context.Context, e events.Event[thing]) error {
			tenant, _ := tenancy.FromContext(ctx)
			got <- seen{tenant, trace.SpanContextFromContext(ctx).TraceID(), e}
			return nil
		})
	})
	if err := p.Publish(ctx, message(t, typ, thing{"key", 1}, events.KeyVersion(7))); err != nil {
		t.Fatal(err)
	}
	s := <-got
	if s.tenant != "acme" || s.trace != sc.TraceID() || s.e.Key != "key" || s.e.KeyVersion != 7 || s.e.Payload.N != 1 {
		t.Errorf("got %+v", s)
	}
}

func testSkew(t *testing.T, b Broker) {
	typ := events.Define[thing]("skew", events.V1)
	var all []events.Message
	for _, skew := range []time.Duration{-5 * time.Minute, 0, 5 * time.Minute} {
		all = append(all, message(t, typ, thing{}, events.At(time.Now().Add(skew))))
	}
	publish(t, b.Driver, encode(t, all...)...)
	var got tally
	consume(t, b.Driver, events.ConsumerConfig{Group: "skew"}, func(c *events.Consumer) {
		events.Handle(c, typ, func(_ context.Context, e events.Event[thing]) error { got.add(e.ID); return nil })
	})
	until(t, "all three", func() bool { return got.all() == 3 })
}
