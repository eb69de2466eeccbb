package outbox_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/loadlinehq/loadline/causal"
	"github.com/loadlinehq/loadline/events"
	"github.com/loadlinehq/loadline/outbox"
)

func (d *database) partitions() []string {
	d.t.Helper()
	rows, _ := d.Query(context.Background(), `select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid
		where i.inhparent = 'loadline.outbox_sent'::regclass order by 1`)
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		d.t.Fatal(err)
	}
	return names
}

// Partitions are made ahead, old ones dropped with what is in them, and what has come while
// there was none is not lost.
func TestArchivePartitions(t *testing.T) {
	t.Parallel()
	d, b := open(t), &broker{}
	today := time.Now().UTC().Truncate(24 * time.Hour)
	name := func(days int) string { return today.AddDate(0, 0, days).Format("outbox_sent_20060102") }
	for _, days := range []int{-10, -4, -3} {
		d.exec(fmt.Sprintf("create table loadline.%s partition of loadline.outbox_sent for values from ('%s') to ('%s')", name(days),
			today.AddDate(0, 0, days).Format(time.RFC3339), today.AddDate(0, 0, days+1).Format(time.RFC3339)))
		d.exec(`insert into loadline.outbox_sent (seq, txid, id, created_at, occurred_at, key_version, shard, type, version, key, tenant, payload, sent_at)
			values (1, '1', gen_random_uuid(), now(), now(), 0, 0, 'a', 'v1', '', '', '{}', $1)`, today.AddDate(0, 0, days).Add(time.Hour))
	}
	relay(t, quick(d, b))
	d.add(event(t, "k", 1))
	published(t, b, 1)
	d.empty()
	want := []string{"outbox_sent_default", name(0), name(1), name(2), name(-3)}
	slices.Sort(want)
	within(t, 5*time.Second, func() error {
		if got := d.partitions(); !slices.Equal(got, want) {
			return fmt.Errorf("got %v, want %v", got, want)
		}
		return nil
	})
	if n := d.int("select count(*) from loadline." + name(0)); n != 1 {
		t.Errorf("%d rows of today", n)
	}
	if n := d.int("select count(*) from loadline.outbox_sent"); n != 2 {
		t.Errorf("%d rows in all", n)
	}
}

// A report that holds a lock on the archive does not hold up the relay.
func TestArchiveLocked(t *testing.T) {
	t.Parallel()
	d, b := open(t), &broker{}
	tx := beginOn(t, d.URL, "lock table loadline.outbox_sent_default in access share mode")
	defer func() { _ = tx.Rollback(context.Background()) }()
	_, stop := relay(t, quick(d, b))
	d.add(event(t, "k", 1))
	published(t, b, 1)
	d.empty()
	stop()
	if n := d.int("select count(*) from loadline.outbox_sent_default"); n != 1 {
		t.Fatalf("%d rows are in the default partition: this test could not fail", n)
	}
	// It heals: the next relay that can make the partitions moves the rows into them.
	if err := tx.Rollback(context.Background()); err != nil {
		t.Fatal(err)
	}
	relay(t, quick(d, b))
	within(t, 10*time.Second, func() error {
		if all := d.partitions(); len(all) != 4 {
			return fmt.Errorf("the partitions are %v", all)
		}
		return nil
	})
	if n, all := d.int("select count(*) from loadline.outbox_sent_default"), d.int("select count(*) from loadline.outbox_sent"); n != 0 || all != 1 {
		t.Errorf("%d rows are in the default partition, %d in all", n, all)
	}
}

func TestWithoutArchive(t *testing.T) {
	t.Parallel()
	d, b := open(t), &broker{}
	c := quick(d, b)
	c.Retention = -1
	relay(t, c)
	d.add(event(t, "k", 1))
	published(t, b, 1)
	d.empty()
	if n := d.int("select count(*) from loadline.outbox_sent"); n != 0 || len(d.partitions()) != 1 {
		t.Errorf("%d rows, partitions %v", n, d.partitions())
	}
}

