package pgstore

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/loadlinehq/loadline/edge"
)

//go:embed migrations/*.sql
var files embed.FS

// Migrations makes the table, in the schema loadline, in goose's format. The number is a time, so that it can stand beside
// an application's own.
var Migrations = sub(files, "migrations")

func sub(files embed.FS, dir string) fs.FS {
	f, err := fs.Sub(files, dir)
	if err != nil {
		panic(err) // the name is no path
	}
	return f
}

// Transactions opens transactions, and has those that are opened with the context of one join it. A *db.Router does.
type Transactions interface {
	InTx(ctx context.Context, f func(ctx context.Context, tx pgx.Tx) error) error
}

// Defaults of [Config].
const (
	DefaultTTL   = 24 * time.Hour
	DefaultPurge = time.Minute
	// batch is how many records one statement of the purge deletes. Guess: some ms.
	batch = 1000
)

// Config has a usable zero value.
type Config struct {
	// TTL is how long an answer is kept. Default 24 h, as Stripe's.
	TTL time.Duration
	// Purge is how often [Store.Run] deletes what has expired. Default a minute.
	Purge time.Duration
	// Logger is told when the purge fails. Default slog.Default().
	Logger *slog.Logger
}

// Store is an [edge.IdempotencyStore]. It may be used by several goroutines.
type Store struct {
	tx Transactions
	c  Config
}

var _ edge.IdempotencyStore = (*Store)(nil)

