package db_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/loadlinehq/loadline/causal"
	"github.com/loadlinehq/loadline/db"
	"github.com/loadlinehq/loadline/internal/stack"
)

// TestNoLostAck breaks no_lost_ack: the primary is killed under writers, and a replica
// promoted. Where the primary waits for both replicas, all that was acknowledged is there
// afterwards, and writers go on without a restart.
func TestNoLostAck(t *testing.T) {
	t.Parallel()
	s := ownStack(t)
	router := run(t, db.Config{Primary: s.DatabaseURL(), Replicas: s.ReplicaURLs()}, nil)
	conn, err := pgx.Connect(t.Context(), stack.SuperuserURL(service(t, s, "primary").Addr))
	if err != nil {
		t.Fatal(err)
	}
	for _, sql := range []string{"ALTER SYSTEM SET synchronous_standby_names = 'FIRST 2 (*)'", "SELECT pg_reload_conf()"} {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	within(t, 10*time.Second, func() error {
		var standbys int
		if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'").Scan(&standbys); err != nil || standbys == 2 {
			return err
		}
		return errors.New("the primary does not wait for two standbys")
	})
	_ = conn.Close(t.Context())

	ctx, stop := context.WithCancel(t.Context())
	var mu sync.Mutex
	acknowledged := make(map[int]bool)
	after, promoted := 0, false
	var wait sync.WaitGroup
	for writer := range 8 {
		wait.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				id := 1 + writer*1_000_000 + i
				call, cancel := context.WithTimeout(causal.WithSession(ctx, causal.NewSession(causal.Token{})), 2*time.Second)
				var err error
				if i%2 == 0 {
					_, err = router.Write(call).Exec(call, "INSERT INTO t VALUES ($1)", id)
				} else {
					err = router.InTx(call, func(ctx context.Context, tx pgx.Tx) error {
						_, err := tx.Exec(ctx, "INSERT INTO t VALUES ($1)", id)
						return err
					})
				}
				cancel()
				if err != nil {
					time.Sleep(5 * time.Millisecond)
					continue
				}
				mu.Lock()
				acknowledged[id] = true
				if promoted {
					after++
				}
				mu.Unlock()
			}
		})
	}
	time.Sleep(500 * time.Millisecond)
	fault(t, s, stack.Fault{Service: "replica-1", Kind: stack.FaultPromote})
	mu.Lock()
	promoted = true
	mu.Unlock()
	within(t, 20*time.Second, func() error {
		mu.Lock()
		defer mu.Unlock()
		if after < 50 {
			return errors.New("writers do not follow the failover")
		}
		return nil
	})
	stop()
	wait.Wait()

	rows, err := router.Read(t.Context(), db.Strong()).Query(t.Context(), "SELECT id FROM t")
	if err != nil {
		t.Fatal(err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[int])
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		delete(acknowledged, id)
	}
	if len(acknowledged) > 0 {
		t.Errorf("%d of %d acknowledged writes are gone", len(acknowledged), len(ids)+len(acknowledged))
	}
	t.Logf("%d rows, %d of them written after the failover", len(ids), after)
}
