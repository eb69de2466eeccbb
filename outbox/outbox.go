package outbox

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/loadlinehq/loadline/events"
)

// Config has a usable zero value.
type Config struct {
	// MaxBufferBytes bounds what the outbox may hold, on disk, events and invalidations together;
	// more is refused, by a [*FullError]. It is looked at once a second by each process that adds, so the
	// outbox can grow past it by what they add in that time, and is an estimate, by the mean size
	// of what this process has added. Too small, and a broker that restarts
	// refuses writes; too large, and one that stays away fills the disk of the database,
	// which refuses all writes. Default 10 GiB; negative: no bound.
	MaxBufferBytes int64
	// RetryAfter is what clients are told when the outbox is full. Default 5 s.
	RetryAfter time.Duration
	// Shards is how many relays share the work, each with its shard: one publishes tens of
	// thousands of events a second. A key stays in its shard; more shards later means
	// that keys move, so empty the outbox first. Default 1.
	Shards int
}

// DefaultMaxBufferBytes is that of the stream that it goes to: half a day of 500 events of 300
// bytes a second. A guess at what the disk of a database has to spare.
const DefaultMaxBufferBytes = 10 << 30

// DefaultRetryAfter is a guess: in that time a relay has published a hundred thousand.
const DefaultRetryAfter = 5 * time.Second

// MaxShards bounds Config.Shards: 64 relays are 64 connections.
const MaxShards = 64

// Validate reports all fields that cannot be.
func (c Config) Validate() error {
	var errs []error
	if c.RetryAfter < 0 {
		errs = append(errs, fmt.Errorf("outbox: Config.RetryAfter is %v, less than nothing", c.RetryAfter))
	}
	if c.Shards < 0 || c.Shards > MaxShards {
		errs = append(errs, fmt.Errorf("outbox: Config.Shards is %d, and should be 1 to %d", c.Shards, MaxShards))
	}
	return errors.Join(errs...)
}

// Outbox is for writers: it adds events and invalidations to their transactions, and refuses them
// when too many wait. A process needs one per database. It may be used by several goroutines.
type Outbox struct {
	max        int64 // 0: none
	retryAfter time.Duration
	shards     int

	mu       sync.Mutex
	lookedAt time.Time
	held     int64       // bytes, when it was last looked at
	looking  atomic.Bool // somebody is

	events, invalidations volume
}

// volume is what this process has added to a table, for the mean of a row.
type volume struct{ rows, size atomic.Int64 }

func (v *volume) add(rows, size int) {
	v.rows.Add(int64(rows))
	v.size.Add(int64(size))
}

// bytes estimates what so many rows take. It is no more than the table does, which has the
// space of rows that are gone as well.
func (v *volume) bytes(rows, table int64) int64 {
	mean := float64(rowOverhead)
	if n := v.rows.Load(); n > 0 {
		mean = float64(v.size.Load()) / float64(n)
	}
	return min(int64(math.Ceil(float64(max(rows, 0))*mean)), table)
}

// New returns an outbox with a bound.
func New(c Config) (*Outbox, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	if c.RetryAfter == 0 {
		c.RetryAfter = DefaultRetryAfter
	}
	c.MaxBufferBytes = cmp.Or(c.MaxBufferBytes, DefaultMaxBufferBytes)
	return &Outbox{max: max(c.MaxBufferBytes, 0), retryAfter: c.RetryAfter, shards: max(c.Shards, 1)}, nil
}

// ErrFull is in each [*FullError].
var ErrFull = errors.New("outbox: it is full")

// FullError says that the outbox holds too much: its relay, the broker or the cache is away or too
// slow. The event or invalidation was not added.
type FullError struct {
	Bytes, Max int64
	after      time.Duration
}

func (e *FullError) Error() string {
	return fmt.Sprintf("outbox: it holds about %d bytes, more than %d: is the relay running, the broker taking events, and the cache invalidations?", e.Bytes, e.Max)
}

// Unwrap returns [ErrFull].
func (e *FullError) Unwrap() error { return ErrFull }

