package outbox

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/loadlinehq/loadline/causal"
)

// place is where an outbox is: the database of a cluster, and the timeline that the cluster
// is on.
type place struct {
	system   uint64
	timeline uint32
	database uint32
}

// placeSQL: the name of a file in the log begins with the timeline.
const placeSQL = `select system_identifier, ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::bigint,
	(select oid::bigint from pg_database where datname = current_database()) from pg_control_system()`

func placeOf(ctx context.Context, db interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
},
) (place, error) {
	var system, timeline, database int64 // numbers above 2^63 are negative in PostgreSQL's bigint
	if err := db.QueryRow(ctx, placeSQL).Scan(&system, &timeline, &database); err != nil {
		return place{}, fmt.Errorf("outbox: position: %w", err)
	}
	return place{uint64(system), uint32(timeline), uint32(database)}, nil
}

func (p place) mark(lsn causal.LSN) causal.Mark {
	return causal.Mark{System: p.system, Timeline: p.timeline, LSN: lsn}
}

// row names a row of the outbox, for [Cause].
func (p place) row(seq int64) string {
	return fmt.Sprintf("%d.%d.%d", p.system, p.database, seq)
}

// parseRow returns a place without a timeline.
func parseRow(name string) (in place, seq int64, ok bool) {
	parts := strings.Split(name, ".")
	if len(parts) != 3 {
		return place{}, 0, false
	}
	system, err1 := strconv.ParseUint(parts[0], 10, 64)
	database, err2 := strconv.ParseUint(parts[1], 10, 32)
	seq, err3 := strconv.ParseInt(parts[2], 10, 64)
	return place{system: system, database: uint32(database)}, seq, errors.Join(err1, err2, err3) == nil
}

const (
	walPage     = 8192
	walSegment  = 16 << 20 // the least; larger ones are multiples of it
	shortHeader = 24
	longHeader  = 40 // of a segment's first page
)

// position reads an insert position, which is past every commit that can be seen. A record
// that ends with its page has the next one's header after it, which no replica replays
// before there is another record; so the header is taken off. No record can end within a
// header, so this is never too low. (Package db has the same.)
func position(text string) (causal.LSN, error) {
	lsn, err := causal.ParseLSN(text)
	switch {
	case lsn%walSegment == longHeader:
		return lsn - longHeader, err
	case lsn%walPage == shortHeader:
		return lsn - shortHeader, err
	}
	return lsn, err
}
