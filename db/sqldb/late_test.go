package sqldb_test

import (
	"context"
	"database/sql"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/loadlinehq/loadline/db"
	"github.com/loadlinehq/loadline/db/sqldb"
	"github.com/loadlinehq/loadline/internal/stack/stacktest"
)

func both(t *testing.T) (*db.Router, *sql.DB) {
	d := stacktest.Postgres(t)
	router, err := db.Open(t.Context(), db.Config{Primary: d.URL, Replicas: d.ReplicaURLs, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wait sync.WaitGroup
	wait.Go(func() { _ = router.Run(ctx) })
	pool := sqldb.Open(router)
	t.Cleanup(func() { _ = pool.Close(); cancel(); wait.Wait(); router.Close() })
	define(t, pool, d, "CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL DEFAULT 0)")
	return router, pool
}

// A transaction within the router's would be ended by database/sql's goroutine.
func TestNestedIsRefused(t *testing.T) {
	t.Parallel()
	router, pool := both(t)
	ctx := client(t)
	err := router.InTx(ctx, func(ctx context.Context, _ pgx.Tx) error {
		if _, err := pool.BeginTx(ctx, nil); err == nil || !strings.Contains(err.Error(), "router's Begin") {
			t.Errorf("%v", err)
		}
		_, err := pool.ExecContext(ctx, "INSERT INTO t VALUES (1)") // in it
		if err != nil {
			return err
		}
		return errors.New("undo")
	})
	var n int
	if scanErr := pool.QueryRowContext(ctx, "SELECT count(*) FROM t").Scan(&n); err == nil || scanErr != nil || n != 0 {
		t.Errorf("%d rows, %v, %v", n, err, scanErr)
	}
}

// A replica has no serializable transactions.
func TestSerializableRead(t *testing.T) {
	t.Parallel()
	_, pool := both(t)
	for i := range 5 {
		ctx := client(t)
		tx, err := pool.BeginTx(ctx, &sql.TxOptions{ReadOnly: true, Isolation: sql.LevelSerializable})
		if err != nil {
			t.Errorf("%d: %v", i, err)
			continue
		}
		_ = tx.Rollback()
	}
}

func TestReadOnlyErrors(t *testing.T) {
	t.Parallel()
	router, pool := both(t)
	ctx := client(t)
	tx, err := pool.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	var id int
	err = tx.QueryRowContext(ctx, "INSERT INTO t VALUES (1) RETURNING id").Scan(&id)
	if !errors.Is(err, db.ErrReadOnly) {
		t.Errorf("QueryRow of a write in a read-only transaction: %v", err)
	}
	if err := tx.Commit(); err == nil {
		t.Errorf("Commit of a failed read-only transaction is nil")
	}
	p, err := router.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = p.Exec(ctx, "SELECT 1/0")
	err = p.Commit(ctx)
	if !errors.Is(err, pgx.ErrTxCommitRollback) {
		t.Errorf("Commit of a failed transaction: %v, pgx's is ErrTxCommitRollback", err)
	}
}

func TestLateFailures(t *testing.T) {
	t.Parallel()
	_, pool := both(t)
	ctx := client(t)
	// deferred constraint fails at COMMIT: QueryRow must report
	if _, err := pool.ExecContext(ctx, "CREATE TABLE c (id int REFERENCES t DEFERRABLE INITIALLY DEFERRED)"); err != nil {
		t.Fatal(err)
	}
	var id int
	if err := pool.QueryRowContext(ctx, "INSERT INTO c VALUES (99) RETURNING id").Scan(&id); err == nil {
		t.Error("QueryRow hides the failure of the commit")
	}
	rows, err := pool.QueryContext(ctx, "INSERT INTO c VALUES (99) RETURNING id")
	if err == nil {
		for rows.Next() {
		}
		if rows.Err() == nil {
			t.Error("Rows.Err hides the failure of the commit")
		}
	}
	conn, err := pool.Conn(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	stmt, err := conn.PrepareContext(ctx, "SELECT n FROM t WHERE id = $1")
	if err != nil {
		t.Fatal(err)
	}
	var n sql.NullInt64
	if err := stmt.QueryRowContext(ctx, 5).Scan(&n); !errors.Is(err, sql.ErrNoRows) {
		t.Error(err)
	}
	// multi-statement exec
	res, err := pool.ExecContext(ctx, "INSERT INTO t VALUES (1); INSERT INTO t VALUES (2), (3)")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := res.LastInsertId(); err == nil {
		t.Error("LastInsertId")
	}
}
