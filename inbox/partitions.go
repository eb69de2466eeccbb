package inbox

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
)

// Run makes the partitions of the days to come, and drops those of days that are over
// for longer than the retention, each hour until ctx is done; it returns nil then. One
// process at a time does it, whichever comes first. While it does not run, events go into
// the partition for all others, which is never dropped and only grows.
func (i *Inbox) Run(ctx context.Context) error {
	for {
		next := maintainEvery
		if err := i.Maintain(ctx, time.Now()); err != nil && ctx.Err() == nil {
			next = maintainAgain
			i.c.Logger.WarnContext(ctx, "inbox: not all partitions could be made or dropped", "again_after", next, "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(next):
		}
	}
}

// lock is that of the maintenance: the name's hash, as PostgreSQL has it.
const lock = "SELECT pg_try_advisory_xact_lock(hashtextextended('loadline.inbox', 0))"

// Maintain does what Run does, once, as of a time. Each partition has a transaction of its
// own, so that one that cannot be made now keeps no other.
func (i *Inbox) Maintain(ctx context.Context, now time.Time) error {
	today := now.UTC().Truncate(24 * time.Hour)
	oldest := today.Add(-i.c.Retention).Truncate(24 * time.Hour)
	var have map[string]bool
	if err := i.alone(ctx, func(ctx context.Context, tx pgx.Tx) (err error) {
		have, err = partitions(ctx, tx)
		return err
	}); err != nil || have == nil {
		return err
	}
	var errs []error
	for d := range ahead + 1 {
		if day := today.AddDate(0, 0, d); !have[name(day)] {
			errs = append(errs, i.alone(ctx, func(ctx context.Context, tx pgx.Tx) error { return create(ctx, tx, day) }))
		}
	}
	for _, partition := range slices.Sorted(maps.Keys(have)) {
		day, err := time.Parse("inbox_20060102", partition)
		if err == nil && day.Before(oldest) {
			errs = append(errs, i.alone(ctx, func(ctx context.Context, tx pgx.Tx) error {
				_, err := tx.Exec(ctx, "DROP TABLE IF EXISTS loadline."+partition)
				return err
			}))
		}
	}
	return errors.Join(errs...)
}

// alone calls f in a transaction, unless another process does the same now. It does not wait
// long for locks: handlers that come after wait behind it.
func (i *Inbox) alone(ctx context.Context, f func(ctx context.Context, tx pgx.Tx) error) error {
	err := i.c.DB.InTx(ctx, func(ctx context.Context, tx pgx.Tx) error {
		var alone bool
		if err := tx.QueryRow(ctx, lock).Scan(&alone); err != nil || !alone {
			return err
		}
		if _, err := tx.Exec(ctx, "SET LOCAL lock_timeout = '500ms'"); err != nil {
			return err
		}
		return f(ctx, tx)
	})
	if err != nil {
		return named(err)
	}
	return nil
}

func name(day time.Time) string { return day.Format("inbox_20060102") }

func partitions(ctx context.Context, tx pgx.Tx) (map[string]bool, error) {
	rows, err := tx.Query(ctx, "SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid WHERE inhparent = 'loadline.inbox'::regclass")
	if err != nil {
		return nil, err
	}
	have := make(map[string]bool)
	var partition string
	_, err = pgx.ForEachRow(rows, []any{&partition}, func() error { have[partition] = true; return nil })
	return have, err
}

// create makes a day's partition, and takes into it what has come for that day already.
func create(ctx context.Context, tx pgx.Tx, day time.Time) error {
	table, date := "loadline."+name(day), day.Format(time.DateOnly)
	var there bool // by another, since it was looked
	if err := tx.QueryRow(ctx, "SELECT to_regclass($1) IS NOT NULL", table).Scan(&there); err != nil || there {
		return err
	}
	for _, sql := range []string{
		// What attaching needs anyway: between the move and that, nothing may come for the day.
		"LOCK TABLE loadline.inbox_other IN ACCESS EXCLUSIVE MODE",
		"CREATE TABLE " + table + " (LIKE loadline.inbox INCLUDING ALL)",
		"WITH moved AS (DELETE FROM loadline.inbox_other WHERE day = '" + date + "' RETURNING *) INSERT INTO " + table + " SELECT * FROM moved",
		"ALTER TABLE loadline.inbox ATTACH PARTITION " + table + " FOR VALUES IN ('" + date + "')",
	} {
		if _, err := tx.Exec(ctx, sql); err != nil {
			return err
		}
	}
	return nil
}