// New returns a store of the table that [Migrations] makes.
func New(tx Transactions, c Config) (*Store, error) {
	var errs []error
	if tx == nil {
		errs = append(errs, errors.New("pgstore: Transactions is nil: a *db.Router is one"))
	}
	if c.TTL == 0 {
		c.TTL = DefaultTTL
	}
	if c.Purge == 0 {
		c.Purge = DefaultPurge
	}
	if c.TTL < time.Second || c.Purge < 0 {
		errs = append(errs, fmt.Errorf("pgstore: Config.TTL (%v) must be a second at least, and Purge (%v) not negative", c.TTL, c.Purge))
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return &Store{tx, c}, errors.Join(errs...)
}

var (
	// errUndo rolls a failed answer's effect back.
	errUndo = errors.New("pgstore: the handler has failed")
	// errTaken: another attempt was committed that this one did not see, by a snapshot that is older than its lock.
	errTaken = errors.New("pgstore: the key was used meanwhile")
)

// maxTries bounds how often a handler is run for an attempt. Each time but the last it was undone.
const maxTries = 3

// Do implements [edge.IdempotencyStore].
func (s *Store) Do(ctx context.Context, a edge.Attempt, run func(context.Context) (*edge.Answer, error)) (answer *edge.Answer, replayed bool, err error) {
	for range maxTries {
		if answer, replayed, err = s.once(ctx, a, run); !errors.Is(err, errTaken) {
			return answer, replayed, err
		}
	}
	return nil, false, edge.ErrKeyInFlight
}

func (s *Store) once(ctx context.Context, a edge.Attempt, run func(context.Context) (*edge.Answer, error)) (*edge.Answer, bool, error) {
	var kept, own *edge.Answer
	err := s.tx.InTx(ctx, func(ctx context.Context, tx pgx.Tx) (err error) {
		if kept, err = find(ctx, tx, a); kept != nil || err != nil {
			return err
		}
		if own, err = run(ctx); err != nil {
			return err
		}
		switch {
		case own.Failed():
			return errUndo
		case own.Kept():
			return s.keep(ctx, tx, a, own)
		}
		return nil
	})
	switch {
	case err == nil && kept != nil:
		return kept, true, nil
	case err == nil, errors.Is(err, errUndo):
		return own, false, nil
	case own != nil && own.Status >= http.StatusBadRequest && !errors.Is(err, errTaken):
		// The handler has refused, mostly because something in the transaction had failed. So nothing is
		// committed, and nothing is kept, which is what it says.
		return own, false, nil
	}
	return nil, false, err
}

const (
	// lockSQL is not one statement with findSQL: that would look at what there was before the lock.
	lockSQL = "select pg_try_advisory_xact_lock($1)"
	findSQL = "select fingerprint, status, headers, coalesce(body, ''), body is null, token from loadline.idempotency where scope = $1 and key = $2 and expires_at > now()"
	// keepSQL takes the place of what has expired and is not purged yet.
	keepSQL = `insert into loadline.idempotency as i (scope, key, fingerprint, status, headers, body, token, expires_at)
values ($1, $2, $3, $4, $5, $6, $7, now() + $8::interval)
on conflict (scope, key) do update set fingerprint = excluded.fingerprint, status = excluded.status, headers = excluded.headers,
 body = excluded.body, token = excluded.token, created_at = excluded.created_at, expires_at = excluded.expires_at where i.expires_at <= now()`
	purgeSQL = `delete from loadline.idempotency where (scope, key) in
 (select scope, key from loadline.idempotency where expires_at <= now() order by expires_at limit $1 for update skip locked)`
)

// find takes the key's lock and returns the answer that is kept, or nil. An attempt that has the lock is not waited for:
// each that waits would hold a connection.
func find(ctx context.Context, tx pgx.Tx, a edge.Attempt) (*edge.Answer, error) {
	var locked bool
	var kept *edge.Answer
	var print []byte
	b := new(pgx.Batch)
	b.Queue(lockSQL, lockOf(a)).QueryRow(func(row pgx.Row) error { return row.Scan(&locked) })
	b.Queue(findSQL, a.Scope[:], a.Key).QueryRow(func(row pgx.Row) error {
		var found edge.Answer
		err := row.Scan(&print, &found.Status, &found.Header, &found.Body, &found.Cut, &found.Token)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		kept = &found
		return err
	})
	switch err := tx.SendBatch(ctx, b).Close(); {
	case err != nil:
		return nil, missing(err)
	case kept != nil && string(print) != string(a.Fingerprint[:]):
		return nil, edge.ErrKeyReused
	case kept != nil:
		return kept, nil
	case !locked:
		return nil, edge.ErrKeyInFlight
	}
	return nil, nil
}

// lockOf is of 64 bits, so two keys in 2^32 that are used at one time are taken for the same, and one of them waits.
func lockOf(a edge.Attempt) int64 {
	sum := sha256.Sum256(append(append([]byte("loadline.idempotency\x00"), a.Scope[:]...), a.Key...))
	return int64(binary.BigEndian.Uint64(sum[:8]))
}

func (s *Store) keep(ctx context.Context, tx pgx.Tx, a edge.Attempt, answer *edge.Answer) error {
	body := answer.Body
	if body == nil && !answer.Cut {
		body = []byte{}
	}
	tag, err := tx.Exec(ctx, keepSQL, a.Scope[:], a.Key, a.Fingerprint[:], answer.Status, answer.Header, body, answer.Token, s.c.TTL)
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok && pg.Code == "40001" {
		return errTaken
	}
	if err != nil {
		return missing(err)
	}
	if tag.RowsAffected() == 0 {
		return errTaken
	}
	return nil
}

// Purge deletes up to limit answers that have expired, and returns how many.
func (s *Store) Purge(ctx context.Context, limit int) (n int, err error) {
	err = s.tx.InTx(ctx, func(ctx context.Context, tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, purgeSQL, limit)
		n = int(tag.RowsAffected())
		return missing(err)
	})
	return n, err
}

// Run purges until ctx is done, and returns nil then. Each instance may: none waits for another. Without it the table
// grows.
func (s *Store) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(s.c.Purge/2 + rand.N(s.c.Purge)):
		}
		for n := batch; n == batch && ctx.Err() == nil; {
			var err error
			if n, err = s.Purge(ctx, batch); err != nil && ctx.Err() == nil {
				s.c.Logger.WarnContext(ctx, "pgstore: expired answers were not deleted", "error", err)
				break
			}
		}
	}
}

// missing says what to do where an error is that of a database without the table.
func missing(err error) error {
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok && (pg.Code == "42P01" || pg.Code == "3F000" || pg.Code == "42703") {
		return fmt.Errorf("pgstore: the table is missing, or of another version: apply pgstore.Migrations, or run loadline migrate: %w", err)
	}
	return err
}
