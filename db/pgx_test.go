package db_test

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/loadlinehq/loadline/causal"
	"github.com/loadlinehq/loadline/db"
	"github.com/loadlinehq/loadline/internal/stack/stacktest"
)

// Nothing is committed of which a part has panicked.
func TestJoinedPanic(t *testing.T) {
	t.Parallel()
	router := open(t, nil)
	err := router.InTx(t.Context(), func(ctx context.Context, tx pgx.Tx) error {
		func() {
			defer func() { _ = recover() }()
			_ = router.InTx(ctx, func(ctx context.Context, tx pgx.Tx) error {
				_, _ = tx.Exec(ctx, "INSERT INTO t VALUES (77)")
				panic("joined")
			})
		}()
		return nil
	})
	var n int
	_ = router.Read(t.Context()).QueryRow(t.Context(), "SELECT count(*) FROM t WHERE id = 77").Scan(&n)
	if err == nil || n != 0 {
		t.Errorf("err %v, rows %d: a function that joined has panicked, and its half was committed", err, n)
	}
}

// Credentials that are made for each connection are made for the one that watches, too.
func TestBeforeConnect(t *testing.T) {
	t.Parallel()
	d := stacktest.Postgres(t)
	u, _ := url.Parse(d.URL)
	user := u.User.Username()
	u.User = url.User("nobody_by_this_name")
	router, err := db.Open(t.Context(), db.Config{Primary: u.String(), Configure: func(c *pgxpool.Config) {
		c.BeforeConnect = func(_ context.Context, cc *pgx.ConnConfig) error { cc.User = user; return nil }
	}})
	if err != nil {
		t.Errorf("BeforeConnect is not called for the watching connection: %v", err)
		return
	}
	router.Close()
}

// What pgx takes as a first argument works in reads; writes say what they cannot take.
func TestPgxOptions(t *testing.T) {
	t.Parallel()
	router := open(t, nil)
	ctx := t.Context()
	for name, option := range map[string]any{
		"exec mode": pgx.QueryExecModeExec, "simple": pgx.QueryExecModeSimpleProtocol, "formats": pgx.QueryResultFormats{pgx.TextFormatCode},
	} {
		if _, err := router.Read(ctx).Exec(ctx, "SELECT 1 + $1::int", option, 5); err != nil {
			t.Errorf("read, %s: %v", name, err)
		}
		if _, err := router.Write(ctx).Exec(ctx, "INSERT INTO t VALUES ($1)", option, 5); err == nil || !strings.Contains(err.Error(), "only for reads") {
			t.Errorf("write, %s: %v", name, err)
		}
		err := router.InTx(ctx, func(ctx context.Context, tx pgx.Tx) error {
			rows, err := tx.Query(ctx, "INSERT INTO t VALUES ($1) ON CONFLICT DO NOTHING", option, 5)
			rows.Close()
			return errors.Join(err, rows.Err())
		})
		if err != nil {
			t.Errorf("in a transaction, %s: %v", name, err)
		}
	}
	named := pgx.NamedArgs{"id": 8}
	_, err := router.Write(ctx).Exec(ctx, "INSERT INTO t VALUES (@id)", named)
	var id int
	if err := errors.Join(err, router.Read(ctx).QueryRow(ctx, "SELECT id FROM t WHERE id = @id", named).Scan(&id)); err != nil || id != 8 {
		t.Errorf("named: %d, %v", id, err)
	}
}

// All of pgx's ways to run statements can be used.
func TestModes(t *testing.T) {
	t.Parallel()
	d := stacktest.Postgres(t)
	for i, mode := range []pgx.QueryExecMode{pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeDescribeExec, pgx.QueryExecModeCacheDescribe} {
		router := run(t, db.Config{Primary: d.URL, Replicas: d.ReplicaURLs}, func(c *db.Config) {
			c.Configure = func(c *pgxpool.Config) { c.ConnConfig.DefaultQueryExecMode = mode }
		})
		ctx := client(t)
		var id int
		if err := router.Write(ctx).QueryRow(ctx, "INSERT INTO t VALUES ($1) RETURNING id -- c", 100+i).Scan(&id); err != nil {
			t.Errorf("%v: %v", mode, err)
		}
		if err := router.Read(ctx).QueryRow(ctx, "SELECT id FROM t WHERE id = $1 -- c", 100+i).Scan(&id); err != nil {
			t.Errorf("%v: read: %v", mode, err)
		}
		if _, err := router.Write(ctx).Exec(ctx, "INSERT INTO t VALUES ($1)", 100+i); code("23505")(err) == false {
			t.Errorf("%v: duplicate: %v", mode, err)
		}
		if err := router.Write(ctx).QueryRow(ctx, "INSERT INTO t VALUES ($1) RETURNING id", 100+i).Scan(&id); code("23505")(err) == false {
			t.Errorf("%v: duplicate row: %v", mode, err)
		}
		if _, err := router.Write(ctx).Exec(ctx, "INSERT INTO nothere VALUES ($1)", 100+i); code("42P01")(err) == false {
			t.Errorf("%v: no table: %v", mode, err)
		}
	}
}

