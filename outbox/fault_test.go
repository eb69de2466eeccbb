package outbox_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/loadlinehq/loadline/events"
	"github.com/loadlinehq/loadline/internal/stack/faultproxy"
	"github.com/loadlinehq/loadline/internal/stack/stacktest"
	"github.com/loadlinehq/loadline/outbox"
)

const endRelay = "select count(pg_terminate_backend(pid)) from loadline.outbox_relay where pid <> 0"

// A relay that dies after the broker has acknowledged and before the database knows
// publishes twice, and loses nothing; nor does it change the order.
func TestRelayKilledBetweenPublishAndCommit(t *testing.T) {
	t.Parallel()
	d, b := open(t), &broker{}
	var kills, calls atomic.Int64
	b.does(func(_ context.Context, messages []events.Raw) []error {
		errs := b.take(messages...)
		if calls.Add(1)%3 == 0 && kills.Load() < 6 {
			kills.Add(d.int(endRelay))
		}
		return errs
	})
	r, _ := relay(t, quick(d, b))
	committed := writers(t, d, 8, 200, 20, r.Wake)
	published(t, b, int(committed.Load()))
	d.empty()
	duplicates := len(b.all()) - int(committed.Load())
	t.Logf("%d kills, %d duplicates of %d", kills.Load(), duplicates, committed.Load())
	if kills.Load() < 2 || duplicates == 0 {
		t.Errorf("%d kills, %d duplicates: nothing was broken", kills.Load(), duplicates)
	}
	if n := inversions(b.all()); n != 0 {
		t.Errorf("%d events came before an earlier one of their key", n)
	}
}

// A relay that hangs, with a publication on its way, is succeeded by another, which ends
// its backend. What the first still sends comes late, and twice, but not out of order; and it
// takes nothing more.
func TestHungRelayIsSucceeded(t *testing.T) {
	t.Parallel()
	d, b := open(t), &broker{}
	dsn, proxy := stacktest.Proxied(t, d.URL)
	hung, release := make(chan struct{}), make(chan struct{})
	free := sync.OnceFunc(func() { close(release) })
	defer free()
	var once sync.Once
	first := &broker{}
	first.does(func(_ context.Context, messages []events.Raw) []error {
		once.Do(func() { close(hung) })
		<-release // whatever its context says
		return b.take(messages...)
	})
	c := quick(d, first)
	c.Pool, c.DSN, c.Name = nil, dsn, "first"
	c.StatementTimeout, c.LeaseTTL = 500*time.Millisecond, time.Second
	relay(t, c)
	for n := range int64(5) {
		d.add(event(t, "k", n+1))
	}
	<-hung
	pid := d.int("select pid from loadline.outbox_relay")
	c = quick(d, b)
	c.Name = "second"
	c.StatementTimeout, c.LeaseTTL = 500*time.Millisecond, time.Second
	relay(t, c)
	if n := len(b.all()); n != 0 {
		t.Fatalf("two relays publish at once: %d events", n)
	}
	if err := proxy.Add("hang", faultproxy.Fault{Kind: faultproxy.Stall}); err != nil {
		t.Fatal(err)
	}
	published(t, b, 5)
	if n := d.int("select count(*) from pg_stat_activity where pid = $1", pid); n != 0 {
		t.Error("the successor has begun while the backend before it was there")
	}
	for n := range int64(5) {
		d.add(event(t, "k", n+6))
	}
	published(t, b, 10)
	free()
	within(t, 5*time.Second, func() error {
		if n := len(b.all()); n != 15 {
			return fmt.Errorf("%d publications, want 15 with the late ones", n)
		}
		return nil
	})
	if err := proxy.Remove("hang"); err != nil {
		t.Fatal(err)
	}
	for n := range int64(5) {
		d.add(event(t, "k", n+11))
	}
	published(t, b, 15)
	time.Sleep(300 * time.Millisecond)
	if n := len(b.all()); n != 20 {
		t.Errorf("%d publications, want 20", n)
	}
	if n := inversions(b.all()); n != 0 {
		t.Errorf("%d events came before an earlier one of their key", n)
	}
	s, err := outbox.ReadStats(t.Context(), d.Pool)
	if err != nil || len(s.Relays) != 1 || s.Relays[0].Holder != "second" || !s.Relays[0].Active {
		t.Errorf("%+v, %v", s, err)
	}
}

