package outbox_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/loadlinehq/loadline/events"
	"github.com/loadlinehq/loadline/outbox"
)

// What the server would refuse is refused before it is sent, and the transaction goes on.
func TestAddRefuses(t *testing.T) {
	t.Parallel()
	d := open(t)
	change := func(f func(*events.Message)) events.Message {
		m := event(t, "k", 1)
		f(&m)
		return m
	}
	for name, m := range map[string]events.Message{
		"no type":       change(func(m *events.Message) { m.Type = "" }),
		"id":            change(func(m *events.Message) { m.ID = "1" }),
		"id in capital": change(func(m *events.Message) { m.ID = strings.ToUpper(m.ID) }),
		"key":           change(func(m *events.Message) { m.Key = "a\x00b" }),
		"key's bytes":   change(func(m *events.Message) { m.Key = "\xff" }),
		"payload":       change(func(m *events.Message) { m.Payload = []byte("\"\xff\"") }),
		"no JSON":       change(func(m *events.Message) { m.Payload = []byte("{") }),
		"tracestate":    change(func(m *events.Message) { m.TraceParent, m.TraceState = "x", "\xff" }),
	} {
		err := pgx.BeginFunc(t.Context(), d.Pool, func(tx pgx.Tx) error {
			for _, messages := range [][]events.Message{{m}, {event(t, "k", 1), m}} {
				if err := outbox.Add(t.Context(), tx, messages...); !errors.Is(err, events.ErrMessage) {
					t.Errorf("%s: got %v", name, err)
				}
			}
			return outbox.Add(t.Context(), tx, event(t, "k", 1))
		})
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := outbox.Add(t.Context(), d.Pool, make([]events.Message, outbox.MaxMessages+1)...); err == nil {
		t.Error("too many were taken")
	}
	if err := outbox.Add(t.Context(), d.Pool); err != nil {
		t.Error(err)
	}
	if n := d.int("select count(*) from loadline.outbox"); n != 8 {
		t.Errorf("%d rows", n)
	}
}

// counting counts round trips, and what is in them.
type counting struct {
	outbox.Tx
	n, statements int
}

func (c *counting) SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults {
	c.n++
	c.statements += b.Len()
	return c.Tx.SendBatch(ctx, b)
}

// A full outbox refuses with a 503, the transaction goes on, and it takes events again when
// there is room. Looking costs no round trip.
func TestFull(t *testing.T) {
	t.Parallel()
	d, b := open(t), &broker{}
	box, err := outbox.New(outbox.Config{MaxBufferBytes: 64 << 10, RetryAfter: 7 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	payload := strings.Repeat("x", 1000)
	added := 0
	var full *outbox.FullError
	within(t, 10*time.Second, func() error {
		tx := &counting{Tx: d.Pool}
		m := event(t, payload[:200], int64(added+1))
		err := box.Add(t.Context(), tx, m)
		if errors.As(err, &full) {
			return nil
		}
		if err != nil {
			t.Fatal(err)
		}
		if tx.n != 1 {
			t.Fatalf("%d round trips", tx.n)
		}
		added++
		return fmt.Errorf("%d were added", added)
	})
	if !errors.Is(full, outbox.ErrFull) || full.HTTPStatus() != 503 || full.RetryAfter() != 7*time.Second || full.Bytes <= full.Max {
		t.Errorf("%+v", full)
	}
	err = pgx.BeginFunc(t.Context(), d.Pool, func(tx pgx.Tx) error {
		if err := box.Add(t.Context(), tx, event(t, "k", 1)); !errors.Is(err, outbox.ErrFull) {
			t.Errorf("got %v", err)
		}
		if err := box.Queue(t.Context(), new(pgx.Batch), event(t, "k", 1)); !errors.Is(err, outbox.ErrFull) {
			t.Errorf("got %v", err)
		}
		_, err := tx.Exec(t.Context(), "insert into work (text) values ('uncritical')")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := d.int("select count(*) from loadline.outbox"); got != int64(added) {
		t.Errorf("%d rows, and %d were added", got, added)
	}
	relay(t, quick(d, b))
	published(t, b, added)
	within(t, 10*time.Second, func() error { return box.Add(t.Context(), d.Pool, event(t, "k", 1)) })
}

// A cache that stays away fills the outbox too: what it must be told of is refused, and nothing of
// it is dropped. There is room as soon as it has taken them, whatever vacuum does.
func TestFullOfInvalidations(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.exec("alter table loadline.outbox_invalidation set (autovacuum_enabled = off)")
	box, err := outbox.New(outbox.Config{MaxBufferBytes: 64 << 10})
	if err != nil {
		t.Fatal(err)
	}
	invalidated := &cache{away: errors.New("away")}
	c := quick(d, &broker{})
	c.Invalidator = invalidated
	relay(t, c)
	added := 0
	record := func() []byte { return fmt.Appendf(nil, "%01000d", added) }
	within(t, 10*time.Second, func() error {
		err := box.AddInvalidation(t.Context(), d.Pool, record())
		if errors.Is(err, outbox.ErrFull) {
			return nil
		}
		if err != nil {
			t.Fatal(err)
		}
		added++
		return fmt.Errorf("%d were added", added)
	})
	if err := box.QueueInvalidation(new(pgx.Batch), record()); !errors.Is(err, outbox.ErrFull) {
		t.Errorf("got %v", err)
	}
	if err := box.Add(t.Context(), d.Pool, event(t, "k", 1)); !errors.Is(err, outbox.ErrFull) {
		t.Errorf("the disk is the same, and an event is taken: %v", err)
	}
	if err := outbox.AddInvalidation(t.Context(), d.Pool, record()); err != nil {
		t.Errorf("the function has no bound: %v", err)
	}
	invalidated.goes(nil)
	within(t, 30*time.Second, func() error {
		if applied, _ := invalidated.state(); len(applied) != added+1 {
			return fmt.Errorf("%d of %d were applied", len(applied), added+1)
		}
		return box.AddInvalidation(t.Context(), d.Pool, record())
	})
	if size := d.int("select pg_table_size('loadline.outbox_invalidation')"); size < 64<<10 {
		t.Errorf("the table has %d bytes, and this shows nothing", size)
	}
}

// Who does not ask for a bound has one all the same, at which the disk is safe.
// A shard that is no more does not make an empty table full.
func TestStaleShard(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.exec("alter table loadline.outbox set (autovacuum_enabled = off)")
	d.exec("insert into loadline.outbox (type, payload) select 'a.b', to_json(repeat('x', 300)) from generate_series(1, 2000)")
	d.exec("delete from loadline.outbox")
	d.exec(`insert into loadline.outbox_relay (shard, low_water, renewed_at) values (0, 2001, now()), (3, 1, now() - interval '2 hours')
		on conflict (shard) do update set low_water = excluded.low_water, renewed_at = excluded.renewed_at`)
	box, err := outbox.New(outbox.Config{MaxBufferBytes: 64 << 10})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 2 { // the first looks at the size, the second goes by it
		if err := box.Add(t.Context(), d.Pool, event(t, "k", int64(i+1))); err != nil {
			t.Errorf("an empty table is full: %v", err)
		}
	}
}

func TestBoundByDefault(t *testing.T) {
	t.Parallel()
	d := open(t)
	for max, want := range map[int64]bool{0: true, -1: false} {
		box, err := outbox.New(outbox.Config{MaxBufferBytes: max})
		if err != nil {
			t.Fatal(err)
		}
		asks := &counting{Tx: d.Pool}
		if err := box.Add(t.Context(), asks, event(t, "k", 1)); err != nil {
			t.Error(err)
		}
		if asked := asks.statements > 1; asked != want {
			t.Errorf("MaxBufferBytes %d: the size was asked for: %v", max, asked)
		}
	}
}

// Queued events cost the writer no round trip of their own.
func TestQueue(t *testing.T) {
	t.Parallel()
	d, b := open(t), &broker{}
	var batch pgx.Batch
	batch.Queue("insert into work (text) values ('a')")
	if err := errors.Join(outbox.Queue(t.Context(), &batch, event(t, "k", 1), event(t, "k", 2)), outbox.QueueInvalidation(&batch, []byte("k"))); err != nil {
		t.Fatal(err)
	}
	if err := d.SendBatch(t.Context(), &batch).Close(); err != nil {
		t.Fatal(err)
	}
	relay(t, quick(d, b))
	published(t, b, 2)
	if n := d.int("select count(*) from loadline.outbox_invalidation"); n != 1 {
		t.Errorf("%d invalidations: one without a cache must stay", n)
	}
}

func TestValidate(t *testing.T) {
	t.Parallel()
	good := outbox.RelayConfig{DSN: "x", Driver: &broker{}}
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*outbox.RelayConfig){
		"Driver":         func(c *outbox.RelayConfig) { c.Driver = nil },
		"Pool and DSN":   func(c *outbox.RelayConfig) { c.DSN = "" },
		"Shard":          func(c *outbox.RelayConfig) { c.Shard = 64 },
		"Invalidator":    func(c *outbox.RelayConfig) { c.Shard, c.Invalidator = 1, &cache{} },
		"Batch":          func(c *outbox.RelayConfig) { c.Batch = -1 },
		"LeaseTTL":       func(c *outbox.RelayConfig) { c.LeaseTTL = time.Second },
		"OnPoison":       func(c *outbox.RelayConfig) { c.OnPoison = "ignore" },
		"PublishTimeout": func(c *outbox.RelayConfig) { c.PublishTimeout = -1 },
	} {
		c := good
		change(&c)
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	for _, c := range []outbox.Config{{Shards: -1}, {Shards: 100}, {RetryAfter: -1}} {
		if _, err := outbox.New(c); err == nil {
			t.Errorf("%+v was taken", c)
		}
	}
}

// Two shards are two relays, and a key stays in its own.
func TestShards(t *testing.T) {
	t.Parallel()
	d := open(t)
	box, err := outbox.New(outbox.Config{Shards: 2})
	if err != nil {
		t.Fatal(err)
	}
	var brokers [2]broker
	for shard := range brokers {
		c := quick(d, &brokers[shard])
		c.Shard = shard
		relay(t, c)
	}
	for n := range int64(10) {
		for key := range 10 {
			if err := box.Add(t.Context(), d.Pool, event(t, fmt.Sprint(key), n+1)); err != nil {
				t.Fatal(err)
			}
		}
	}
	d.empty()
	seen := make(map[string]int)
	for shard := range brokers {
		got := brokers[shard].all()
		if len(got) == 0 || inversions(got) != 0 {
			t.Errorf("shard %d: %d events, %d out of order", shard, len(got), inversions(got))
		}
		for _, raw := range got {
			if in, was := seen[keyOf(raw)]; was && in != shard {
				t.Errorf("the key %s is in both", keyOf(raw))
			}
			seen[keyOf(raw)] = shard
		}
	}
	if len(seen) != 10 {
		t.Errorf("%d keys", len(seen))
	}
}
