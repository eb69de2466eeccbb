package outbox

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Stats says how the outbox is, as the database has it.
type Stats struct {
	// Oldest is the age of the oldest event that waits, 0 if there is none. Those of held keys
	// wait as well. It is what to alarm on: after 60 s, say.
	Oldest time.Duration
	// Depth is how many events wait, at most, by their numbers: those rolled back count as well,
	// and those of held keys do not.
	Depth int64
	// Bytes is the size of the table, with the space of rows that are gone.
	Bytes int64
	// Invalidations is the age of the oldest that the cache has not taken.
	Invalidations time.Duration
	// Held and Dead count the events that hold back their keys, and those in
	// outbox_dead, each up to 10,000.
	Held, Dead int64
	Relays     []RelayStats
}

// RelayStats is the lease of a shard.
type RelayStats struct {
	Shard  int
	Holder string // empty: none
	Epoch  int64  // counts the holders
	Since  time.Time
	Active bool   // its backend is there, and has renewed the lease within a minute
	Paused string // why nothing is published, if so
}

const (
	statsSQL = `with oldest as (select seq, created_at from loadline.outbox order by seq limit 1)
		select coalesce((select extract(epoch from clock_timestamp() - created_at) from oldest), 0)::float8,
		coalesce((select greatest(0, pg_sequence_last_value('loadline.outbox_seq_seq')
			- greatest(seq - 1, (select min(position) from loadline.outbox_relay))) from oldest), 0),
		pg_table_size('loadline.outbox'),
		coalesce((select extract(epoch from clock_timestamp() - created_at) from loadline.outbox_invalidation order by seq limit 1), 0)::float8,
		(select count(*) from (select from loadline.outbox_held limit 10000) h),
		(select count(*) from (select from loadline.outbox_dead limit 10000) d)`
	relaysSQL = `select shard, holder, epoch, taken_at, paused, pid <> 0 and renewed_at > clock_timestamp() - interval '1 minute'
		and exists (select from pg_stat_activity a where a.pid = l.pid and (a.backend_start = l.backend_start or a.backend_start is null))
		from loadline.outbox_relay l where epoch > 0 order by shard`
)

// ReadStats reads them, from any process.
func ReadStats(ctx context.Context, db DB) (Stats, error) {
	var s Stats
	err := s.scan(db.QueryRow(ctx, statsSQL))
	if err != nil {
		return Stats{}, fmt.Errorf("outbox: stats: %w", missing(err))
	}
	rows, _ := db.Query(ctx, relaysSQL)
	s.Relays, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (r RelayStats, err error) {
		err = row.Scan(&r.Shard, &r.Holder, &r.Epoch, &r.Since, &r.Paused, &r.Active)
		if !r.Active {
			r.Holder = ""
		}
		return r, err
	})
	if err != nil {
		return Stats{}, fmt.Errorf("outbox: stats: %w", missing(err))
	}
	return s, nil
}

// scan reads the row of statsSQL.
func (s *Stats) scan(row pgx.Row) error {
	var oldest, invalidations float64
	err := row.Scan(&oldest, &s.Depth, &s.Bytes, &invalidations, &s.Held, &s.Dead)
	s.Oldest, s.Invalidations = seconds(oldest), seconds(invalidations)
	return err
}

func seconds(s float64) time.Duration { return time.Duration(max(0, s) * float64(time.Second)) }