// One that is asked to end hands over at once, and loses nothing.
func TestHandover(t *testing.T) {
	t.Parallel()
	d, b := open(t), &broker{}
	c := quick(d, b)
	_, stop := relay(t, c)
	within(t, 5*time.Second, func() error {
		if d.int("select count(*) from loadline.outbox_relay where pid <> 0") == 0 {
			return errors.New("no relay")
		}
		return nil
	})
	r2, _ := relay(t, c)
	d.add(event(t, "k", 1))
	published(t, b, 1)
	stop()
	d.add(event(t, "k", 2))
	r2.Wake()
	published(t, b, 2)
	d.empty()
	if n := len(b.all()); n != 2 {
		t.Errorf("%d publications, want 2", n)
	}
}

// beginOn opens a transaction that has written, and leaves it open.
func beginOn(t *testing.T, url, sql string) pgx.Tx {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), sql); err != nil {
		t.Fatal(err)
	}
	return tx
}

// Writers that stay open, in another database, in this one, and with an event of their
// own, hold up nobody else.
func TestOpenWriterHoldsUpNobody(t *testing.T) {
	t.Parallel()
	d, b := open(t), &broker{}
	other := stacktest.Postgres(t, stacktest.Migrated(migrations))
	beginOn(t, other.URL, "insert into work (text) values ('a migration')")
	beginOn(t, d.URL, "insert into work (text) values ('a report')")
	own := beginOn(t, d.URL, "insert into thing values ('slow', 1)")
	if err := outbox.Add(t.Context(), own, event(t, "slow", 1)); err != nil {
		t.Fatal(err)
	}
	r, _ := relay(t, quick(d, b))
	for n := range int64(50) {
		d.add(event(t, "k", n+1))
	}
	r.Wake()
	published(t, b, 50)
	time.Sleep(300 * time.Millisecond) // several polls
	if err := own.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	d.add(event(t, "slow", 2))
	r.Wake()
	published(t, b, 52)
	if n := inversions(b.all()); n != 0 {
		t.Error("the late one came after its successor")
	}
}

// A broker that is away costs no attempt and no transaction, and is asked less and less
// often. All that has been added meanwhile comes when it is back.
func TestBrokerAway(t *testing.T) {
	t.Parallel()
	for name, away := range map[string]func(ctx context.Context, messages []events.Raw) []error{
		"refuses": func(_ context.Context, messages []events.Raw) []error { return every(messages, events.ErrUnavailable) },
		"full":    func(_ context.Context, messages []events.Raw) []error { return every(messages, events.ErrBackpressure) },
		"hangs": func(ctx context.Context, messages []events.Raw) []error {
			<-ctx.Done()
			return every(messages, fmt.Errorf("%w: %w", events.ErrUnavailable, ctx.Err()))
		},
		"answers nothing": func(context.Context, []events.Raw) []error { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d, b := open(t), &broker{}
			b.does(away)
			c := quick(d, b)
			c.MaxAttempts = 1
			r, _ := relay(t, c)
			began := time.Now()
			n := int64(0)
			for time.Since(began) < 2*time.Second {
				n++
				d.add(event(t, "k", n))
				r.Wake()
				if open := d.int(`select count(*) from pg_stat_activity where datname = current_database()
					and application_name = 'loadline outbox relay' and state <> 'active' and (xact_start is not null or backend_xmin is not null)`); open != 0 {
					t.Fatal("the relay holds a transaction open")
				}
				time.Sleep(10 * time.Millisecond)
			}
			b.mu.Lock()
			calls := b.calls
			b.mu.Unlock()
			if calls > 7 { // after 0, 0.1, 0.3, 0.7, 1.5 s
				t.Errorf("it was tried %d times in two seconds", calls)
			}
			if held := d.int("select (select count(*) from loadline.outbox_held) + (select count(*) from loadline.outbox_dead)"); held != 0 {
				t.Errorf("%d attempts were counted", held)
			}
			s, err := outbox.ReadStats(t.Context(), d.Pool)
			if err != nil || len(s.Relays) != 1 || s.Relays[0].Paused == "" || s.Oldest < time.Second || s.Depth < n-10 {
				t.Errorf("%+v, %v", s, err)
			}
			b.does(nil)
			published(t, b, int(n))
			d.empty()
			if inversions(b.all()) != 0 || len(b.all()) != int(n) {
				t.Errorf("%d of %d, %d out of order", len(b.all()), n, inversions(b.all()))
			}
		})
	}
}

