package outbox

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/loadlinehq/loadline/causal"
)

// Invalidator is a cache that is told what has changed. Its methods are called one at a
// time.
type Invalidator interface {
	// Apply invalidates what the records name; each is what the cache has given to its writer. Fence is
	// at or past the commits that they come from, and no value older than it may be cached
	// again. Its Epoch is the one that Apply or Tick has returned last, of whichever relay, 0 if none has: all
	// that is not among records any more was applied in it, or before it began. It returns the fence with the
	// epoch and the number that the cache has given to the last of them; number 0 if it gives none. After an
	// error all of them come again.
	Apply(ctx context.Context, fence causal.Mark, records [][]byte) (causal.Mark, error)
	// Drained says that the records of each commit up to a mark have been applied, in its Epoch or before that began. It is called
	// once a second, unless the cache, the relay or a writer's transaction is in the way.
	Drained(ctx context.Context, upTo causal.Mark) error
	// Tick says that the relay is there, once a second. Now is a position at or past all that
	// was applied before, by this relay and those before it; its Epoch is as in Apply. It returns the
	// epoch that is open now.
	Tick(ctx context.Context, now causal.Mark) (epoch uint64, err error)
}

// MaxRecord bounds an invalidation, in bytes: a key and what belongs to it.
const MaxRecord = 4096

// AddInvalidation adds what caches must be told of to a transaction: the relay applies it before it publishes the
// events of the same transaction, and holds it for as long as the cache is away. There is no
// bound on what is held; see [Outbox.AddInvalidation].
func AddInvalidation(ctx context.Context, tx Tx, records ...[]byte) error {
	return unbounded.AddInvalidation(ctx, tx, records...)
}

// QueueInvalidation is AddInvalidation for a batch that the caller sends.
func QueueInvalidation(b *pgx.Batch, records ...[]byte) error {
	return unbounded.QueueInvalidation(b, records...)
}

// AddInvalidation is like the function [AddInvalidation], and returns a [*FullError] when the
// outbox holds too much. The transaction must be rolled back then: committed without it, the cache
// would keep what was before.
func (o *Outbox) AddInvalidation(ctx context.Context, tx Tx, records ...[]byte) error {
	if len(records) == 0 {
		return nil
	}
	var b pgx.Batch
	if err := o.queueInvalidation(&b, records); err != nil {
		return err
	}
	if err := o.admit(ctx, tx, &b); err != nil {
		return err
	}
	if err := tx.SendBatch(ctx, &b).Close(); err != nil {
		return fmt.Errorf("outbox: add invalidation: %w", missing(err))
	}
	return nil
}

// QueueInvalidation is like the function [QueueInvalidation], and returns a [*FullError] when
// the outbox held too much when it was last looked at. The batch must not be committed then.
func (o *Outbox) QueueInvalidation(b *pgx.Batch, records ...[]byte) error {
	if len(records) == 0 {
		return nil
	}
	if err := o.admitQueued(b); err != nil {
		return err
	}
	return o.queueInvalidation(b, records)
}

func (o *Outbox) queueInvalidation(b *pgx.Batch, records [][]byte) error {
	if len(records) > MaxMessages {
		return fmt.Errorf("outbox: %d invalidations in one call are more than %d", len(records), MaxMessages)
	}
	size := 0
	for _, record := range records {
		if len(record) == 0 || len(record) > MaxRecord {
			return fmt.Errorf("outbox: an invalidation of %d bytes should have 1 to %d", len(record), MaxRecord)
		}
		size += rowOverhead + len(record)
	}
	o.invalidations.add(len(records), size)
	b.Queue("insert into loadline.outbox_invalidation (record) select unnest($1::bytea[])", records)
	return nil
}

const (
	invalidationsSQL = `select seq, record from (
		(select seq, record from loadline.outbox_invalidation where seq = any($2::bigint[]) order by seq limit $3)
		union all (select seq, record from loadline.outbox_invalidation where seq > $1 order by seq limit $3)) r order by seq limit $3`
	appliedSQL    = "delete from loadline.outbox_invalidation where seq = any($1::bigint[])"
	cacheEpochSQL = "update loadline.outbox_relay set cache_epoch = $3 where shard = $1 and epoch = $2 and cache_epoch <> $3"
)

// caching is what a session knows of the cache.
type caching struct {
	tracker
	applied []int64     // and not yet deleted
	epoch   uint64      // of the cache, that what is deleted was applied in, or that was opened later
	mark    causal.Mark // epoch and number of what was applied last
	due     bool        // something may not have been applied
	drained *round      // that the present pass completes
	wait    backoff

	// of the scan that was queued last
	seqs    []int64
	records [][]byte
	more    bool
}

// queueApplied deletes what was applied, and says in which epoch that is: a successor takes over no other.
func (s *session) queueApplied(b *pgx.Batch) {
	c := &s.cache
	if len(c.applied) > 0 {
		b.Queue(appliedSQL, c.applied)
		b.Queue(cacheEpochSQL, s.l.shard, s.l.epoch, int64(c.epoch))
		c.applied = nil
	}
}

