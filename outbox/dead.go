package outbox

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// DB is what the tools need of a database: a pgxpool.Pool, a pgx.Conn or a pgx.Tx.
type DB interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// ErrNotDead: no event of that ID is among the dead.
var ErrNotDead = errors.New("outbox: no such event is dead")

const (
	reviveSQL = `with d as (delete from loadline.outbox_dead where id = any($1) returning *),
		i as (insert into loadline.outbox (` + archived + `) overriding system value select ` + archived + ` from d),
		h as (update loadline.outbox_held set resolved = true where seq in (select seq from d))
		select count(*) from d`
	discardSQL = `with d as (delete from loadline.outbox_dead where id = any($1) returning seq),
		h as (update loadline.outbox_held set resolved = true where seq in (select seq from d))
		select count(*) from d`
)

// Revive puts dead events back, with the numbers and IDs they had. Where their keys were
// blocked they are published before what came after them, and where they were skipped, after it. The
// relay sees them at its next poll. IDs that are not dead, any more perhaps, are an [ErrNotDead]; the
// others are done.
func Revive(ctx context.Context, db DB, ids ...string) error { return undead(ctx, db, reviveSQL, ids) }

// Discard deletes dead events. A key that was blocked goes on without them.
func Discard(ctx context.Context, db DB, ids ...string) error {
	return undead(ctx, db, discardSQL, ids)
}

func undead(ctx context.Context, db DB, sql string, ids []string) error {
	all := make(map[[16]byte]bool, len(ids))
	parsed := make([][16]byte, 0, len(ids))
	for _, id := range ids {
		u, err := uuid.Parse(id)
		if err != nil {
			return fmt.Errorf("%w: %.40q", ErrNotDead, id)
		}
		if !all[u] {
			all[u] = true
			parsed = append(parsed, u)
		}
	}
	var n int
	if err := db.QueryRow(ctx, sql, parsed).Scan(&n); err != nil {
		return fmt.Errorf("outbox: dead events: %w", err)
	}
	if n != len(parsed) {
		return fmt.Errorf("%w: %d of %d were", ErrNotDead, n, len(parsed))
	}
	return nil
}
