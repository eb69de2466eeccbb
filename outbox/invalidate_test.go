package outbox_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/loadlinehq/loadline/causal"
	"github.com/loadlinehq/loadline/events"
	"github.com/loadlinehq/loadline/outbox"
)

// cache is an Invalidator that keeps what it gets.
type cache struct {
	mu      sync.Mutex
	number  uint64
	applied map[string]uint64 // record to number
	fences  []causal.Mark
	drained causal.LSN
	ticks   []causal.LSN
	epochs  []uint64 // that ticks came with
	epoch   uint64   // that is open
	away    error
}

func (c *cache) Tick(_ context.Context, now causal.Mark) (epoch uint64, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.away == nil {
		c.ticks = append(c.ticks, now.LSN)
		c.epochs = append(c.epochs, now.Epoch)
	}
	return c.epoch, c.away
}

func (c *cache) Apply(_ context.Context, fence causal.Mark, records [][]byte) (causal.Mark, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.away != nil {
		return causal.Mark{}, c.away
	}
	if c.applied == nil {
		c.applied = make(map[string]uint64)
	}
	for _, record := range records {
		c.number++
		c.applied[string(record)] = c.number
	}
	c.fences = append(c.fences, fence)
	fence.Epoch, fence.Number = c.epoch, c.number
	return fence, nil
}

func (c *cache) Drained(_ context.Context, upTo causal.Mark) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.away != nil {
		return c.away
	}
	c.drained = max(c.drained, upTo.LSN)
	return nil
}

func (c *cache) state() (applied map[string]uint64, drained causal.LSN) {
	c.mu.Lock()
	defer c.mu.Unlock()
	applied = make(map[string]uint64, len(c.applied))
	for record, n := range c.applied {
		applied[record] = n
	}
	return applied, c.drained
}

func (c *cache) beats() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.ticks)
}

func (c *cache) goes(away error) {
	c.mu.Lock()
	c.away = away
	c.mu.Unlock()
}

// changeThing commits an event and its invalidation, and returns a position past the commit.
func (d *database) changeThing(key string, n int64) causal.LSN {
	d.t.Helper()
	err := pgx.BeginFunc(context.Background(), d.Pool, func(tx pgx.Tx) error {
		return errors.Join(outbox.Add(context.Background(), tx, event(d.t, key, n)),
			outbox.AddInvalidation(context.Background(), tx, fmt.Appendf(nil, "%s-%d", key, n)))
	})
	if err != nil {
		d.t.Fatal(err)
	}
	return d.flushed()
}

func (d *database) flushed() causal.LSN {
	d.t.Helper()
	var text string
	if err := d.QueryRow(context.Background(), "select pg_current_wal_flush_lsn()::text").Scan(&text); err != nil {
		d.t.Fatal(err)
	}
	lsn, err := causal.ParseLSN(text)
	if err != nil {
		d.t.Fatal(err)
	}
	return lsn
}

func (c *cache) drainedTo(t *testing.T, lsn causal.LSN) {
	t.Helper()
	within(t, 10*time.Second, func() error {
		if _, drained := c.state(); drained < lsn {
			return fmt.Errorf("drained to %v, not %v", drained, lsn)
		}
		return nil
	})
}

// The invalidations of a transaction are applied before its events are published, with a
// fence past its commit, and the events carry their number.
func TestInvalidationsComeFirst(t *testing.T) {
	t.Parallel()
	d, b, inv := open(t), &broker{}, &cache{epoch: 7}
	b.does(func(_ context.Context, messages []events.Raw) []error {
		applied, _ := inv.state()
		for _, raw := range messages {
			record := fmt.Sprintf("%s-%d", keyOf(raw), versionOf(raw))
			number, ok := applied[record]
			if !ok {
				t.Errorf("%s is published before its invalidation", record)
			}
			m, err := events.Decode(raw)
			if err != nil {
				t.Error(err)
			}
			for mark := range m.Token.Marks() {
				if mark.Epoch != 7 || mark.Number < number {
					t.Errorf("the event's mark is %+v, its invalidation has number %d", mark, number)
				}
			}
		}
		return b.take(messages...)
	})
	c := quick(d, b)
	c.Invalidator = inv
	r, _ := relay(t, c)
	var wait sync.WaitGroup
	for w := range 8 {
		wait.Go(func() {
			for n := range int64(40) {
				d.changeThing(fmt.Sprint("k", w), n+1)
				r.Wake()
			}
		})
	}
	wait.Wait()
	published(t, b, 320)
	inv.drainedTo(t, d.flushed())
	within(t, 5*time.Second, func() error {
		if n := d.int("select count(*) from loadline.outbox_invalidation"); n != 0 {
			return fmt.Errorf("%d are left", n)
		}
		return nil
	})
	if applied, _ := inv.state(); len(applied) != 320 {
		t.Errorf("%d were applied", len(applied))
	}
}

