package db_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/loadlinehq/loadline/causal"
	"github.com/loadlinehq/loadline/db"
)

// A transaction that its user ends does what InTx does.
func TestBegin(t *testing.T) {
	t.Parallel()
	router := open(t, func(c *db.Config) { c.PrimaryPool = db.Pool{MaxConns: 2, QueueWait: 100 * time.Millisecond} })
	ctx := client(t)
	for i, end := range []func(pgx.Tx) error{
		func(tx pgx.Tx) error { return tx.Commit(ctx) },
		func(tx pgx.Tx) error { return tx.Rollback(ctx) },
		func(tx pgx.Tx) error { // a statement has failed
			_, _ = tx.Exec(ctx, "SELECT 1/0")
			if err := tx.Commit(ctx); !errors.Is(err, db.ErrRolledBack) {
				t.Errorf("commit of a failed transaction: %v", err)
			}
			return nil
		},
	} {
		for range 5 { // more than there are connections
			tx, err := router.Begin(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := tx.Exec(ctx, "INSERT INTO t VALUES ($1) ON CONFLICT (id) DO UPDATE SET n = t.n + 1", i); err != nil {
				t.Fatal(err)
			}
			if err := end(tx); err != nil {
				t.Error(err)
			}
			for _, over := range []error{tx.Commit(ctx), tx.Rollback(ctx)} {
				if !errors.Is(over, pgx.ErrTxClosed) {
					t.Errorf("ended twice: %v", over)
				}
			}
			if _, err := tx.Exec(ctx, "SELECT"); !errors.Is(err, pgx.ErrTxClosed) || tx.Conn() != nil {
				t.Errorf("after the end: %v", err)
			}
		}
	}
	var n int
	if err := router.Read(ctx).QueryRow(ctx, "SELECT sum(1 + n) FROM t").Scan(&n); err != nil || n != 5 {
		t.Errorf("%d, %v, want what was committed: 5", n, err)
	}

	// The session is that of the context which began it.
	tx, err := router.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	before, _, _ := causal.FromContext(ctx).Mark(system(t, router))
	if _, err := tx.Exec(ctx, "INSERT INTO t VALUES (100)"); err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(context.Background()); err != nil {
		t.Fatal(err)
	}
	if after, _, _ := causal.FromContext(ctx).Mark(system(t, router)); after.LSN <= before.LSN {
		t.Errorf("the session has seen %v, after a commit past %v", after, before)
	}
}

func system(t *testing.T, router *db.Router) (system uint64) {
	t.Helper()
	if err := router.Read(t.Context()).QueryRow(t.Context(), "SELECT system_identifier FROM pg_control_system()").Scan(&system); err != nil {
		t.Fatal(err)
	}
	return system
}

func TestBeginTxOptions(t *testing.T) {
	t.Parallel()
	router := open(t, func(c *db.Config) { c.Wait = 10 * time.Second })
	ctx := client(t)
	for _, test := range []struct {
		options         pgx.TxOptions
		level, readOnly string
	}{
		{pgx.TxOptions{}, "read committed", "off"},
		{pgx.TxOptions{IsoLevel: pgx.Serializable, DeferrableMode: pgx.NotDeferrable}, "serializable", "off"},
		{pgx.TxOptions{AccessMode: pgx.ReadOnly}, "read committed", "on"},
		{pgx.TxOptions{AccessMode: pgx.ReadOnly, IsoLevel: pgx.RepeatableRead}, "repeatable read", "on"},
	} {
		err := pgx.BeginTxFunc(ctx, router, test.options, func(tx pgx.Tx) error {
			var level, readOnly string
			var replica bool
			err := tx.QueryRow(ctx, "SELECT current_setting('transaction_isolation'), current_setting('transaction_read_only'), pg_is_in_recovery()").Scan(&level, &readOnly, &replica)
			if level != test.level || readOnly != test.readOnly || replica != (readOnly == "on") {
				t.Errorf("%+v: %s, read only: %s, on a replica: %t", test.options, level, readOnly, replica)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
	if _, err := router.BeginTx(ctx, pgx.TxOptions{BeginQuery: "begin"}); err == nil {
		t.Error("a BEGIN of the caller's own was taken")
	}

	// In a transaction it is a part of that.
	err := router.InTx(ctx, func(ctx context.Context, _ pgx.Tx) error {
		part, err := router.Begin(ctx)
		if err != nil {
			return err
		}
		if _, err := part.Exec(ctx, "INSERT INTO t VALUES (1)"); err != nil {
			return err
		}
		if err := part.Rollback(ctx); err != nil {
			return err
		}
		if _, err := router.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.Serializable}); err == nil {
			t.Error("a savepoint has an isolation level of its own")
		}
		_, err = router.Write(ctx).Exec(ctx, "INSERT INTO t VALUES (2)")
		return err
	})
	var n int
	if err := errors.Join(err, router.Read(ctx).QueryRow(ctx, "SELECT sum(id) FROM t").Scan(&n)); err != nil || n != 2 {
		t.Errorf("%d, %v", n, err)
	}
	err = router.ReadTx(ctx, func(ctx context.Context, _ pgx.Tx) error {
		if _, err := router.Begin(ctx); !errors.Is(err, db.ErrReadOnly) {
			t.Errorf("a write began in a read: %v", err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
