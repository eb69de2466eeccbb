package seed

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// ErrNotEmpty means that the database has users already.
var ErrNotEmpty = errors.New("seed: the database already has users")

// Result says what was loaded.
type Result struct {
	Tables []TableRows // in the order of loading

	// DemoEmail is the address of a user worth logging in as, with articles
	// and a feed; the password is Password.
	DemoEmail string
}

// TableRows is the number of rows that a table got.
type TableRows struct {
	Table string
	Rows  int64
}

// Progress is told about each batch of rows of a table.
type Progress func(table string, rows int64)

// The tables are locked against registrations, without which nothing else can
// be written, until the content is committed: ids that are handed out
// meanwhile would collide with ours. The lock also makes several loads take
// turns; all but the first then find users.
const lockUsers = `LOCK TABLE users IN SHARE ROW EXCLUSIVE MODE`

const anyUsers = `SELECT EXISTS (SELECT FROM users)`

// The sequences behind the identities do not notice COPY. A sequence does not
// go back when the transaction does, which only leaves a gap.
const setSequences = `
SELECT
	setval(pg_get_serial_sequence('users', 'id'), (SELECT max(id) FROM users)),
	setval(pg_get_serial_sequence('articles', 'id'), (SELECT max(id) FROM articles)),
	setval(pg_get_serial_sequence('comments', 'id'), (SELECT max(id) FROM comments))`

// The oldest account with articles and a feed, or the oldest one. Walks
// users_pkey and counts index entries of follows_pkey.
const demoEmail = `
SELECT coalesce(
	(SELECT email FROM users
	WHERE articles_count > 0 AND (SELECT count(*) FROM follows WHERE follower_id = users.id) >= 10
	ORDER BY id LIMIT 1),
	(SELECT email FROM users ORDER BY id LIMIT 1),
	'')`

// ANALYZE, or the first plans are made for empty tables. VACUUM, since the
// triggers have left a dead version of most articles and many users, and since
// index-only scans need the visibility map. It cannot run in a transaction.
const vacuum = `VACUUM (ANALYZE) users, articles, tags, article_tags, comments, favorites, follows, article_totals`

// Load writes the content of source into a database with a schema but no
// users, all of it or nothing. It waits for a load that is under way as long as
// ctx allows, and returns ErrNotEmpty when there are users. Counters are left
// to the schema's triggers. Where ctx ends first, the connection is closed.
//
// A nil progress is told nothing.
func Load(ctx context.Context, conn *pgx.Conn, source Source, progress Progress) (Result, error) {
	var result Result
	err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		var err error
		if result, err = load(ctx, tx, source, progress); err != nil && !errors.Is(err, ErrNotEmpty) {
			return fmt.Errorf("seed: nothing was loaded: %w", err)
		}
		return err
	})
	if err != nil {
		return Result{}, err
	}
	if _, err := conn.Exec(ctx, vacuum); err != nil {
		return result, fmt.Errorf("seed: the content was loaded, but %s failed: %w", vacuum, err)
	}
	return result, nil
}

func load(ctx context.Context, tx pgx.Tx, source Source, progress Progress) (Result, error) {
	if _, err := tx.Exec(ctx, lockUsers); err != nil {
		if e, ok := errors.AsType[*pgconn.PgError](err); ok && e.Code == "42P01" { // undefined_table
			return Result{}, fmt.Errorf("the schema is missing, run `conduit migrate` first: %w", err)
		}
		return Result{}, err
	}
	var full bool
	if err := tx.QueryRow(ctx, anyUsers).Scan(&full); err != nil {
		return Result{}, err
	}
	if full {
		return Result{}, ErrNotEmpty
	}

	w := &writer{tx: tx, progress: progress}
	if err := w.content(ctx, source); err != nil {
		return Result{}, err
	}
	result := Result{Tables: w.tables}
	if _, err := tx.Exec(ctx, setSequences); err != nil {
		return Result{}, err
	}
	err := tx.QueryRow(ctx, demoEmail).Scan(&result.DemoEmail)
	return result, err
}