// What was sent can be driven again: the same events, in their order, through a broker
// that fails now and then.
func TestRepublish(t *testing.T) {
	t.Parallel()
	d, b := open(t), &broker{}
	_, stop := relay(t, quick(d, b))
	for n := range int64(30) {
		d.add(event(t, "a", n+1), event(t, "b", n+1))
	}
	published(t, b, 60)
	d.empty()
	stop()
	since, until := time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	config := outbox.RepublishConfig{PerSecond: 10_000, Batch: 7, Source: "/test"}
	again := &broker{}
	dry := config
	dry.DryRun = true
	got, err := outbox.Republish(t.Context(), d.Pool, again, since, until, outbox.Filter{}, dry)
	if err != nil || got.Found != 60 || got.Published != 0 || len(again.all()) != 0 {
		t.Errorf("%+v, %v", got, err)
	}
	calls := 0
	again.does(func(_ context.Context, messages []events.Raw) []error {
		if calls++; calls%3 == 0 {
			return every(messages, events.ErrBackpressure)
		}
		return again.take(messages...)
	})
	got, err = outbox.Republish(t.Context(), d.Pool, again, since, until, outbox.Filter{}, config)
	if err != nil || got.Found != 60 || got.Published != 60 || got.Rejected != 0 {
		t.Errorf("%+v, %v", got, err)
	}
	first, second := b.all(), again.all()
	if len(second) != 60 {
		t.Fatalf("%d events", len(second))
	}
	for i := range second {
		if first[i].ID != second[i].ID || string(first[i].Body) != string(second[i].Body) {
			t.Fatalf("event %d is another", i)
		}
	}
	again = &broker{}
	if got, err = outbox.Republish(t.Context(), d.Pool, again, since, until, outbox.Filter{Keys: []string{"b"}, Types: []string{"thing.changed"}}, config); err != nil || got.Published != 30 {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err = outbox.Republish(t.Context(), d.Pool, again, since, until, outbox.Filter{Types: []string{"another"}}, config); err != nil || got.Found != 0 {
		t.Errorf("%+v, %v", got, err)
	}
	config.PerSecond = 50
	began := time.Now()
	if got, err = outbox.Republish(t.Context(), d.Pool, again, since, until, outbox.Filter{}, config); err != nil || got.Published != 60 {
		t.Errorf("%+v, %v", got, err)
	}
	if took := time.Since(began); took < 900*time.Millisecond { // 60 at 50 a second, the first 7 at once
		t.Errorf("it was not paced: %v", took)
	}
	again.does(func(_ context.Context, messages []events.Raw) []error { return every(messages, events.ErrUnavailable) })
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if got, err = outbox.Republish(ctx, d.Pool, again, since, until, outbox.Filter{}, config); !errors.Is(err, events.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) || got.Published != 0 {
		t.Errorf("%+v, %v", got, err)
	}
}

// The token that an event carries is past its writer's commit: it is past the position just
// before it, which is what a writer could have noted himself, and a replica that has replayed it shows the
// row.
func TestTokenIsPastTheCommit(t *testing.T) {
	t.Parallel()
	d, b := open(t), &broker{}
	replica := pool(t, d.ReplicaURLs[0])
	type check struct {
		id    int64
		token causal.Token
	}
	checks := make(chan check, 1000)
	b.does(func(_ context.Context, messages []events.Raw) []error {
		for _, raw := range messages {
			m, err := events.Decode(raw)
			if err != nil {
				t.Error(err)
			}
			checks <- check{m.KeyVersion, m.Token}
		}
		return b.take(messages...)
	})
	r, _ := relay(t, quick(d, b))
	var system int64
	if err := d.QueryRow(t.Context(), "select system_identifier from pg_control_system()").Scan(&system); err != nil {
		t.Fatal(err)
	}
	const count = 200
	var before sync.Map // of a row, the position when all but the commit was done
	go func() {
		for range count {
			_ = pgx.BeginFunc(context.Background(), d.Pool, func(tx pgx.Tx) error {
				var id int64
				if err := tx.QueryRow(context.Background(), "insert into work (text) values ('x') returning id").Scan(&id); err != nil {
					return err
				}
				if err := outbox.Add(context.Background(), tx, event(t, "k", id)); err != nil {
					return err
				}
				var text string
				err := tx.QueryRow(context.Background(), "select pg_current_wal_insert_lsn()::text").Scan(&text)
				lsn, err2 := causal.ParseLSN(text)
				before.Store(id, lsn)
				return errors.Join(err, err2)
			})
			r.Wake()
		}
	}()
	waits := 0
	for range count {
		c := <-checks
		mark, ok := c.token.Mark(uint64(system))
		if !ok || mark.Timeline == 0 {
			t.Fatalf("the token is %v", c.token)
		}
		if lsn, ok := before.Load(c.id); !ok || mark.LSN <= lsn.(causal.LSN) {
			t.Fatalf("the token says %v, and the commit came after %v", mark.LSN, lsn)
		}
		within(t, 10*time.Second, func() error {
			var there, row bool
			// The position is read before the row: the statement's snapshot is taken first, so two are needed.
			if err := replica.QueryRow(t.Context(), "select pg_last_wal_replay_lsn() >= $1::text::pg_lsn", mark.LSN.String()).Scan(&there); err != nil {
				t.Fatal(err)
			}
			if err := replica.QueryRow(t.Context(), "select exists (select from work where id = $1)", c.id).Scan(&row); err != nil {
				t.Fatal(err)
			}
			if there && !row {
				t.Fatalf("the replica is at %v, and has not got row %d", mark.LSN, c.id)
			}
			if !there {
				waits++
				return errors.New("the replica does not come so far")
			}
			return nil
		})
	}
	t.Logf("%d waits for the replica in %d reads", waits, count)
}
