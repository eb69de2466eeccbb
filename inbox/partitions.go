package inbox

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Run makes the partitions of the days to come, and drops those of days that are over
// for longer than the retention, each hour until ctx is done; it returns nil then. One
// process at a time does it, whichever comes first. While it does not run, events go into
// the partition for all others, which is never dropped and only grows.
func (i *Inbox) Run(ctx context.Context) error {
	ticker := time.NewTicker(maintainEvery)
	defer ticker.Stop()
	for {
		if err := i.Maintain(ctx, time.Now()); err != nil && ctx.Err() == nil {
			i.c.Logger.WarnContext(ctx, "inbox: partitions could not be made or dropped; it is tried again in an hour", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// lock is that of the maintenance: the name's hash, as PostgreSQL has it.
const lock = "SELECT pg_try_advisory_xact_lock(hashtextextended('loadline.inbox', 0))"

// Maintain does what Run does, once, as of a time.
func (i *Inbox) Maintain(ctx context.Context, now time.Time) error {
	today := now.UTC().Truncate(24 * time.Hour)
	oldest := today.Add(-i.c.Retention).Truncate(24 * time.Hour)
	return i.c.DB.InTx(ctx, func(ctx context.Context, tx pgx.Tx) error {
		var alone bool
		if err := tx.QueryRow(ctx, lock).Scan(&alone); err != nil || !alone {
			return err
		}
		have, err := partitions(ctx, tx)
		if err != nil {
			return named(err)
		}
		var errs []error
		for d := range ahead + 1 {
			day := today.AddDate(0, 0, d)
			if !have[name(day)] {
				errs = append(errs, create(ctx, tx, day))
			}
		}
		for partition := range have {
			day, err := time.Parse("inbox_20060102", partition)
			if err == nil && day.Before(oldest) {
				_, err := tx.Exec(ctx, "DROP TABLE loadline."+partition)
				errs = append(errs, err)
			}
		}
		if err := errors.Join(errs...); err != nil {
			return fmt.Errorf("inbox: partitions: %w", err)
		}
		return nil
	})
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
	for _, sql := range []string{
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
