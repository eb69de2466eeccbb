package inbox_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/loadlinehq/loadline/db"
	"github.com/loadlinehq/loadline/events"
	"github.com/loadlinehq/loadline/internal/migrate"
	"github.com/loadlinehq/loadline/internal/stack"
	"github.com/loadlinehq/loadline/internal/stack/stacktest"
	"github.com/loadlinehq/loadline/outbox"
)

// An event is handled long before a replica has what it tells of. What its handler reads by the
// context that it got shows it all the same, and replicas answer nearly all of that; without
// what the writer had seen, they show the past.
func TestHandlerSeesCause(t *testing.T) {
	t.Parallel()
	s := stacktest.Own(t, stack.Config{Replicas: 1, DisableSync: true})
	primary, replica := serverURLs(t, s)
	if _, err := migrate.Up(t.Context(), primary, migrate.Set{Name: "outbox", Files: outbox.Migrations}); err != nil {
		t.Fatal(err)
	}
	router, err := db.Open(t.Context(), db.Config{Primary: primary, Replicas: []string{replica}, Wait: 500 * time.Millisecond, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	defer router.Close()
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	defer func() { stop(); running.Wait() }()
	running.Go(func() { _ = router.Run(ctx) })
	if _, err := router.Write(t.Context()).Exec(t.Context(), "CREATE TABLE account (name text PRIMARY KEY, moves bigint NOT NULL DEFAULT 0)"); err != nil {
		t.Fatal(err)
	}
	if _, err := router.Write(t.Context()).Exec(t.Context(), "INSERT INTO account SELECT 'account-' || n FROM generate_series(1, 8) n"); err != nil {
		t.Fatal(err)
	}
	fault(t, s, stack.Fault{Service: "replica-1", Kind: stack.FaultLag, Delay: 30 * time.Millisecond})

	driver, err := broker(t.Context(), natsURL(t, s))
	if err != nil {
		t.Fatal(err)
	}
	defer driver.Close()
	r, err := outbox.NewRelay(outbox.RelayConfig{DSN: primary, Driver: driver, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	c, err := events.NewConsumer(driver, events.ConsumerConfig{Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	type seen struct{ reads, stale, replica atomic.Int64 }
	var guarded, unguarded seen
	look := func(ctx context.Context, e events.Event[moved], into *seen, options ...db.Option) error {
		var moves int64
		var replica bool
		err := router.Read(ctx, options...).QueryRow(ctx, "SELECT moves, pg_is_in_recovery() FROM account WHERE name = $1", e.Payload.Account).Scan(&moves, &replica)
		if err != nil {
			return err
		}
		into.reads.Add(1)
		if moves < e.KeyVersion {
			into.stale.Add(1)
		}
		if replica {
			into.replica.Add(1)
		}
		return nil
	}
	events.Handle(c, accountMoved, func(ctx context.Context, e events.Event[moved]) error {
		// Without, first: it has less time.
		if err := look(context.Background(), e, &unguarded, db.Any()); err != nil {
			return err
		}
		return look(ctx, e, &guarded)
	})
	running.Go(func() { _ = r.Run(ctx) })
	running.Go(func() { _ = c.Run(ctx) })

	const n = 300
	for range n {
		if _, err := moveOne(t.Context(), router, 8); err != nil {
			t.Fatal(err)
		}
		r.Wake()
		time.Sleep(5 * time.Millisecond)
	}
	eventually(t, "all are handled", func(context.Context) error {
		if reads := guarded.reads.Load(); reads < n {
			return fmt.Errorf("%d of %d", reads, n)
		}
		return nil
	})
	t.Logf("%d reads by the handler's context: %d stale, %d by the replica; %d without: %d stale",
		guarded.reads.Load(), guarded.stale.Load(), guarded.replica.Load(), unguarded.reads.Load(), unguarded.stale.Load())
	if guarded.stale.Load() != 0 {
		t.Errorf("%d handlers did not see their cause", guarded.stale.Load())
	}
	if guarded.replica.Load() < n/2 {
		t.Errorf("the replica answered %d of %d: nothing is shown by reading the primary", guarded.replica.Load(), n)
	}
	if unguarded.stale.Load() == 0 {
		t.Error("without what the writer had seen no read was stale: this test could not fail")
	}
}
