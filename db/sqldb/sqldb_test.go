package sqldb_test

import (
	"context"
	"database/sql"
	"errors"
	"log/slog"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/loadlinehq/loadline/causal"
	"github.com/loadlinehq/loadline/db"
	"github.com/loadlinehq/loadline/db/sqldb"
	"github.com/loadlinehq/loadline/internal/stack/stacktest"
)

func open(t *testing.T, change func(*db.Config)) (pool *sql.DB, url string) {
	t.Helper()
	d := stacktest.Postgres(t)
	config := db.Config{Primary: d.URL, Replicas: d.ReplicaURLs, Logger: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(&config)
	}
	router, err := db.Open(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wait sync.WaitGroup
	wait.Go(func() {
		if err := router.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	pool = sqldb.Open(router)
	t.Cleanup(func() {
		if err := pool.Close(); err != nil {
			t.Error(err)
		}
		cancel()
		wait.Wait()
		router.Close()
	})
	define(t, pool, d, "CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL DEFAULT 0)", "CREATE TYPE mood AS ENUM ('sad', 'glad')")
	return pool, d.URL
}

// define makes tables, and waits until replicas have them: other clients would not.
func define(t *testing.T, pool *sql.DB, d *stacktest.Database, statements ...string) {
	t.Helper()
	for _, statement := range statements {
		if _, err := pool.ExecContext(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	var lsn string
	if err := pool.QueryRowContext(t.Context(), "SELECT pg_current_wal_flush_lsn()::text").Scan(&lsn); err != nil {
		t.Fatal(err)
	}
	for _, url := range d.ReplicaURLs {
		replica, err := sql.Open("pgx", url)
		if err != nil {
			t.Fatal(err)
		}
		for limit := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			var there bool
			err := replica.QueryRowContext(t.Context(), "SELECT pg_last_wal_replay_lsn() >= $1::text::pg_lsn", lsn).Scan(&there)
			if err == nil && there {
				break
			}
			if time.Now().After(limit) {
				t.Fatalf("a replica does not come to %s: %v", lsn, err)
			}
		}
		_ = replica.Close()
	}
}

func client(t *testing.T) context.Context {
	return causal.WithSession(t.Context(), causal.NewSession(causal.Token{}))
}

// What a column holds comes out as it does of pgx's own driver.
func TestValues(t *testing.T) {
	t.Parallel()
	pool, url := open(t, nil)
	theirs, err := sql.Open("pgx", url)
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	for _, expression := range []string{
		"true", "1::int2", "-2::int4", "9223372036854775807::int8", "1.5::float4", "2.5::float8", "7::oid", "'x'::text", "'y'::varchar(3)", "'z'::name",
		"'\\x00ff'::bytea", "12345678901234567890.123::numeric", "'NaN'::numeric", "'6ba7b810-9dad-11d1-80b4-00c04fd430c8'::uuid",
		"'2026-01-02'::date", "'infinity'::date", "'2026-01-02 03:04:05.678'::timestamp", "'2026-01-02 03:04:05.678+00'::timestamptz", "'03:04:05.000001'::time",
		"'1 day 2 hours'::interval", "'{\"a\": [1, null]}'::json", "'{\"a\": 1}'::jsonb", "'{1,2,NULL}'::int4[]", "'{a,\"b c\"}'::text[]",
		"'10.0.0.1/8'::inet", "'10.0.0.0/8'::cidr", "'08:00:2b:01:02:03'::macaddr", "'[1,5)'::int4range", "'(1,2)'::point", "B'101'::varbit",
		"'glad'::mood", "ARRAY['sad'::mood]", "'{[1,5),[7,8)}'::int4multirange", "'{{1,2},{3,4}}'::int4[]", "'{}'::int4[]", "'[1.5,)'::numrange", "'empty'::daterange", "'[2026-01-02,2026-02-03)'::tsrange", "'{2026-01-02}'::date[]", "NULL", "NULL::int4", "'a'::\"char\"", "1::money", "'a b'::tsvector", "'<a/>'::xml",
	} {
		var got, want any
		query := "SELECT " + expression + " AS it"
		err := pool.QueryRowContext(t.Context(), query).Scan(&got)
		if theirErr := theirs.QueryRowContext(t.Context(), query).Scan(&want); (err == nil) != (theirErr == nil) {
			t.Errorf("%s: %v, pgx: %v", expression, err, theirErr)
			continue
		}
		a, aIs := got.(time.Time)
		b, bIs := want.(time.Time)
		if aIs && bIs && a.Equal(b) {
			continue
		}
		if text, ok := want.(string); ok && strings.HasSuffix(expression, "range") {
			want = strings.ReplaceAll(text, `"`, "") // which the server likes, and does not need
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %T %v, pgx's own: %T %v", expression, got, got, want, want)
		}
		// In a read they come the same way.
		var read any
		if err := pool.QueryRowContext(sqldb.Read(client(t)), query).Scan(&read); err != nil || !reflect.DeepEqual(read, got) && !aIs {
			t.Errorf("%s, read: %T %v, %v", expression, read, read, err)
		}
	}
}

func TestSessions(t *testing.T) {
	t.Parallel()
	pool, _ := open(t, nil)
	replicas := 0
	// A machine that has much else to do replays later than a read waits.
	for i, limit := 0, time.Now().Add(time.Minute); i < 40 || replicas == 0 && time.Now().Before(limit); i++ {
		ctx := client(t)
		var err error
		switch i % 4 {
		case 0:
			_, err = pool.ExecContext(ctx, "INSERT INTO t VALUES ($1)", i)
		case 1:
			var id int
			err = pool.QueryRowContext(ctx, "INSERT INTO t VALUES ($1) RETURNING id", i).Scan(&id)
		case 2:
			var tx *sql.Tx
			if tx, err = pool.BeginTx(ctx, nil); err == nil {
				_, err = tx.ExecContext(ctx, "INSERT INTO t VALUES ($1)", i)
				err = errors.Join(err, tx.Commit())
			}
		case 3:
			var stmt *sql.Stmt
			if stmt, err = pool.PrepareContext(ctx, "INSERT INTO t VALUES ($1)"); err == nil {
				_, err = stmt.ExecContext(ctx, i)
				err = errors.Join(err, stmt.Close())
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		var found, replica bool
		const query = "SELECT EXISTS (SELECT FROM t WHERE id = $1), pg_is_in_recovery()"
		if i%2 == 0 {
			err = pool.QueryRowContext(sqldb.Read(ctx), query, i).Scan(&found, &replica)
		} else {
			var tx *sql.Tx
			if tx, err = pool.BeginTx(ctx, &sql.TxOptions{ReadOnly: true}); err == nil {
				err = errors.Join(tx.QueryRow(query, i).Scan(&found, &replica), tx.Commit())
			}
		}
		if err != nil || !found {
			t.Errorf("write %d is not seen (replica: %t): %v", i, replica, err)
		}
		if replica {
			replicas++
		}
	}
	if replicas == 0 {
		t.Error("no read was on a replica")
	}
}

func TestTransactions(t *testing.T) {
	t.Parallel()
	pool, _ := open(t, func(c *db.Config) { c.PrimaryPool = db.Pool{MaxConns: 1, QueueWait: 2 * time.Second} })
	ctx := client(t)
	count := func(want int) {
		t.Helper()
		var n int
		if err := pool.QueryRowContext(ctx, "SELECT count(*) FROM t").Scan(&n); err != nil || n != want {
			t.Errorf("%d rows, %v, want %d", n, err, want)
		}
	}
	tx, err := pool.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelSerializable})
	if err != nil {
		t.Fatal(err)
	}
	var level string
	if err := tx.QueryRowContext(ctx, "SELECT current_setting('transaction_isolation') FROM (VALUES (1), (2)) v").Scan(&level); err != nil || level != "serializable" {
		t.Errorf("%s, %v", level, err)
	}
	if _, err := tx.ExecContext(sqldb.Read(ctx), "INSERT INTO t VALUES (1)"); err != nil {
		t.Errorf("in a transaction the context says no more: %v", err)
	}
	if err := tx.Rollback(); err != nil {
		t.Error(err)
	}
	count(0)

	// One that its context ends gives the only connection back.
	short, cancel := context.WithCancel(ctx)
	if tx, err = pool.BeginTx(short, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := tx.ExecContext(ctx, "INSERT INTO t VALUES (1)"); err != nil {
		t.Fatal(err)
	}
	cancel()
	count(0)

	// So does a connection that is closed with one open.
	conn, err := pool.Conn(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if tx, err = conn.BeginTx(ctx, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.ExecContext(ctx, "INSERT INTO t VALUES (2)"); err != nil { // in it
		t.Fatal(err)
	}
	if err := tx.Commit(); err != nil {
		t.Error(err)
	}
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
	count(1)
	if _, err := pool.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelLinearizable}); err == nil || !strings.Contains(err.Error(), "Linearizable") {
		t.Errorf("an isolation level that does not exist: %v", err)
	}
	if tx, err = pool.BeginTx(sqldb.Read(ctx), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec("INSERT INTO t VALUES (3)"); !errors.Is(err, db.ErrReadOnly) {
		t.Errorf("a write in a read: %v", err)
	}
	if err := tx.Rollback(); err != nil {
		t.Error(err)
	}
}

func TestStatements(t *testing.T) {
	t.Parallel()
	pool, _ := open(t, nil)
	ctx := client(t)
	if err := pool.PingContext(ctx); err != nil {
		t.Error(err)
	}
	result, err := pool.ExecContext(ctx, "INSERT INTO t VALUES (1), (2); UPDATE t SET n = 1")
	if err != nil {
		t.Fatal(err)
	}
	if n, err := result.RowsAffected(); err != nil || n != 2 {
		t.Errorf("%d rows, %v", n, err)
	}
	for name, do := range map[string]func() error{
		"exec": func() error { _, err := pool.ExecContext(ctx, "INSERT INTO t VALUES ($1)", 1); return err },
		"query": func() error {
			rows, err := pool.QueryContext(ctx, "INSERT INTO t VALUES (1) RETURNING id")
			return closed(rows, err)
		},
		"row": func() error {
			var id int
			return pool.QueryRowContext(ctx, "INSERT INTO t VALUES (1) RETURNING id").Scan(&id)
		},
		"no rows": func() error {
			rows, err := pool.QueryContext(ctx, "INSERT INTO t VALUES ($1)", 1)
			return closed(rows, err)
		},
	} {
		if err, ok := errors.AsType[*pgconn.PgError](do()); !ok || err.ConstraintName != "t_pkey" {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := pool.ExecContext(ctx, "INSERT INTO t VALUES ($1)", sql.Named("id", 5)); err == nil || !strings.Contains(err.Error(), "$1") {
		t.Errorf("a named argument: %v", err)
	}
	if _, err := pool.ExecContext(sqldb.Read(ctx), "INSERT INTO t VALUES (5)"); !errors.Is(err, db.ErrReadOnly) {
		t.Errorf("a write in a read: %v", err)
	}
	if _, err := pool.ExecContext(sqldb.Write(sqldb.Read(ctx)), "INSERT INTO t VALUES (5)"); err != nil {
		t.Errorf("a write after all: %v", err)
	}
	var n sql.Null[int64]
	if err := pool.QueryRowContext(ctx, "SELECT n FROM t WHERE id = 99").Scan(&n); !errors.Is(err, sql.ErrNoRows) {
		t.Errorf("%v", err)
	}
	rows, err := pool.QueryContext(sqldb.Read(ctx), "SELECT id, n::numeric AS m FROM t ORDER BY id")
	if err != nil {
		t.Fatal(err)
	}
	types, err := rows.ColumnTypes()
	if err != nil || types[0].Name() != "id" || types[0].DatabaseTypeName() != "INT4" || types[0].ScanType() != reflect.TypeFor[int64]() || types[1].DatabaseTypeName() != "NUMERIC" {
		t.Errorf("%+v, %v", types, err)
	}
	if err := closed(rows, nil); err != nil {
		t.Error(err)
	}
}

func closed(rows *sql.Rows, err error) error {
	if err != nil {
		return err
	}
	for rows.Next() {
	}
	return errors.Join(rows.Err(), rows.Close())
}