// HTTPStatus is 503.
func (e *FullError) HTTPStatus() int { return http.StatusServiceUnavailable }

// RetryAfter is Config.RetryAfter.
func (e *FullError) RetryAfter() time.Duration { return e.after }

const (
	// rowOverhead is what a row takes beside its payload: 420 bytes of a 300 byte event. An
	// invalidation's is less: 95 bytes.
	rowOverhead = 120
	// lookEvery is how old the known size may be.
	lookEvery = time.Second
	// sizeSQL has, of events and of invalidations, two figures; the smaller one counts. How many rows there are, by
	// the difference of the numbers, is too high by those that were rolled back and all that came after
	// one that is held, and too low by those that were revived below low_water, or are of a
	// shard that no relay has ever had; and their mean size is only known of this process. The size of the
	// table is never too low, and has the space of rows that are gone, until vacuum gives it back. Shards that
	// are no more have rows, too: those that nobody has renewed for an hour, while others have, do not count.
	sizeSQL = `select coalesce(pg_sequence_last_value('loadline.outbox_seq_seq'), 0)
		- coalesce((select min(low_water) from loadline.outbox_relay where renewed_at > (select max(renewed_at) from loadline.outbox_relay) - interval '1 hour'), 0),
		pg_table_size('loadline.outbox'), coalesce(pg_sequence_last_value('loadline.outbox_invalidation_seq_seq'), 0)
		- coalesce((select max(invalidation_low) from loadline.outbox_relay), 0), pg_table_size('loadline.outbox_invalidation')`
)

func (o *Outbox) shardOf(m *events.Message) int16 {
	if o.shards == 1 {
		return 0
	}
	h := fnv.New32a()
	if m.Key != "" {
		_, _ = h.Write([]byte(m.Key))
	} else {
		_, _ = h.Write([]byte(m.ID))
	}
	return int16(h.Sum32() / events.Partitions % uint32(o.shards)) // not by what the partition is
}

// admit refuses what is too much. While there is room, the size is asked for in the round trip of
// the insert, and is for the next one.
func (o *Outbox) admit(ctx context.Context, tx Tx, b *pgx.Batch) error {
	if o.max == 0 {
		return nil
	}
	old, err := o.state()
	if !old || !o.looking.CompareAndSwap(false, true) {
		return err
	}
	defer o.looking.Store(false)
	if err == nil {
		b.Queue(sizeSQL).QueryRow(o.looked)
		return nil
	}
	var alone pgx.Batch // is it still?
	alone.Queue(sizeSQL).QueryRow(o.looked)
	if err := tx.SendBatch(ctx, &alone).Close(); err != nil {
		return fmt.Errorf("outbox: size: %w", missing(err))
	}
	_, err = o.state()
	return err
}

// admitQueued is admit without a transaction to ask in: of those that come while it is full, one
// in a second is let through, and looks.
func (o *Outbox) admitQueued(b *pgx.Batch) error {
	if o.max == 0 {
		return nil
	}
	old, err := o.state()
	if !old {
		return err
	}
	o.mu.Lock()
	o.lookedAt = time.Now()
	o.mu.Unlock()
	b.Queue(sizeSQL).QueryRow(o.looked)
	return nil
}

// state returns whether it is time to look again, and the error of a full outbox.
func (o *Outbox) state() (old bool, full error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.held > o.max {
		full = &FullError{Bytes: o.held, Max: o.max, after: o.retryAfter}
	}
	return time.Since(o.lookedAt) > lookEvery, full
}

func (o *Outbox) looked(row pgx.Row) error {
	var rows, table, invalidations, invalidationTable int64
	if err := row.Scan(&rows, &table, &invalidations, &invalidationTable); err != nil {
		return err
	}
	o.mu.Lock()
	o.held, o.lookedAt = o.events.bytes(rows, table)+o.invalidations.bytes(invalidations, invalidationTable), time.Now()
	o.mu.Unlock()
	return nil
}