// What the broker has stored of a batch is done, what it has not comes again, in order.
func TestPartialSuccess(t *testing.T) {
	t.Parallel()
	d, b := open(t), &broker{}
	once := make(map[string]bool) // each third fails once
	b.does(func(_ context.Context, messages []events.Raw) []error {
		errs := make([]error, len(messages))
		failed := make(map[string]bool)
		for i, m := range messages {
			if key := keyOf(m); failed[key] || versionOf(m)%3 == 0 && !once[m.ID] {
				once[m.ID], failed[key] = true, true // and all after it, as drivers do
				errs[i] = events.ErrUnavailable
				continue
			}
			b.take(m)
		}
		return errs
	})
	for n := range int64(20) {
		d.add(event(t, "a", n+1), event(t, "b", n+1), event(t, "c", n+1))
	}
	relay(t, quick(d, b))
	published(t, b, 60)
	d.empty()
	if len(b.all()) != 60 || inversions(b.all()) != 0 {
		t.Errorf("%d publications of 60, %d out of order", len(b.all()), inversions(b.all()))
	}
	if n := d.int("select count(*) from loadline.outbox_sent"); n != 60 {
		t.Errorf("%d rows are in the archive", n)
	}
}

// The same with new events all the time, and events that are rejected once.
func TestOrderThroughFailures(t *testing.T) {
	t.Parallel()
	d, b := open(t), &broker{}
	once := make(map[string]bool)
	b.does(func(_ context.Context, messages []events.Raw) []error {
		errs := make([]error, len(messages))
		failed := make(map[string]bool)
		for i, m := range messages {
			key := keyOf(m)
			switch {
			case failed[key]:
				errs[i] = events.ErrUnavailable
			case !once[m.ID] && rand.N(100) < 3:
				once[m.ID], failed[key] = true, true
				errs[i] = events.ErrRejected
				if rand.N(2) == 0 {
					errs[i] = events.ErrUnavailable
				}
			default:
				b.take(m)
			}
		}
		return errs
	})
	c := quick(d, b)
	c.Poll = 500 * time.Millisecond // so that few scans are from the start
	r, _ := relay(t, c)
	committed := writers(t, d, 8, 200, 10, r.Wake)
	published(t, b, int(committed.Load()))
	d.empty()
	if len(b.all()) != int(committed.Load()) || inversions(b.all()) != 0 || len(once) < 10 {
		t.Errorf("%d publications of %d, %d failures, %d out of order", len(b.all()), committed.Load(), len(once), inversions(b.all()))
	}
	if n := d.int("select count(*) from loadline.outbox_held"); n != 0 {
		t.Errorf("%d rows are held", n)
	}
}

