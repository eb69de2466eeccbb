package outbox_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/loadlinehq/loadline/internal/stack"
	"github.com/loadlinehq/loadline/internal/stack/stacktest"
	"github.com/loadlinehq/loadline/outbox"
)

// own is a server of the test's own, which it may break, and whose commits wait for the
// disk.
func own(t testing.TB) (*database, *stack.Stack) {
	t.Helper()
	s := stacktest.Own(t, stack.Config{})
	d := &database{&stacktest.Database{URL: s.DatabaseURL()}, pool(t, s.DatabaseURL()), t}
	for _, name := range slices.Sorted(maps.Keys(migrations)) {
		up, _, _ := strings.Cut(string(migrations[name].Data), "-- +goose Down")
		d.exec(up)
	}
	return d, s
}

// The database restarts under writers and a relay: each event of a transaction that has
// committed is published, and none of one that has not.
func TestDatabaseRestarts(t *testing.T) {
	t.Parallel()
	d, s := own(t)
	b := &broker{}
	r, _ := relay(t, quick(d, b))
	ctx, stop := context.WithCancel(context.Background())
	var wait sync.WaitGroup
	for w := range 8 {
		wait.Go(func() {
			for n := int64(1); ctx.Err() == nil; n++ {
				m := event(t, fmt.Sprint("w", w), n)
				err := pgx.BeginFunc(ctx, d.Pool, func(tx pgx.Tx) error {
					_, err := tx.Exec(ctx, "insert into work (text) values ($1)", m.ID)
					return errors.Join(err, outbox.Add(ctx, tx, m))
				})
				if err != nil {
					time.Sleep(10 * time.Millisecond)
				}
				r.Wake()
			}
		})
	}
	for range 2 {
		time.Sleep(300 * time.Millisecond)
		f, err := s.AddFault(t.Context(), stack.Fault{Service: "primary", Kind: stack.FaultKill})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond)
		if err := s.RemoveFault(t.Context(), f.ID); err != nil {
			t.Fatal(err)
		}
		time.Sleep(500 * time.Millisecond)
	}
	stop()
	wait.Wait()
	within(t, 20*time.Second, func() error {
		var left int
		if err := d.QueryRow(context.Background(), "select count(*) from loadline.outbox").Scan(&left); err != nil {
			return err
		}
		if left != 0 {
			return fmt.Errorf("%d rows are in the outbox", left)
		}
		return nil
	})
	rows, _ := d.Query(context.Background(), "select text from work")
	committed, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	ids := b.ids()
	for _, id := range committed {
		if !ids[id] {
			t.Errorf("%s was committed and not published", id)
		}
		delete(ids, id)
	}
	for id := range ids {
		t.Errorf("%s was published and not committed", id)
	}
	if n := inversions(b.all()); n != 0 {
		t.Errorf("%d events came before an earlier one of their key", n)
	}
	t.Logf("%d committed, %d publications", len(committed), len(b.all()))
}

// Who has not migrated is told so, by whatever he calls first.
func TestMissingTables(t *testing.T) {
	t.Parallel()
	db := open(t).Pool
	if _, err := db.Exec(t.Context(), "drop schema loadline cascade"); err != nil {
		t.Fatal(err)
	}
	m := event(t, "a", 1)
	_, stats := outbox.ReadStats(t.Context(), db)
	for what, err := range map[string]error{"Add": outbox.Add(t.Context(), db, m), "AddInvalidation": outbox.AddInvalidation(t.Context(), db, []byte("a")), "ReadStats": stats} {
		if err == nil || !strings.Contains(err.Error(), "loadline migrate") {
			t.Errorf("%s: %v", what, err)
		}
	}
}
