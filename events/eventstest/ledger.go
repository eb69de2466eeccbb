package eventstest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/loadlinehq/loadline/events"
)

const (
	ledgerWriters = 4
	ledgerKeys    = 6 // of each writer
	ledgerMembers = 3 // of each group
)

// ledger is what has been acknowledged, and what effects it had.
type ledger struct {
	mu           sync.Mutex
	acknowledged map[string]bool
	uncertain    int
	groups       map[string]*account
}

// account is that of a group.
type account struct {
	mu         sync.Mutex
	effects    map[string]bool // as an inbox has them
	last       map[string]int64
	inversions []string
	deliveries int
}

func (l *ledger) acknowledge(id string) {
	l.mu.Lock()
	l.acknowledged[id] = true
	l.mu.Unlock()
}

// effect is what a handler's transaction does: nothing where it was done before.
func (a *account) effect(e *events.Message) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.deliveries++
	if a.effects[e.ID] {
		return
	}
	a.effects[e.ID] = true
	if e.Key == "" {
		return
	}
	if last := a.last[e.Key]; e.KeyVersion != last+1 {
		a.inversions = append(a.inversions, fmt.Sprintf("%s: %d after %d", e.Key, e.KeyVersion, last))
	}
	a.last[e.Key] = max(a.last[e.Key], e.KeyVersion)
}

var (
	ledgerPlain = events.Define[thing]("ledger.plain", events.V1)
	ledgerKeyed = events.Define("ledger.keyed", events.V1, events.KeyedBy(func(p thing) string { return p.Name }))
)

// testLedger publishes as an outbox's relay does, each message until it is acknowledged and
// those of a key in their order, to two groups whose members die and leave and are replaced,
// while the broker is killed and paused. In the end what was acknowledged has had its effect in
// both groups, in the order of its key, and nothing is left.
func testLedger(t *testing.T, b Broker, length time.Duration) {
	if b.Control.Kill == nil || b.Control.Pause == nil {
		t.Skip("there is no control to kill and pause")
	}
	l := &ledger{acknowledged: make(map[string]bool), groups: make(map[string]*account)}
	began := time.Now()
	writing, stop := context.WithCancel(t.Context())
	defer stop()

	var writers, faults sync.WaitGroup
	for n := range ledgerWriters {
		d, _ := connect(t, b)
		writers.Go(func() { l.write(writing, t, d, n) })
	}
	type place struct {
		group string
		crash func()
		stop  func()
	}
	join := func(group string) *place {
		d, crash := connect(t, b)
		return &place{group, crash, l.consume(t, d, group)}
	}
	var places []*place
	for _, group := range []string{"ledger-a", "ledger-b"} {
		l.groups[group] = &account{effects: make(map[string]bool), last: make(map[string]int64)}
		for range ledgerMembers {
			places = append(places, join(group))
		}
	}
	// Each kind happens, however slow the machine is.
	more := func(n int) bool { return n < 2 || time.Since(began) < length }
	var kills, pauses, crashes, leaves atomic.Int64
	faults.Go(func() {
		for i := 0; more(i); i++ {
			if !sleep(writing, 300*time.Millisecond+rand.N(700*time.Millisecond)) {
				return
			}
			if i%2 == 0 {
				kills.Add(1)
				control(t, "kill", b.Control.Kill)
				sleep(writing, rand.N(500*time.Millisecond))
				control(t, "start", b.Control.Start)
			} else {
				pauses.Add(1)
				control(t, "pause", b.Control.Pause)
				sleep(writing, rand.N(1500*time.Millisecond))
				control(t, "resume", b.Control.Resume)
			}
		}
	})
	faults.Go(func() {
		for turn := 0; more(turn); turn++ {
			if !sleep(writing, 200*time.Millisecond+rand.N(600*time.Millisecond)) {
				return
			}
			i := rand.IntN(len(places))
			old := places[i]
			if turn%2 == 0 {
				crashes.Add(1)
				old.crash()
				go old.stop() // its handlers may still have effects, as those of a process that is cut off
			} else {
				leaves.Add(1)
				old.stop()
			}
			places[i] = join(old.group)
		}
	})
	faults.Wait()
	stop()
	writers.Wait()
	written := time.Now()

	ids := make([]string, 0, len(l.acknowledged))
	for id := range l.acknowledged {
		ids = append(ids, id)
	}
	for group, a := range l.groups {
		count := func() (lost []string) {
			a.mu.Lock()
			defer a.mu.Unlock()
			for _, id := range ids {
				if !a.effects[id] {
					lost = append(lost, id)
				}
			}
			return lost
		}
		var lost []string
		for limit := time.Now().Add(patience); time.Now().Before(limit); time.Sleep(20 * time.Millisecond) {
			if lost = count(); len(lost) == 0 {
				break
			}
		}
		if len(lost) > 0 {
			t.Errorf("%s: %d of %d acknowledged events have had no effect, such as %v", group, len(lost), len(ids), lost[:min(len(lost), 5)])
		}
		a.mu.Lock()
		if len(a.inversions) > 0 {
			t.Errorf("%s: %d inversions, such as %v", group, len(a.inversions), a.inversions[:min(len(a.inversions), 5)])
		}
		if len(a.effects) > len(ids)+l.uncertain {
			t.Errorf("%s: %d effects of %d events that were sent", group, len(a.effects), len(ids)+l.uncertain)
		}
		t.Logf("%s: %d acknowledged, %d effects, %d deliveries", group, len(ids), len(a.effects), a.deliveries)
		a.mu.Unlock()
		for _, name := range append(subscriptions(group), group) {
			until(t, "nothing is left to "+name, func() bool {
				lag, err := b.Lag(t.Context(), name)
				return err == nil && lag == 0
			})
		}
	}
	if dead := letters(t, b); len(dead) > 0 {
		t.Errorf("%d dead letters, such as %+v", len(dead), dead[0])
	}
	if len(ids) < 100 {
		t.Errorf("%d events are too few", len(ids))
	}
	t.Logf("even %v after the last was written, %v after the start", time.Since(written), time.Since(began))
	t.Logf("%d kills and %d pauses of the broker, %d members died, %d left", kills.Load(), pauses.Load(), crashes.Load(), leaves.Load())
}

