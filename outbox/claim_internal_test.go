package outbox

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/loadlinehq/loadline/internal/stack/stacktest"
)

// An old snapshot keeps the places of all rows that are gone. A claim with the tracker's
// hint does not pass them; one from the start passes all: that is why there is a hint. Whatever is
// held, and however many gaps there are, the claim reads by the index, and so do the statements that
// settle it.
func TestOldSnapshotDoesNotSlowClaims(t *testing.T) {
	t.Parallel()
	d := stacktest.Postgres(t, stacktest.Migrated(Migrations))
	ctx := t.Context()
	connect := func() *pgx.Conn {
		conn, err := pgx.Connect(ctx, d.URL)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close(context.Background()) })
		return conn
	}
	exec := func(conn *pgx.Conn, sql string, args ...any) {
		t.Helper()
		if _, err := conn.Exec(ctx, sql, args...); err != nil {
			t.Fatal(err)
		}
	}
	reader, conn := connect(), connect()
	exec(conn, sessionSQL)
	const rows = 20_000
	insert := "insert into loadline.outbox (type, key, payload) select 'a', 'k' || i, '{}' from generate_series(1, $1::int) i"
	exec(conn, insert, rows)
	exec(reader, "begin isolation level repeatable read; select 1 from pg_class limit 1")
	exec(conn, "delete from loadline.outbox")
	exec(conn, insert, 1000)

	blocks := func(sql string, args ...any) int {
		t.Helper()
		tx, err := conn.Begin(ctx) // statements that delete are not to
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = tx.Rollback(ctx) }()
		var text []byte
		if err := tx.QueryRow(ctx, "explain (analyze, buffers, format json) "+sql, args...).Scan(&text); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), `"Seq Scan"`) || strings.Contains(string(text), `"JIT"`) {
			t.Errorf("%s\n%s", sql, text)
		}
		var plans []struct {
			Plan struct {
				Hit  int `json:"Shared Hit Blocks"`
				Read int `json:"Shared Read Blocks"`
			}
		}
		if err := json.Unmarshal(text, &plans); err != nil {
			t.Fatal(err)
		}
		return plans[0].Plan.Hit + plans[0].Plan.Read
	}
	top := int64(rows)
	gaps := []int64{3, 30, 300}
	some := []int64{rows + 1, rows + 2, rows + 3}
	for key, sql := range claims {
		args := gaps
		if !key[0] {
			args = nil
			args = append([]int64{}, args...)
		}
		hinted, full := blocks(sql, top, args, 0, 500, 1<<20), blocks(sql, 0, args, 0, 500, 1<<20)
		t.Logf("gaps %v, held %v: %d blocks by the hint, %d from the start", key[0], key[1], hinted, full)
		if limit := map[bool]int{false: 100, true: 3000}[key[1]]; hinted > limit { // each row's key is looked up
			t.Errorf("%d blocks by the hint", hinted)
		}
		if full < 200 {
			t.Errorf("%d blocks from the start: nothing is in the way", full)
		}
	}
	for _, sql := range []string{sentSQL, unarchivedSQL, releaseSQL} {
		if n := blocks(sql, some); n > 200 {
			t.Errorf("%d blocks: %s", n, sql)
		}
	}
}