// While the cache is away events are published without a number, and invalidations stay;
// nothing is drained before they have been applied.
func TestCacheAway(t *testing.T) {
	t.Parallel()
	d, b, inv := open(t), &broker{}, &cache{epoch: 7}
	c := quick(d, b)
	c.Invalidator = inv
	relay(t, c)
	inv.drainedTo(t, d.changeThing("k", 1))
	inv.goes(errors.New("away"))
	lsn := d.changeThing("k", 2)
	published(t, b, 2)
	m, err := events.Decode(b.all()[1])
	if err != nil {
		t.Fatal(err)
	}
	for mark := range m.Token.Marks() {
		if mark.Number != 0 || mark.LSN == 0 {
			t.Errorf("without a cache the mark is %+v", mark)
		}
	}
	time.Sleep(500 * time.Millisecond) // ten polls
	if _, drained := inv.state(); drained >= lsn {
		t.Error("it is said to be drained, and nothing was applied")
	}
	if n := d.int("select count(*) from loadline.outbox_invalidation"); n != 1 {
		t.Errorf("%d invalidations are held", n)
	}
	inv.goes(nil)
	inv.drainedTo(t, lsn)
	if applied, _ := inv.state(); applied["k-2"] == 0 {
		t.Error("drained without having been applied")
	}
}

// While the broker is away, invalidations go on, also while a call to it hangs.
func TestInvalidationsWithoutBroker(t *testing.T) {
	t.Parallel()
	d, b, inv := open(t), &broker{}, &cache{epoch: 7}
	b.does(func(ctx context.Context, messages []events.Raw) []error {
		<-ctx.Done()
		return every(messages, events.ErrUnavailable)
	})
	c := quick(d, b)
	c.Invalidator = inv
	r, _ := relay(t, c)
	d.changeThing("k", 1)
	for n := range int64(10) {
		lsn := d.changeThing("k", n+2)
		r.Wake()
		began := time.Now()
		within(t, 5*time.Second, func() error {
			if applied, _ := inv.state(); applied[fmt.Sprintf("k-%d", n+2)] == 0 {
				return errors.New("not applied")
			}
			return nil
		})
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("it was applied after %v", took)
		}
		inv.drainedTo(t, lsn)
	}
	if n := len(b.all()); n != 0 {
		t.Errorf("%d events were published", n)
	}
	b.does(nil)
	published(t, b, 11)
}

