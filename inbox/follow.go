package inbox

import (
	"context"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
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
// done; it returns nil then. Where the primary does not wait for a standby, a failover loses
// effects that the broker takes for done. So each second Follow asks the broker how far the group
// has come, and then writes that down in the database: where that row is, there are the effects
// of all up to it, since a standby has the log up to some point and nothing beyond. When the
// timeline changes, it rewinds the group to where the row says, and the inbox absorbs what was
// not lost. It does so once more after [Config.Settle], for acknowledgements that were on
// their way.
//
// Each member runs it. What a key's events do may be out of order then, once: a later event
// can have been handled on the new primary before the rewind. Restoring a backup is a new
// timeline as well.
func (i *Inbox) Follow(ctx context.Context, group Rewindable) error {
	failing := false
	for {
		err := i.follow(ctx, group)
		if err != nil && ctx.Err() == nil && !failing {
			i.c.Logger.WarnContext(ctx, "inbox: how far the group has come could not be noted; it is tried again", "group", i.c.Group, "error", err)
		}
		failing = err != nil
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
	rewoundSQL = `UPDATE loadline.inbox_floor f SET timeline = $5, generation = f.generation + 1, noted_at = now(),
		again_at = CASE WHEN f.timeline <> $5 THEN now() + $6::interval END
		FROM (SELECT * FROM unnest($2::text[], $3::bigint[], $4::bigint[]) AS e (s, g, t) ORDER BY s) e
		WHERE f.consumer = $1 AND f.subscription = e.s AND f.generation = e.g AND f.timeline = e.t AND ` + timelineSQL + ` = $5`
)

func (i *Inbox) follow(ctx context.Context, group Rewindable) error {
	ctx, cancel := context.WithTimeout(ctx, followLimit)
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
		return i.rewind(ctx, group, timeline, rows, back)
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

// rewind rewinds first and then says so: twice is no harm.
func (i *Inbox) rewind(ctx context.Context, group Rewindable, timeline int64, rows map[string]noted, back map[string]uint64) error {
	if err := group.Rewind(ctx, back); err != nil {
		return err
	}
	var names []string
	var generations, timelines []int64
	failover := false
	for _, name := range slices.Sorted(maps.Keys(rows)) {
		row := rows[name]
		if _, was := back[name]; !was {
			continue
		}
		names, generations, timelines = append(names, name), append(generations, row.generation), append(timelines, row.timeline)
		failover = failover || row.timeline != timeline
	}
	if err := i.exec(ctx, rewoundSQL, i.c.Group, names, generations, timelines, timeline, i.c.Settle); err != nil {
		return err
	}
	if failover {
		i.c.Logger.WarnContext(ctx, "inbox: the database is on another timeline; the group was rewound to what it has surely handled on this one, and is once more", "group", i.c.Group, "timeline", timeline, "again_after", i.c.Settle, "positions", back)
	} else {
		i.c.Logger.InfoContext(ctx, "inbox: the group was rewound once more", "group", i.c.Group, "timeline", timeline)
	}
	return nil
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
