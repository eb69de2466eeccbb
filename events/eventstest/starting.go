package eventstest

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/loadlinehq/loadline/events"
)

// testStart: groups that are made later than what was published, of types with keys and without
// and in batches.
func testStart(t *testing.T, b Broker) {
	if can := b.Driver.Capabilities(); !can.Replay {
		t.Skipf("groups of the driver %s cannot begin at a time", can.Name)
	}
	single, many := events.Define[thing]("start", events.V1), events.Define[thing]("start.many", events.V1)
	keyed := events.Define("start.keyed", events.V1, events.KeyedBy(func(t thing) string { return t.Name }))
	send := func() (ids []string) {
		var all []events.Raw
		for i := range 20 {
			for _, typ := range []events.Type[thing]{single, keyed, many} {
				all = append(all, encode(t, message(t, typ, thing{Name: fmt.Sprint("key ", i%5), N: i}))...)
			}
		}
		publish(t, b.Driver, all...)
		for _, raw := range all {
			ids = append(ids, raw.ID)
		}
		return ids
	}
	group := func(name string, at time.Time) (got *tally, stop func()) {
		got = new(tally)
		return got, consume(t, b.Driver, events.ConsumerConfig{Group: name, StartAt: at}, func(c *events.Consumer) {
			events.Handle(c, single, func(_ context.Context, e events.Event[thing]) error { got.add(e.ID); return nil })
			events.Handle(c, keyed, func(_ context.Context, e events.Event[thing]) error { got.add(e.ID); return nil })
			events.HandleBatch(c, many, events.BatchConfig{}, func(_ context.Context, all []events.Event[thing]) error {
				for _, e := range all {
					got.add(e.ID)
				}
				return nil
			})
		})
	}
	expect := func(what string, got *tally, want ...[]string) {
		t.Helper()
		ids := slices.Concat(want...)
		until(t, what, func() bool { return got.different() >= len(ids) })
		never(t, what+", and others", 300*time.Millisecond, func() bool { return got.different() > len(ids) })
		for _, id := range ids {
			if got.of(id) == 0 {
				t.Errorf("%s: %s has not come", what, id)
			}
		}
	}
	settled := func(name string) {
		t.Helper()
		for _, part := range append([]string{name, name + "-BATCH-start.many"}, partitions(name)...) {
			until(t, part+" is settled", func() bool {
				lag, err := b.Lag(t.Context(), part)
				return err == nil && lag == 0
			})
		}
	}
	const apart = 50 * time.Millisecond // of the clocks of the broker and of this process
	before := send()
	time.Sleep(apart)
	start := time.Now()
	time.Sleep(apart)
	after := send()

	late, stop := group("late", start)
	expect("all from the start", late, after)
	settled("late")
	stop()
	all, _ := group("all", time.Time{})
	expect("all that there is", all, before, after)

	// The group goes on where it is: from a start before, from none, and from one that would
	// pass over what nobody has handled.
	next := send()
	time.Sleep(apart)
	for i, at := range []time.Time{start.Add(-time.Hour), {}, time.Now()} {
		if i > 0 {
			next = send()
			time.Sleep(apart)
		}
		got, stop := group("late", at)
		expect("what came meanwhile", got, next)
		settled("late")
		stop()
	}

	ending, _ := group("end", time.Now())
	time.Sleep(apart)
	expect("all that is to come", ending, send())
}