// queueInvalidations adds the scan to a batch, unless there is no cache, or it is away.
func (s *session) queueInvalidations(b *pgx.Batch) bool {
	s.queueApplied(b) // also while the cache is away
	c := &s.cache
	if !c.due || c.wait.waiting() {
		return false
	}
	top, gaps := c.from()
	if gaps == nil {
		gaps = []int64{}
	}
	c.seqs, c.records = nil, nil
	b.Queue(invalidationsSQL, top, gaps, invalidationBatch).Query(func(rows pgx.Rows) error {
		for rows.Next() {
			var seq int64
			var record []byte
			if err := rows.Scan(&seq, &record); err != nil {
				return err
			}
			c.seqs, c.records = append(c.seqs, seq), append(c.records, record)
		}
		return rows.Err()
	})
	return true
}

// apply applies what the scan has found, at a position that was read after it.
func (s *session) apply(ctx context.Context, lsn causal.LSN) {
	c := &s.cache
	c.more = len(c.seqs) == invalidationBatch
	if settled := c.scanned(c.seqs, c.more); settled != nil {
		c.drained = settled
	}
	ctx, cancel := context.WithTimeout(ctx, s.r.c.ApplyTimeout)
	defer cancel()
	if len(c.seqs) > 0 {
		mark, err := s.r.c.Invalidator.Apply(ctx, s.cacheMark(lsn), c.records)
		if err != nil {
			s.cacheAway(ctx, err)
			return
		}
		c.applied, c.mark, c.epoch = c.seqs, mark, mark.Epoch
		s.r.m.applied.Add(ctx, int64(len(c.seqs)))
	}
	if c.more {
		return
	}
	c.due = false
	if c.drained != nil {
		if err := s.r.c.Invalidator.Drained(ctx, s.cacheMark(c.drained.lsn)); err != nil {
			s.cacheAway(ctx, err)
			return
		}
		s.r.m.drained.Store(&c.drained.began)
		c.drained = nil
	}
	c.wait.reset()
}

// cacheAway leaves the records where they are. Until all have been applied, events have
// no number, and nothing is said to be drained.
func (s *session) cacheAway(ctx context.Context, err error) {
	c := &s.cache
	if c.wait.delay == 0 && context.Cause(ctx) != context.Canceled {
		s.r.c.Logger.WarnContext(ctx, "outbox: the cache does not take invalidations; they are held, and events go on", "error", err)
	}
	c.wait.longer(s.r.c.Poll) // so that a cache that comes back is told soon
	c.mark, c.drained, c.due = causal.Mark{}, nil, true
	if len(c.seqs) > 0 {
		c.rewind(c.seqs[0])
	}
}

// beat tells the cache that the relay is there, at a position that was read after its lease was
// renewed.
func (s *session) beat(ctx context.Context, lsn causal.LSN) {
	if s.r.c.Invalidator == nil || s.cache.wait.waiting() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, s.r.c.ApplyTimeout)
	defer cancel()
	epoch, err := s.r.c.Invalidator.Tick(ctx, s.cacheMark(lsn))
	if err != nil {
		s.cacheAway(ctx, err)
		return
	}
	s.cache.epoch = epoch // the next renewal writes it
}

// cacheMark is a position, and the epoch of what was invalidated before it.
func (s *session) cacheMark(lsn causal.LSN) causal.Mark {
	m := s.l.place.mark(lsn)
	m.Epoch = s.cache.epoch
	return m
}

// invalidate applies all that there is.
func (s *session) invalidate(ctx context.Context) error {
	for range maxPasses {
		var b pgx.Batch
		if !s.queueInvalidations(&b) {
			return s.send(ctx, &b)
		}
		var text string
		b.Queue(positionSQL).QueryRow(func(row pgx.Row) error { return row.Scan(&text) })
		if err := s.send(ctx, &b); err != nil {
			return err
		}
		lsn, err := position(text)
		if err != nil {
			return err
		}
		s.apply(ctx, lsn)
	}
	return nil
}

// maxPasses is of invalidations before the relay looks at the events again.
const maxPasses = 100

// stamp says what an event's readers must see: its writer's commit, and all that the writer
// had seen. The invalidations of all that can be seen have been applied, so the number
// stands for what the writer's own token says of this log as well.
func (s *session) stamp(t causal.Token, lsn causal.LSN) causal.Token {
	m := s.l.place.mark(lsn)
	if n := s.cache.mark; n.Number > 0 && !s.cache.due {
		m.Epoch, m.Number = n.Epoch, n.Number
		if own, ok := t.Mark(m.System); ok && own.Timeline == m.Timeline && own.LSN <= m.LSN {
			t = t.Without(own)
		}
	}
	return t.Add(m)
}

// backoff is the wait between two tries of something that is away.
type backoff struct {
	delay time.Duration
	until time.Time
}

func (b *backoff) longer(most time.Duration) {
	b.delay = min(max(2*b.delay, probeMin), most)
	b.until = time.Now().Add(b.delay)
}

func (b *backoff) reset()        { *b = backoff{} }
func (b *backoff) waiting() bool { return time.Now().Before(b.until) }
