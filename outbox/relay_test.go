package outbox_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/loadlinehq/loadline/events"
	"github.com/loadlinehq/loadline/outbox"
	"github.com/loadlinehq/loadline/tenancy"
)

// What is committed is published with all that it had, and archived; what is rolled back
// is not.
func TestPublishes(t *testing.T) {
	t.Parallel()
	d, b := open(t), &broker{}
	ctx, err := tenancy.With(t.Context(), "acme")
	if err != nil {
		t.Fatal(err)
	}
	var all []events.Message
	for n := range int64(3) {
		all = append(all, event(t, "a", n+1))
	}
	if err := pgx.BeginFunc(ctx, d.Pool, func(tx pgx.Tx) error { return outbox.Add(ctx, tx, all...) }); err != nil {
		t.Fatal(err)
	}
	rolledBack := errors.New("no")
	err = pgx.BeginFunc(ctx, d.Pool, func(tx pgx.Tx) error {
		if err := outbox.Add(ctx, tx, event(t, "a", 4)); err != nil {
			t.Error(err)
		}
		return rolledBack
	})
	if !errors.Is(err, rolledBack) {
		t.Fatal(err)
	}
	r, _ := relay(t, quick(d, b))
	published(t, b, 3)
	one, err := keyed.New(changed{"a", 4}, events.KeyVersion(4), events.IdempotencyKey("a-4"))
	if err != nil {
		t.Fatal(err)
	}
	d.add(one)
	r.Wake()
	published(t, b, 4)
	for i, raw := range b.all() {
		m, err := events.Decode(raw)
		if err != nil {
			t.Fatal(err)
		}
		if i == 3 {
			if m.Tenant != "" || m.IdempotencyKey != "a-4" {
				t.Errorf("got %+v", m)
			}
			continue
		}
		want := all[i]
		if m.ID != want.ID || m.Key != "a" || m.KeyVersion != want.KeyVersion || m.Tenant != "acme" || !m.Time.Equal(want.Time) ||
			string(m.Payload) != string(want.Payload) || m.IdempotencyKey != want.ID {
			t.Errorf("got %+v, want %+v", m, want)
		}
		if m.Token.IsZero() {
			t.Error("it has no token")
		}
	}
	d.empty()
	within(t, 5*time.Second, func() error {
		if n := d.int("select count(*) from loadline.outbox_sent"); n != 4 {
			return fmt.Errorf("%d rows are in the archive", n)
		}
		return nil
	})
}

// writers commit n events each, of shared keys, whose rows they lock first. Their transactions
// stay open for up to 3 ms, so they commit out of order.
func writers(t *testing.T, d *database, count, n, keys int, wake func()) (committed *atomic.Int64) {
	t.Helper()
	committed = new(atomic.Int64)
	for i := range keys {
		d.exec("insert into thing values ($1, 0)", fmt.Sprint("k", i))
	}
	var wait sync.WaitGroup
	for range count {
		wait.Go(func() {
			for range n {
				key := fmt.Sprint("k", rand.N(keys))
				err := pgx.BeginFunc(context.Background(), d.Pool, func(tx pgx.Tx) error {
					var version int64
					if err := tx.QueryRow(context.Background(), "update thing set n = n + 1 where key = $1 returning n", key).Scan(&version); err != nil {
						return err
					}
					if err := outbox.Add(context.Background(), tx, event(t, key, version)); err != nil {
						return err
					}
					time.Sleep(rand.N(3 * time.Millisecond))
					if rand.N(20) == 0 {
						return errRollback // a number that nobody will have
					}
					return nil
				})
				switch {
				case err == nil:
					committed.Add(1)
					wake()
				case !errors.Is(err, errRollback):
					t.Error(err)
					return
				}
			}
		})
	}
	wait.Wait()
	return committed
}

var errRollback = errors.New("rolled back")

// no_lost_event, and order per key, with writers that commit out of order.
func TestNothingLostInOrder(t *testing.T) {
	t.Parallel()
	d, b := open(t), &broker{}
	c := quick(d, b)
	c.Poll = time.Second // so that it is not the full scan that finds them
	r, _ := relay(t, c)
	committed := writers(t, d, 16, 150, 40, r.Wake)
	published(t, b, int(committed.Load()))
	if n := inversions(b.all()); n != 0 {
		t.Errorf("%d of %d events came before an earlier one of their key", n, committed.Load())
	}
	if got := len(b.all()); got != int(committed.Load()) {
		t.Errorf("%d were published, %d committed: duplicates without a fault", got, committed.Load())
	}
	d.empty()
}

// The same with a cursor, as most make it first, loses. This is why there is a tracker.
func TestNaiveCursorLoses(t *testing.T) {
	t.Parallel()
	d := open(t)
	ctx, stop := context.WithCancel(context.Background())
	seen := make(map[int64]bool)
	var wait sync.WaitGroup
	wait.Go(func() {
		last := int64(0)
		for ctx.Err() == nil {
			rows, _ := d.Query(context.Background(), "select seq from loadline.outbox where seq > $1 order by seq limit 500", last)
			seqs, err := pgx.CollectRows(rows, pgx.RowTo[int64])
			if err != nil {
				t.Error(err)
				return
			}
			for _, seq := range seqs {
				seen[seq], last = true, seq
			}
		}
	})
	committed := writers(t, d, 16, 150, 40, func() {})
	time.Sleep(50 * time.Millisecond)
	stop()
	wait.Wait()
	lost := committed.Load() - int64(len(seen))
	t.Logf("the cursor has lost %d of %d (%.0f %%)", lost, committed.Load(), 100*float64(lost)/float64(committed.Load()))
	if lost == 0 {
		t.Error("a cursor lost nothing: the writers of TestNothingLostInOrder prove nothing")
	}
}

// hints are those of a process, by a channel.
type hints struct {
	mu        sync.Mutex
	receivers []func()
}

func (h *hints) Send() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, f := range h.receivers {
		f()
	}
}

func (h *hints) Receive(ctx context.Context, f func()) error {
	h.mu.Lock()
	h.receivers = append(h.receivers, f)
	h.mu.Unlock()
	<-ctx.Done()
	return nil
}

// Who wakes a relay that stands by wakes the one that has the lease.
func TestHints(t *testing.T) {
	t.Parallel()
	d, b := open(t), &broker{}
	c := quick(d, b)
	c.Poll, c.LeaseTTL, c.Hints = 20*time.Second, time.Minute, &hints{}
	relay(t, c)
	d.add(event(t, "k", 1))
	within(t, 10*time.Second, func() error {
		if len(b.all()) == 0 {
			return errors.New("the first relay has not begun")
		}
		return nil
	})
	standby, _ := relay(t, c)
	time.Sleep(200 * time.Millisecond)
	d.add(event(t, "k", 2))
	within(t, 10*time.Second, func() error {
		standby.Wake() // it may not stand by yet
		if len(b.all()) < 2 {
			return errors.New("the relay with the lease was not woken")
		}
		return nil
	})
}
