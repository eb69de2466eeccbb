package outbox

import (
	"context"
	"errors"
	"fmt"
	"time"

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

// NotDeadError says of how many IDs some were not dead. The others are done.
type NotDeadError struct{ Asked, Done int }

func (e *NotDeadError) Error() string {
	return fmt.Sprintf("%v: %d of %d were", ErrNotDead, e.Done, e.Asked)
}

// Unwrap returns [ErrNotDead].
func (e *NotDeadError) Unwrap() error { return ErrNotDead }

// Dead is an event that the broker, or the encoder, has refused for good.
type Dead struct {
	Seq           int64     `json:"seq"`
	ID            string    `json:"id"`
	Type          string    `json:"type"`
	Key           string    `json:"key"`
	Tenant        string    `json:"tenant"`
	Reason        string    `json:"reason"` // rejected or unencodable
	Error         string    `json:"error"`
	Attempts      int       `json:"attempts"`
	FirstFailedAt time.Time `json:"firstFailedAt"`
	LastFailedAt  time.Time `json:"lastFailedAt"`
}

// DeadFilter says which dead events are meant. Empty fields say nothing.
type DeadFilter struct {
	Types  []string
	Keys   []string
	Tenant string
	Reason string
}

// deadSQL goes by the primary key: the dead are few, or somebody looks for a few of many.
const deadSQL = `select seq, id::text, type, key, tenant, reason, error, attempts, first_failed_at, last_failed_at from loadline.outbox_dead
	where seq > $1 and (cardinality($2::text[]) = 0 or type = any($2)) and (cardinality($3::text[]) = 0 or key = any($3))
	and ($4 = '' or tenant = $4) and ($5 = '' or reason = $5)
	order by seq limit $6`

// ReadDead returns dead events in the order of their numbers, from after one on, at most
// limit.
func ReadDead(ctx context.Context, db DB, f DeadFilter, after int64, limit int) ([]Dead, error) {
	if f.Types == nil {
		f.Types = []string{}
	}
	if f.Keys == nil {
		f.Keys = []string{}
	}
	rows, _ := db.Query(ctx, deadSQL, after, f.Types, f.Keys, f.Tenant, f.Reason, limit) // its error is Collect's
	dead, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Dead])
	if err != nil {
		return nil, fmt.Errorf("outbox: dead events: %w", missing(err))
	}
	return dead, nil
}

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
// relay sees them at its next poll. IDs that are not dead, any more perhaps, are a [*NotDeadError]; the
// others are done. Where one is no UUID it is an [ErrNotDead], and none is.
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
		return fmt.Errorf("outbox: dead events: %w", missing(err))
	}
	if n != len(parsed) {
		return &NotDeadError{Asked: len(parsed), Done: n}
	}
	return nil
}
