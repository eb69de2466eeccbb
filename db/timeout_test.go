package db_test

import (
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/loadlinehq/loadline/db"
)

// A timeout of one call is the server's: the connection lives on, and has its own
// timeout again.
func TestTimeout(t *testing.T) {
	t.Parallel()
	router := open(t, func(c *db.Config) { c.PrimaryPool.MaxConns, c.ReplicaPool.MaxConns = 1, 1 })
	ctx := client(t)
	short := db.Timeout(50 * time.Millisecond)
	batch := func(sql string) *pgx.Batch {
		b := &pgx.Batch{}
		b.Queue(sql)
		return b
	}
	for name, do := range map[string]func(sql string) error{
		"read": func(sql string) error { _, err := router.Read(ctx, short, db.Strong()).Exec(ctx, sql); return err },
		"row":  func(sql string) error { return router.Read(ctx, short, db.Strong()).QueryRow(ctx, sql).Scan(nil) },
		"write": func(sql string) error {
			_, err := router.Write(ctx, short).Exec(ctx, sql+" WHERE $1", true)
			return err
		},
		"write text":  func(sql string) error { _, err := router.Write(ctx, short).Exec(ctx, sql+"; "+sql); return err },
		"write batch": func(sql string) error { return router.Write(ctx, short).SendBatch(ctx, batch(sql)).Close() },
	} {
		before := backend(t, router)
		began := time.Now()
		err := do("SELECT pg_sleep(3)")
		if pg, ok := errors.AsType[*pgconn.PgError](err); !ok || pg.Code != "57014" || time.Since(began) > 2*time.Second {
			t.Errorf("%s: %v after %v", name, err, time.Since(began))
		}
		if err := do("SELECT 1"); err != nil {
			t.Errorf("%s, in time: %v", name, err)
		}
		if after := backend(t, router); after != before {
			t.Errorf("%s: the connection is another one", name)
		}
		var timeout string
		if err := router.Read(ctx, db.Strong()).QueryRow(ctx, "SHOW statement_timeout").Scan(&timeout); err != nil || timeout != "5s" {
			t.Errorf("%s: statement_timeout is %s then, %v", name, timeout, err)
		}
	}
}

func backend(t *testing.T, router *db.Router) (pid int) {
	t.Helper()
	if err := router.Read(t.Context(), db.Strong()).QueryRow(t.Context(), "SELECT pg_backend_pid()").Scan(&pid); err != nil {
		t.Fatal(err)
	}
	return pid
}
