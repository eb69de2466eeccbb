package eventstest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/loadlinehq/loadline/events"
)

// testRewind: a group, of types with keys and without and in batches, settles all; then it
// is rewound to where it was in the middle, while it runs.
func testRewind(t *testing.T, b Broker) {
	if _, can := b.Driver.(events.Rewinder); !can {
		t.Skipf("the driver %s cannot rewind", b.Driver.Capabilities().Name)
	}
	const n = 40
	single, many := events.Define[thing]("again", events.V1), events.Define[thing]("again.many", events.V1)
	keyed := events.Define("again.keyed", events.V1, events.KeyedBy(func(t thing) string { return t.Name }))
	var mu sync.Mutex
	var got []string // in order
	note := func(e events.Event[thing]) {
		mu.Lock()
		defer mu.Unlock()
		got = append(got, e.ID)
	}
	count := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(got)
	}
	var c *events.Consumer
	consume(t, b.Driver, events.ConsumerConfig{Group: "again"}, func(made *events.Consumer) {
		c = made
		events.Handle(c, single, func(_ context.Context, e events.Event[thing]) error { note(e); return nil })
		events.Handle(c, keyed, func(_ context.Context, e events.Event[thing]) error { note(e); return nil })
		events.HandleBatch(c, many, events.BatchConfig{}, func(_ context.Context, all []events.Event[thing]) error {
			for _, e := range all {
				note(e)
			}
			return nil
		})
	})
	var ids []string
	send := func() (sent []string) {
		var all []events.Raw
		for i := range n {
			for _, typ := range []events.Type[thing]{single, keyed, many} {
				all = append(all, encode(t, message(t, typ, thing{Name: fmt.Sprint("key ", i%5), N: i}))...)
			}
		}
		publish(t, b.Driver, all...)
		for _, raw := range all {
			sent = append(sent, raw.ID)
		}
		until(t, "all of it", func() bool { return count() == len(ids)+len(sent) })
		ids = append(ids, sent...)
		return sent
	}
	send()
	// The handlers are done; the broker learns of it a little later.
	settled := func() bool {
		for _, name := range append([]string{"again", "again-BATCH-again.many"}, partitions("again")...) {
			if lag, err := b.Lag(t.Context(), name); err != nil || lag != 0 {
				return false
			}
		}
		return true
	}
	until(t, "all is settled", settled)
	floors, err := c.Floors(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(floors) != 2+events.Partitions {
		t.Errorf("there are %d floors: %v", len(floors), floors)
	}
	later := send()
	until(t, "all is settled", settled)
	mu.Lock()
	got = nil
	mu.Unlock()
	if err := c.Rewind(t.Context(), floors); err != nil {
		t.Fatal(err)
	}
	until(t, "what came later, again", func() bool { return count() >= len(later) })
	never(t, "more than that", 300*time.Millisecond, func() bool { return count() > len(later) })
	mu.Lock()
	again := slices.Clone(got)
	mu.Unlock()
	at := make(map[string]int)
	for i, id := range again {
		at[id] = i
	}
	for i, id := range later {
		if _, came := at[id]; !came {
			t.Errorf("%s has not come again", id)
		}
		// Of a key, each fifth.
		if next := i + 3*5; i%3 == 1 && next < len(later) && at[later[next]] < at[id] {
			t.Errorf("%s came after one of its key that was sent later", id)
		}
	}
	until(t, "all is settled", settled)

	// It never goes forwards, over what nobody has handled: a position that the group has not
	// come to is of a stream that was made anew.
	if err := c.Rewind(t.Context(), map[string]uint64{"again": 1 << 40, "another": 0}); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	got = nil
	mu.Unlock()
	last := encode(t, message(t, single, thing{N: n}))
	publish(t, b.Driver, last...)
	until(t, "what comes after it", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return slices.Contains(got, last[0].ID)
	})
	if err := b.Driver.(events.Rewinder).Rewind(t.Context(), "unknown", 0); err != nil {
		t.Errorf("a subscription that is not: %v", err)
	}
	if floors, err := b.Driver.(events.Rewinder).Floors(t.Context(), []string{"unknown"}); err != nil || len(floors) != 0 {
		t.Errorf("a subscription that is not: %v, %v", floors, err)
	}
}

