package eventstest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/loadlinehq/loadline/events"
)

// RunFaults runs what needs [Broker.Control], one case after the other, and then the ledger
// for as long as it is told: random kills and pauses under load. Open is called for each case.
func RunFaults(t *testing.T, ledger time.Duration, open func(t *testing.T) Broker) {
	for _, c := range []struct {
		name string
		run  func(t *testing.T, b Broker)
	}{
		{"a broker that is gone fails publishers in time, and both go on when it is back", testKilled},
		{"a broker that hangs fails publishers in time, and both go on when it goes on", testPaused},
		{"connections on which nothing passes fail publishers in time", testStalled},
		{"the ledger is even", func(t *testing.T, b Broker) { testLedger(t, b, ledger) }},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, open(t)) })
	}
}

// inTime publishes what the broker cannot take, and sees to it that this is said in time.
func inTime(t *testing.T, d events.Driver, all []events.Raw) {
	t.Helper()
	const limit = 400 * time.Millisecond
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	began := time.Now()
	for i, err := range d.Publish(ctx, all) {
		if !errors.Is(err, events.ErrUnavailable) {
			t.Fatalf("message %d: %v", i, err)
		}
	}
	if took := time.Since(began); took > limit+3*time.Second {
		t.Errorf("it took %v, and had %v", took, limit)
	}
}

// through lets fault, which calls during while the broker cannot answer, run between a
// publisher and a subscriber that go on with what they have.
func through(t *testing.T, b Broker, name string, fault func(during func())) {
	var got tally
	s := subscription(name, 10, filter(name))
	begin(t, b.Driver, s, func(d events.Delivery) {
		got.add(d.Raw().ID)
		_ = d.Ack(context.Background()) // may fail
	})
	all := raws(name, 6)
	publish(t, b.Driver, all[0])
	until(t, "the first", func() bool { return got.of(all[0].ID) > 0 })
	fault(func() {
		inTime(t, b.Driver, all[1:3])
		keyed := []events.Raw{all[3], all[4]}
		keyed[0].Partition, keyed[1].Partition = 1, 1
		inTime(t, b.Driver, keyed)
		// So much that no buffer on the way takes it.
		large := raws(name+".large", 64)
		for i := range large {
			large[i].Body = make([]byte, 512<<10)
		}
		inTime(t, b.Driver, large)
		inTime(t, b.Driver, all[1:3]) // others are not held up by those
	})
	until(t, "the publisher goes on", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		return errors.Join(b.Driver.Publish(ctx, []events.Raw{all[1], all[2], all[5]})...) == nil
	})
	until(t, "the subscriber goes on", func() bool { return got.of(all[1].ID) > 0 && got.of(all[2].ID) > 0 && got.of(all[5].ID) > 0 })
}

func control(t *testing.T, what string, f func() error) {
	t.Helper()
	if f == nil {
		t.Skip("there is no control to " + what)
	}
	if err := f(); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

func testKilled(t *testing.T, b Broker) {
	through(t, b, "killed", func(during func()) {
		control(t, "kill", b.Control.Kill)
		defer control(t, "start", b.Control.Start) // or the next case fails, too
		during()
	})
}

func testPaused(t *testing.T, b Broker) {
	through(t, b, "paused", func(during func()) {
		control(t, "pause", b.Control.Pause)
		defer control(t, "resume", b.Control.Resume) // or the next case fails, too
		during()
	})
}

func testStalled(t *testing.T, b Broker) {
	through(t, b, "stalled", func(during func()) {
		control(t, "stall", b.Control.Stall)
		defer control(t, "flow", b.Control.Flow) // or the next case fails, too
		during()
	})
}
