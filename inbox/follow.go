package inbox

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/loadlinehq/loadline/events"
)

// Rewindable is a group of consumers; an events.Consumer is a member of one.
type Rewindable interface {
	// Subscriptions names what the group has, or will have.
	Subscriptions() []string
	// Floors says up to where each subscription of the group has settled all.
	Floors(ctx context.Context) (map[string]uint64, error)
	// Rewind has subscriptions get again what comes after.
	Rewind(ctx context.Context, floors map[string]uint64) error
}

const (
	// followEvery bounds how much is delivered again after a failover, beside what it lost.
	followEvery = time.Second
	followLimit = 10 * time.Second // one look
)

// Follow keeps what the group has handled and what the database has together, until ctx is
// done; it returns nil then, and before that an events.ErrNoRewind when the broker cannot
// rewind. Where the primary does not wait for a standby, a failover loses
// effects that the broker takes for done. So each second Follow asks the broker how far the group
// has come, and then writes that down in the database: where that row is, there are the effects
// of all up to it, since a standby has the log up to some point and nothing beyond. When the
// timeline changes, it rewinds the group to where the row says, and the inbox absorbs what was
// not lost. It does so once more after [Config.Settle], for acknowledgements that were on
// their way.
//
// Each member runs it. What a key's events do may be out of order then, once: a later event
// can have been handled on the new primary before the rewind. It does not see what makes no new
// timeline: a crash that undoes transactions with synchronous_commit off, a snapshot of the disk that
// is restored. Nor a group whose rows the standby had not got at all; nor a member that still writes to
// the old primary after Settle, which a db.Router does not.
func (i *Inbox) Follow(ctx context.Context, group Rewindable) error {
	var said time.Time
	for {
		err := i.follow(ctx, group)
		switch {
		case errors.Is(err, events.ErrNoRewind):
			return fmt.Errorf("inbox: follow %s: %w", i.c.Group, err)
		case err == nil:
			said = time.Time{}
		case ctx.Err() == nil && time.Since(said) > time.Minute:
			said = time.Now()
			i.c.Logger.ErrorContext(ctx, "inbox: how far the group has come cannot be noted, or the group not be rewound; it is tried again", "group", i.c.Group, "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(followEvery/2 + rand.N(followEvery)):
		}
	}
}

// noted is a row of inbox_floor.
type noted struct {
	floor      uint64
	timeline   int64
	generation int64
	settling   bool // a second rewind is to come
	due        bool // it is time for it
	fresh      bool // somebody has just written it
}

const (
	// timelineSQL: the name of a file in the log begins with the timeline.
	timelineSQL = "('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::bigint"
	notedSQL    = `SELECT subscription, floor::text, timeline, generation, again_at IS NOT NULL, coalesce(again_at <= now(), false), noted_at > now() - $2::interval
		FROM loadline.inbox_floor WHERE consumer = $1 AND subscription = ANY($3)`
	// noteSQL leaves alone what another has rewound since it was read, and what was read on
	// another timeline: its floors are none of this one's.
	noteSQL = `INSERT INTO loadline.inbox_floor AS f (consumer, subscription, floor, timeline, generation)
		SELECT $1, s, n::numeric, $5, g FROM unnest($2::text[], $3::text[], $4::bigint[]) AS e (s, n, g) WHERE ` + timelineSQL + ` = $5 ORDER BY s
		ON CONFLICT (consumer, subscription) DO UPDATE SET floor = excluded.floor, noted_at = now()
		WHERE f.generation = excluded.generation AND f.timeline = excluded.timeline`
	// rewoundSQL counts the rewind, and notes that another is to come after one for a timeline.
	rewoundSQL = `INSERT INTO loadline.inbox_floor AS f (consumer, subscription, floor, timeline, generation, again_at)
		SELECT $1, $2, 0, $5, 1, now() + $6::interval WHERE ` + timelineSQL + ` = $5
		ON CONFLICT (consumer, subscription) DO UPDATE SET timeline = $5, generation = f.generation + 1, noted_at = now(),
		again_at = CASE WHEN f.timeline <> $5 THEN now() + $6::interval END
		WHERE f.generation = $3 AND f.timeline = $4`
)

func (i *Inbox) follow(whole context.Context, group Rewindable) error {
	ctx, cancel := context.WithTimeout(whole, followLimit)
	defer cancel()
	names := group.Subscriptions()
	asked := time.Now()
	timeline, rows, err := i.noted(ctx, names)
	if err != nil {
		return err
	}
	i.recent.confirm(timeline, asked)
	back := make(map[string]uint64)
	fresh, failover := len(rows) > 0, false
	for name, row := range rows {
		if row.timeline != timeline || row.due {
			back[name] = row.floor
		}
		fresh, failover = fresh && row.fresh, failover || row.timeline != timeline
	}
	if len(back) > 0 {
		for _, name := range names {
			if _, noted := rows[name]; failover && !noted {
				back[name] = 0 // it began just before: what it has done nobody knows
			}
		}
		return i.rewind(whole, group, timeline, rows, back)
	}
	if fresh {
		return nil
	}
	// Asked after the timeline: what it says of an older one is not written down.
	floors, err := group.Floors(ctx)
	if err != nil {
		return err
	}
	var noting, positions []string
	var generations []int64
	for _, name := range slices.Sorted(maps.Keys(floors)) {
		if rows[name].settling {
			continue
		}
		noting, positions = append(noting, name), append(positions, strconv.FormatUint(floors[name], 10))
		generations = append(generations, rows[name].generation)
	}
	if len(noting) == 0 {
		return nil
	}
	return i.exec(ctx, noteSQL, i.c.Group, noting, positions, generations, timeline)
}

// rewind rewinds one subscription after the other, each first and then says so: twice is no
// harm. One that cannot be rewound now keeps no other.
func (i *Inbox) rewind(ctx context.Context, group Rewindable, timeline int64, rows map[string]noted, back map[string]uint64) error {
	// Those without a row first: that they need it shows by the others' rows.
	names := slices.SortedFunc(maps.Keys(back), func(a, b string) int {
		return cmp.Or(cmp.Compare(rows[a].timeline, rows[b].timeline), cmp.Compare(a, b))
	})
	var errs []error
	for _, name := range names {
		row := rows[name]
		err := i.rewindOne(ctx, group, timeline, name, row, back[name])
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("inbox: rewind %s: %w", name, err))
			if row.timeline == 0 || ctx.Err() != nil {
				return errors.Join(errs...)
			}
		case row.timeline != timeline:
			i.c.Logger.WarnContext(ctx, "inbox: the database is on another timeline; the subscription was rewound to what it has surely handled on this one, and is once more",
				"subscription", name, "timeline", timeline, "position", back[name], "again_after", i.c.Settle)
		default:
			i.c.Logger.InfoContext(ctx, "inbox: a subscription was rewound once more", "subscription", name, "timeline", timeline)
		}
	}
	return errors.Join(errs...)
}