// testRewindToStart: a group that began at a time is rewound to before that, as one is of which
// nobody knows how far it had come when the database failed over.
func testRewindToStart(t *testing.T, b Broker) {
	r, can := b.Driver.(events.Rewinder)
	if !can || !b.Driver.Capabilities().Replay {
		t.Skipf("the driver %s cannot rewind, or not begin at a time", b.Driver.Capabilities().Name)
	}
	all := raws("begun", 8)
	before, after := all[:4], all[4:]
	publish(t, b.Driver, before...)
	const apart = 50 * time.Millisecond // of the clocks of the broker and of this process
	time.Sleep(apart)
	s := subscription("begun", 10, filter("begun"))
	s.StartAt, s.AckWait = time.Now(), patience
	time.Sleep(apart)
	var got tally
	begin(t, b.Driver, s, func(d events.Delivery) {
		got.add(d.Raw().ID)
		_ = d.Ack(context.Background())
	})
	settled := func() bool {
		lag, err := b.Lag(t.Context(), "begun")
		return err == nil && lag == 0
	}
	rewind := func() {
		t.Helper()
		until(t, "all is settled", settled)
		if err := r.Rewind(t.Context(), "begun", 0); err != nil {
			t.Fatal(err)
		}
	}
	rewind() // there is nothing since its beginning
	publish(t, b.Driver, after...)
	until(t, "what came since its beginning", func() bool { return got.different() == len(after) })
	rewind()
	until(t, "the same again", func() bool { return got.all() == 2*len(after) })
	never(t, "more than that", 300*time.Millisecond, func() bool { return got.all() != 2*len(after) })
	for _, raw := range after {
		if got.of(raw.ID) != 2 {
			t.Errorf("%s came %d times", raw.ID, got.of(raw.ID))
		}
	}
}

func partitions(group string) (names []string) {
	for p := range events.Partitions {
		names = append(names, fmt.Sprintf("%s-P%02d", group, p))
	}
	return names
}

func testLostCause(t *testing.T, b Broker) {
	typ := events.Define[thing]("caused", events.V1)
	var handled tally
	var asked tally
	consume(t, b.Driver, events.ConsumerConfig{Group: "caused", RetryDelay: func(int) time.Duration { return 0 }, Cause: func(_ context.Context, m *events.Message) error {
		switch {
		case m.Outbox == "1":
			return fmt.Errorf("row %s: %w", m.Outbox, events.ErrCauseLost)
		case m.Outbox == "2" && asked.add(m.ID) < 3:
			return context.DeadlineExceeded
		}
		return nil
	}}, func(c *events.Consumer) {
		events.Handle(c, typ, func(_ context.Context, e events.Event[thing]) error {
			handled.add(fmt.Sprint(e.Outbox, " ", e.Attempt))
			return nil
		})
	})
	var all []events.Message
	for seq := range int64(3) {
		m := message(t, typ, thing{N: int(seq)})
		m.Outbox = fmt.Sprint(seq)
		all = append(all, m)
	}
	publish(t, b.Driver, encode(t, all...)...)
	until(t, "two are handled", func() bool { return handled.all() == 2 })
	until(t, "a dead letter", func() bool { return len(letters(t, b)) > 0 })
	if handled.of("0 1") != 1 || handled.of("2 3") != 1 {
		t.Errorf("handled are %v", handled.names())
	}
	if l := letters(t, b); len(l) != 1 || l[0].Reason != events.ReasonLostCause || l[0].Raw.ID != all[1].ID || l[0].Attempts != 1 {
		t.Errorf("the letters are %+v", l)
	}
}