// D must not pass a commit whose invalidation could not be seen when the position was
// read. A transaction that is open with an invalidation holds D back; any other does not.
func TestDrainedWaitsForOpenWriters(t *testing.T) {
	t.Parallel()
	d, b, inv := open(t), &broker{}, &cache{epoch: 7}
	c := quick(d, b)
	c.Invalidator = inv
	relay(t, c)
	beginOn(t, d.URL, "insert into work (text) values ('without an invalidation')")
	inv.drainedTo(t, d.changeThing("k", 1))

	tx := beginOn(t, d.URL, "insert into work (text) values ('x')")
	if err := outbox.AddInvalidation(t.Context(), tx, []byte("late")); err != nil {
		t.Fatal(err)
	}
	time.Sleep(200 * time.Millisecond) // rounds that began before it have ended
	_, before := inv.state()
	beats := inv.beats()
	d.changeThing("k", 2)
	time.Sleep(500 * time.Millisecond)
	if n := inv.beats() - beats; n < 2 {
		t.Errorf("it was told %d times that the relay is there, while a transaction is open", n)
	}
	if _, after := inv.state(); after != before {
		t.Errorf("D went from %v to %v past a transaction that is open", before, after)
	}
	if applied, _ := inv.state(); applied["k-2"] == 0 {
		t.Error("an open transaction holds up other invalidations")
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	inv.drainedTo(t, d.flushed())
	if applied, _ := inv.state(); applied["late"] == 0 {
		t.Error("D passed it before it was applied")
	}
}

// At each moment: whatever D has passed has been applied. Writers note where they have
// committed; the check is made when D is announced.
func TestDrainedNeverPassesUnapplied(t *testing.T) {
	t.Parallel()
	d, b, inv := open(t), &broker{}, &cache{epoch: 7}
	c := quick(d, b)
	c.Invalidator, c.Poll = inv, 5*time.Millisecond
	r, _ := relay(t, c)
	type commit struct {
		record string
		lsn    causal.LSN
	}
	var mu sync.Mutex
	var commits []commit
	var wait sync.WaitGroup
	checks := 0
	done := make(chan struct{})
	check := func() {
		mu.Lock() // first what has committed, then D: what comes between is not checked
		all := commits
		mu.Unlock()
		applied, drained := inv.state()
		for _, c := range all {
			if c.lsn <= drained {
				checks++
				if applied[c.record] == 0 {
					t.Errorf("D is %v, and %s at %v was not applied", drained, c.record, c.lsn)
				}
			}
		}
	}
	for w := range 8 {
		wait.Go(func() {
			for n := range int64(60) {
				lsn := d.changeThing(fmt.Sprint("w", w), n+1)
				mu.Lock()
				commits = append(commits, commit{fmt.Sprintf("w%d-%d", w, n+1), lsn})
				mu.Unlock()
				if n%7 == 0 {
					r.Wake()
				}
			}
		})
	}
	go func() { wait.Wait(); close(done) }()
	for running := true; running; {
		select {
		case <-done:
			running = false
		case <-time.After(5 * time.Millisecond):
			check()
		}
	}
	inv.drainedTo(t, d.flushed())
	check()
	if checks < 480 {
		t.Errorf("%d checks: D did not move", checks)
	}
}

// What was deleted was applied in an epoch, which the next relay is told; also one that the cache has opened
// while nothing was to be applied.
func TestSuccessorIsToldTheEpoch(t *testing.T) {
	t.Parallel()
	d, b := open(t), &broker{}
	lead := func(inv *cache, during func()) {
		c := quick(d, b)
		c.Invalidator = inv
		_, stop := relay(t, c)
		inv.drainedTo(t, d.flushed())
		during()
		stop()
	}
	const huge = 1<<64 - 7 // an epoch may be any number
	first := &cache{epoch: huge}
	lead(first, func() {
		inv := d.changeThing("k", 1)
		first.drainedTo(t, inv)
		within(t, 5*time.Second, func() error {
			if n := d.int("select count(*) from loadline.outbox_invalidation"); n != 0 {
				return fmt.Errorf("%d are left", n)
			}
			return nil
		})
	})
	if got := first.epochs[0]; got != 0 {
		t.Errorf("the first relay is told the epoch %d, and there was none", got)
	}
	second := &cache{epoch: 8}
	lead(second, func() {
		beats := second.beats()
		within(t, 5*time.Second, func() error {
			if second.beats() < beats+3 {
				return errors.New("no tick")
			}
			return nil
		})
	})
	if got := second.epochs[0]; got != huge {
		t.Errorf("the second relay is told the epoch %d", got)
	}
	third := &cache{epoch: 8}
	lead(third, func() {})
	if got := third.epochs[0]; got != 8 {
		t.Errorf("the third relay is told the epoch %d, and 8 was opened without an invalidation", got)
	}
}

// What is deleted was applied in the epoch that the row says, at every moment: not only from the next renewal on.
func TestEpochIsWrittenWithTheDeletion(t *testing.T) {
	t.Parallel()
	d, b, inv := open(t), &broker{}, &cache{epoch: 1}
	c := quick(d, b)
	c.Invalidator, c.Poll = inv, time.Second
	r, _ := relay(t, c)
	for n := range uint64(20) {
		inv.mu.Lock()
		inv.epoch = n + 2 // opened since the last tick
		inv.mu.Unlock()
		d.changeThing("k", int64(n))
		r.Wake()
		within(t, 5*time.Second, func() error {
			var left, epoch int64
			const sql = "select (select count(*) from loadline.outbox_invalidation), cache_epoch from loadline.outbox_relay"
			if err := d.QueryRow(t.Context(), sql).Scan(&left, &epoch); err != nil {
				return err
			}
			if left != 0 {
				return errors.New("it waits")
			}
			if epoch != int64(n+2) {
				t.Errorf("what was applied in epoch %d is deleted, and the row says %d", n+2, epoch)
			}
			return nil
		})
	}
}