// A transaction that has not begun, begins on another connection.
func TestBeginOnDeadConnection(t *testing.T) {
	t.Parallel()
	d := stacktest.Postgres(t)
	dsn, proxy := tampered(t, d.URL)
	router := run(t, db.Config{Primary: dsn}, nil)
	bad := 0
	for i := range 20 {
		if _, err := router.Read(t.Context()).Exec(t.Context(), "SELECT 1"); err != nil {
			t.Fatal(err)
		}
		proxy.cutAll()
		err := router.InTx(t.Context(), func(ctx context.Context, tx pgx.Tx) error {
			_, err := tx.Exec(ctx, "INSERT INTO t VALUES ($1)", i)
			return err
		})
		if err != nil {
			if bad++; bad == 1 {
				t.Errorf("BEGIN found a dead connection: %v; retryable: %t", err, db.Retryable(err))
			}
		}
		within(t, 5*time.Second, func() error {
			_, err := router.Read(t.Context()).Exec(t.Context(), "SELECT 1")
			return err
		})
	}
	t.Logf("%d of 20", bad)
}

// Results beyond the caller's statements are not his.
func TestExtraExec(t *testing.T) {
	t.Parallel()
	router := open(t, nil)
	ctx := client(t)
	b := new(pgx.Batch)
	b.Queue("INSERT INTO t VALUES ($1)", 1)
	br := router.Write(ctx).SendBatch(ctx, b)
	n := 0
	for ; n < 10; n++ { // until there is none
		if _, err := br.Exec(); err != nil {
			break
		}
	}
	err := br.Close()
	var rows int
	_ = router.Read(t.Context()).QueryRow(t.Context(), "SELECT count(*) FROM t WHERE id = 1").Scan(&rows)
	if n != 1 || err != nil {
		t.Errorf("%d results for 1 statement; Close: %v; committed: %t; session knows: %t", n, err, rows == 1, !causal.FromContext(ctx).Token().IsZero())
	}
}

// A batch that begins a transaction is refused: nobody would end it.
func TestBatchTx(t *testing.T) {
	t.Parallel()
	router := open(t, nil)
	ctx := client(t)
	for name, handle := range map[string]*db.Handle{"read": router.Read(ctx), "write": router.Write(ctx)} {
		b := new(pgx.Batch)
		b.BeginTx(pgx.TxOptions{})
		b.Queue("INSERT INTO t VALUES ($1)", 1)
		results := handle.SendBatch(ctx, b)
		_, err := results.Exec()
		if err == nil || !strings.Contains(err.Error(), "Batch.BeginTx") || results.Close() == nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	var rows int
	if err := router.Read(t.Context()).QueryRow(t.Context(), "SELECT count(*) FROM t").Scan(&rows); err != nil || rows != 0 {
		t.Errorf("%d rows, %v", rows, err)
	}
}

func TestRowsAfterClose(t *testing.T) {
	t.Parallel()
	router := open(t, nil)
	rows, err := router.Read(t.Context()).Query(t.Context(), "SELECT generate_series(1,3)")
	if err != nil {
		t.Fatal(err)
	}
	rows.Close()
	if rows.Next() {
		t.Errorf("Next is true after Close; Scan then says %v", rows.Scan(new(int)))
	}
}

func TestTxAfterEnd(t *testing.T) {
	t.Parallel()
	router := open(t, nil)
	var kept pgx.Tx
	_ = router.InTx(t.Context(), func(ctx context.Context, tx pgx.Tx) error { kept = tx; return nil })
	for name, f := range map[string]func(){"Conn": func() { kept.Conn() }, "LargeObjects": func() { kept.LargeObjects() }} {
		func() {
			defer func() {
				if p := recover(); p != nil {
					t.Errorf("%s after the end: %v", name, p)
				}
			}()
			f()
		}()
	}
}