// An event that the broker never takes goes to the dead, and its siblings are published;
// its key goes on without it, or waits.
func TestPoison(t *testing.T) {
	t.Parallel()
	for _, policy := range []outbox.Poison{outbox.Skip, outbox.Block} {
		t.Run(string(policy), func(t *testing.T) {
			t.Parallel()
			d, b := open(t), &broker{}
			tries := make(map[string]int)
			cured := false
			b.does(func(_ context.Context, messages []events.Raw) []error {
				b.mu.Lock()
				defer b.mu.Unlock()
				errs := make([]error, len(messages))
				failed := make(map[string]bool)
				for i, m := range messages {
					key := keyOf(m)
					switch {
					case failed[key]:
						errs[i] = events.ErrUnavailable
					case key == "bad" && versionOf(m) == 2 && !cured:
						failed[key] = true
						tries[m.ID]++
						errs[i] = fmt.Errorf("%w: too large", events.ErrRejected)
					default:
						b.got = append(b.got, m)
					}
				}
				return errs
			})
			c := quick(d, b)
			c.OnPoison = policy
			poison := event(t, "bad", 2)
			d.add(event(t, "bad", 1), poison, event(t, "bad", 3), event(t, "good", 1), event(t, "good", 2))
			d.add(event(t, "bad", 4), event(t, "good", 3))
			r, _ := relay(t, c)
			want := 4 // bad 1 and the good ones
			if policy == outbox.Skip {
				want += 2
			}
			within(t, 10*time.Second, func() error {
				if d.int("select count(*) from loadline.outbox_dead") != 1 {
					return errors.New("it is not dead")
				}
				return nil
			})
			published(t, b, want)
			d.add(event(t, "bad", 5), event(t, "good", 4))
			r.Wake()
			if want++; policy == outbox.Skip {
				want++
			}
			published(t, b, want)
			if tries[poison.ID] != 5 || len(tries) != 1 {
				t.Errorf("it was tried %v times", tries)
			}
			var reason, text string
			var attempts int
			err := d.QueryRow(t.Context(), "select reason, error, attempts from loadline.outbox_dead where id = $1", poison.ID).Scan(&reason, &text, &attempts)
			if err != nil || reason != "rejected" || attempts != 5 || text == "" {
				t.Errorf("%q, %q, %d, %v", reason, text, attempts, err)
			}
			if err := outbox.Revive(t.Context(), d.Pool, event(t, "x", 1).ID); !errors.Is(err, outbox.ErrNotDead) {
				t.Errorf("got %v", err)
			}
			b.mu.Lock()
			cured = true
			b.mu.Unlock()
			if err := outbox.Revive(t.Context(), d.Pool, poison.ID); err != nil {
				t.Fatal(err)
			}
			published(t, b, 9)
			d.empty()
			if n := d.int("select (select count(*) from loadline.outbox_held) + (select count(*) from loadline.outbox_dead)"); n != 0 {
				t.Errorf("%d rows are still held or dead", n)
			}
			out := inversions(b.all())
			if policy == outbox.Block && out != 0 || policy == outbox.Skip && out != 1 { // the one that was skipped
				t.Errorf("%d events came before an earlier one of their key", out)
			}
			if n := len(b.all()); n != 9 {
				t.Errorf("%d publications of 9", n)
			}
		})
	}
}

// A blocked key goes on when its dead event is discarded.
func TestDiscard(t *testing.T) {
	t.Parallel()
	d, b := open(t), &broker{}
	b.does(func(_ context.Context, messages []events.Raw) []error {
		errs := make([]error, len(messages))
		for i, m := range messages {
			if versionOf(m) == 1 {
				errs[i] = events.ErrRejected
			} else if slices.Contains(errs[:i], error(events.ErrRejected)) {
				errs[i] = events.ErrUnavailable
			} else {
				b.take(m)
			}
		}
		return errs
	})
	c := quick(d, b)
	c.OnPoison, c.MaxAttempts = outbox.Block, 1
	poison := event(t, "k", 1)
	d.add(poison, event(t, "k", 2))
	relay(t, c)
	within(t, 5*time.Second, func() error { return outbox.Discard(t.Context(), d.Pool, poison.ID) })
	published(t, b, 1)
	d.empty()
}

// What cannot be encoded, of a writer in another language, is dead as well.
func TestUnencodable(t *testing.T) {
	t.Parallel()
	d, b := open(t), &broker{}
	d.exec(`insert into loadline.outbox (type, payload) values ('Not A Type', '{}'), ('thing.changed', '{"n": 1}')`)
	relay(t, quick(d, b))
	published(t, b, 1)
	within(t, 10*time.Second, func() error {
		if d.int("select count(*) from loadline.outbox_dead where reason = 'unencodable' and attempts = 5") != 1 {
			return errors.New("it is not dead")
		}
		return nil
	})
	m, err := events.Decode(b.all()[0])
	if err != nil || m.Type != "thing.changed" || m.Version != "v1" || m.IdempotencyKey != m.ID || m.Key != "" || string(m.Payload) != `{"n":1}` {
		t.Errorf("%+v, %v", m, err)
	}
	d.empty()
}