func (i *Inbox) rewindOne(ctx context.Context, group Rewindable, timeline int64, name string, row noted, floor uint64) error {
	ctx, cancel := context.WithTimeout(ctx, followLimit)
	defer cancel()
	if err := group.Rewind(ctx, map[string]uint64{name: floor}); err != nil {
		return err
	}
	return i.exec(ctx, rewoundSQL, i.c.Group, name, row.generation, row.timeline, timeline, i.c.Settle)
}

func (i *Inbox) noted(ctx context.Context, names []string) (timeline int64, rows map[string]noted, err error) {
	err = i.c.DB.InTx(ctx, func(ctx context.Context, tx pgx.Tx) error {
		rows = make(map[string]noted) // InTx may try again
		if err := tx.QueryRow(ctx, "SELECT "+timelineSQL).Scan(&timeline); err != nil {
			return err
		}
		found, err := tx.Query(ctx, notedSQL, i.c.Group, followEvery, names)
		if err != nil {
			return err
		}
		var name, floor string
		var row noted
		_, err = pgx.ForEachRow(found, []any{&name, &floor, &row.timeline, &row.generation, &row.settling, &row.due, &row.fresh}, func() (err error) {
			row.floor, err = strconv.ParseUint(floor, 10, 64)
			rows[name] = row
			return err
		})
		return err
	})
	if err != nil {
		err = named(err)
	}
	return timeline, rows, err
}

func (i *Inbox) exec(ctx context.Context, sql string, args ...any) error {
	err := i.c.DB.InTx(ctx, func(ctx context.Context, tx pgx.Tx) error {
		_, err := tx.Exec(ctx, sql, args...)
		return err
	})
	if err != nil {
		return named(err)
	}
	return nil
}
