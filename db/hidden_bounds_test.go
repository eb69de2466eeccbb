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
	"github.com/loadlinehq/loadline/internal/stack/stacktest"
)

// An option of pgx's is taken by a read, or refused, but not now this and now that.
func TestHiddenOption(t *testing.T) {
	t.Parallel()
	d := stacktest.Postgres(t)
	router := run(t, db.Config{Primary: d.URL, Endpoints: []string{roundRobin(t, d.ReplicaURLs...)}}, nil)
	var ok, refused int
	for i := range 20 {
		ctx := client(t)
		if i%2 == 0 {
			if _, err := router.Write(ctx).Exec(ctx, "INSERT INTO t VALUES ($1)", i+1); err != nil {
				t.Fatal(err)
			}
		}
		var n int
		err := router.Read(ctx).QueryRow(ctx, "SELECT $1::int", pgx.QueryExecModeSimpleProtocol, 1).Scan(&n)
		if err == nil {
			ok++
		} else {
			refused++
			t.Log(err)
		}
	}
	if ok > 0 && refused > 0 {
		t.Errorf("%d taken, %d refused", ok, refused)
	}
}

// A savepoint that could not be rolled back is not committed with the rest.
func TestSavepointRollback(t *testing.T) {
	t.Parallel()
	router := open(t, nil)
	ctx := client(t)
	err := router.InTx(ctx, func(ctx context.Context, _ pgx.Tx) error {
		inner, cancel := context.WithCancel(ctx)
		_ = pgx.BeginFunc(inner, router, func(tx pgx.Tx) error {
			_, _ = tx.Exec(inner, "INSERT INTO t VALUES (77)")
			cancel()
			return errors.New("undo")
		})
		return nil
	})
	var n int
	if err := router.Write(ctx).QueryRow(ctx, "SELECT count(*) FROM t WHERE id = 77").Scan(&n); err != nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Error(err)
	}
	if n != 0 {
		t.Error("what was to be undone is committed")
	}
}

// What a server behind an endpoint does in vain is bounded by Wait, not by the query.
func TestHiddenSlow(t *testing.T) {
	t.Parallel()
	d := stacktest.Postgres(t)
	setup := run(t, db.Config{Primary: d.URL}, nil)
	m := newerSession(t, setup)
	m.Timeline--
	m.LSN += 1 << 40 // no replica comes there
	for name, config := range map[string]db.Config{
		"Replicas":  {Primary: d.URL, Replicas: d.ReplicaURLs},
		"Endpoints": {Primary: d.URL, Endpoints: []string{roundRobin(t, d.ReplicaURLs...)}},
	} {
		router, err := db.Open(t.Context(), config)
		if err != nil {
			t.Fatal(err)
		}
		rctx, stop := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		wg.Go(func() { _ = router.Run(rctx) })
		time.Sleep(400 * time.Millisecond)
		ctx := causal.WithSession(t.Context(), causal.NewSession(causal.NewToken(m)))
		began := time.Now()
		var replica bool
		err = router.Read(ctx).QueryRow(ctx, "SELECT pg_is_in_recovery() FROM pg_sleep(0.5)").Scan(&replica)
		took := time.Since(began)
		t.Logf("%s: replica %t after %v, %v", name, replica, took, err)
		if took > 1900*time.Millisecond { // four times in vain would be more
			t.Errorf("%s: a query of 0.5 s took %v with Wait of 20 ms", name, took)
		}
		stop()
		wg.Wait()
		router.Close()
	}
}