func subscriptions(group string) (names []string) {
	for p := range events.Partitions {
		names = append(names, fmt.Sprintf("%s-P%02d", group, p))
	}
	return names
}

func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// write publishes batches until ctx is done, each message until it is acknowledged.
func (l *ledger) write(ctx context.Context, t *testing.T, d events.Driver, writer int) {
	versions := make([]int64, ledgerKeys)
	for n := 0; ctx.Err() == nil; n++ {
		var batch []events.Message
		for i := range 2 * ledgerKeys {
			key := i % ledgerKeys // each twice
			versions[key]++
			batch = append(batch,
				message(t, ledgerKeyed, thing{fmt.Sprintf("%d/%d", writer, key), n}, events.KeyVersion(versions[key])),
				message(t, ledgerPlain, thing{N: n}))
		}
		left := encode(t, batch...)
		for len(left) > 0 {
			// The last batch too is sent until it is acknowledged.
			if ctx.Err() != nil && !sleep(context.Background(), 10*time.Millisecond) {
				return
			}
			trying, cancel := context.WithTimeout(context.Background(), time.Second)
			errs := d.Publish(trying, left)
			cancel()
			var again []events.Raw
			for i, err := range errs {
				switch {
				case err == nil:
					l.acknowledge(left[i].ID)
				case errors.Is(err, events.ErrUnavailable):
					again = append(again, left[i])
				default:
					t.Errorf("%s: %v", left[i].ID, err)
				}
			}
			left = again
			if len(left) > 0 {
				sleep(context.Background(), 20*time.Millisecond)
			}
		}
	}
}

func (l *ledger) consume(t *testing.T, d events.Driver, group string) (stop func()) {
	a := l.groups[group]
	config := events.ConsumerConfig{Group: group, AckWait: time.Second, MaxDeliveries: 100, DrainTimeout: 2 * time.Second}
	handle := func(_ context.Context, e events.Event[thing]) error {
		if rand.IntN(50) == 0 {
			return errors.New("it fails now and then")
		}
		if rand.IntN(200) == 0 {
			time.Sleep(rand.N(200 * time.Millisecond))
		}
		a.effect(&e.Message)
		return nil
	}
	return consume(t, d, config, func(c *events.Consumer) {
		events.Handle(c, ledgerPlain, handle)
		events.Handle(c, ledgerKeyed, handle)
	})
}
