package outbox

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/loadlinehq/loadline/causal"
	"github.com/loadlinehq/loadline/events"
)

// session is a relay while it has the lease. One goroutine does all of it, except for the
// call of the driver, during which no transaction is open.
type session struct {
	r     *Relay
	l     *lease
	rows  tracker
	cache caching
	held  map[int64]hold
	heed  bool       // held is to be read again
	done  settlement // to be written with the next claim
	due   bool       // there may be rows

	batch     []entry // that is being published, or failed to be encoded
	published chan []error
	cancel    context.CancelFunc
	outcome   []error // of batch, of those that the driver has not got
	sent      []int   // of batch: those that it has

	paused    string
	probe     backoff
	nextRound time.Time
	check     backoffTimer
	nextDay   time.Time // when partitions are looked at
}

// lead relays until ctx is done, and then returns nil; or until the lease or the
// connection is lost.
func (s *session) lead(ctx context.Context) error {
	r := s.r
	tick := time.NewTicker(r.c.Poll)
	defer tick.Stop()
	defer s.check.stop()
	defer s.abandon()
	defer r.m.active.Store(false)
	defer r.m.pause(pauseNone)
	s.due, s.cache.due, s.cache.epoch = true, r.c.Invalidator != nil, s.l.cache
	if r.c.Invalidator != nil {
		now := time.Now()
		r.m.drained.Store(&now)
	}
	if err := s.tick(ctx); err != nil {
		return err
	}
	r.m.active.Store(true)
	for {
		if s.published == nil && s.due && !s.probe.waiting() {
			if err := s.step(ctx); err != nil {
				return err
			}
			if ctx.Err() == nil && s.published == nil && s.due && !s.probe.waiting() {
				continue
			}
		}
		var probe <-chan time.Time
		if s.published == nil && s.due {
			probe = time.After(time.Until(s.probe.until))
		}
		select {
		case <-ctx.Done():
			return s.end(ctx)
		case errs := <-s.published:
			if err := s.collect(ctx, errs); err != nil {
				return err
			}
		case <-r.wake:
			s.due, s.cache.due = true, r.c.Invalidator != nil
			if s.published != nil || s.probe.waiting() { // otherwise with the next step
				if err := s.invalidate(ctx); err != nil {
					return err
				}
			}
		case <-probe:
		case <-s.check.C():
			if err := s.rounds(ctx, false); err != nil {
				return err
			}
		case <-tick.C:
			if err := s.tick(ctx); err != nil {
				return err
			}
		}
	}
}

// end publishes nothing more, waits for what is being published, and gives the lease back.
func (s *session) end(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	if s.published != nil {
		if err := s.collect(ctx, <-s.published); err != nil {
			return err
		}
	}
	if err := s.flush(ctx); err != nil {
		return err
	}
	s.l.giveBack(ctx)
	return nil
}

// abandon ends the call of the driver, and waits for it: nothing of this session may be
// sent once another has begun.
func (s *session) abandon() {
	if s.published != nil {
		s.cancel()
		<-s.published
		s.published = nil
	}
}

// send sends a batch as one transaction: one that is sent without BEGIN ends with its
// last statement.
func (s *session) send(ctx context.Context, b *pgx.Batch) error {
	if b.Len() == 0 {
		return nil
	}
	// The server's own timeout comes first, unless it is gone.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.r.c.StatementTimeout+time.Second)
	defer cancel()
	if err := s.l.conn.SendBatch(ctx, b).Close(); err != nil {
		return fmt.Errorf("outbox: relay: %w", missing(err))
	}
	return nil
}

// flush writes what has become of the rows that were published.
func (s *session) flush(ctx context.Context) error {
	var b pgx.Batch
	s.done.queue(&b, s.r.c)
	s.queueApplied(&b)
	if err := s.send(ctx, &b); err != nil {
		return err
	}
	s.settled(ctx)
	return nil
}

// step writes what has become of the rows before, takes the next ones, all in one round
// trip, and begins to publish them.
func (s *session) step(ctx context.Context) error {
	c := &s.r.c
	var b pgx.Batch
	s.done.queue(&b, *c)
	limit := c.Batch
	if s.paused != "" {
		limit = min(limit, probeBatch)
	}
	held := make(map[int64]hold)
	if s.heed { // what was written last is in it
		b.Queue(heldsSQL, c.Shard, maxHeld).Query(func(rows pgx.Rows) error { return readHeld(rows, held) })
	}
	var entries []entry
	full := s.rows.full()
	top, gaps := s.rows.from()
	if gaps == nil {
		gaps = []int64{}
	}
	b.Queue(claims[[2]bool{len(gaps) > 0, len(s.held) > 0}], top, gaps, c.Shard, limit, c.MaxBatchBytes).Query(func(rows pgx.Rows) (err error) {
		entries, err = readEntries(rows)
		return err
	})
	// After the events, so that what their transactions invalidate is seen as well.
	s.cache.due = c.Invalidator != nil
	invalidations := s.queueInvalidations(&b)
	var text string
	b.Queue(positionSQL).QueryRow(func(row pgx.Row) error { return row.Scan(&text) })
	began := time.Now()
	if err := s.send(ctx, &b); err != nil {
		return err
	}
	if full {
		s.nextRound = time.Now().Add(scanShare * time.Since(began))
	}
	s.settled(ctx)
	lsn, err := position(text)
	if err != nil {
		return err
	}
	bytes := 0
	for i := range entries {
		bytes += len(entries[i].message.Payload)
	}
	s.rows.scanned(seqsOf(entries), len(entries) == limit || bytes >= c.MaxBatchBytes)
	if invalidations {
		if s.apply(ctx, lsn); s.cache.due {
			if err := s.invalidate(ctx); err != nil {
				return err
			}
		}
	}
	s.due = len(entries) > 0
	if s.heed {
		s.heed, s.held = false, held
		s.due = s.release() || s.due
	}
	if len(entries) == 0 {
		return nil
	}
	return s.publish(ctx, entries, lsn)
}

// publish encodes what was claimed, and has the driver called.
func (s *session) publish(ctx context.Context, entries []entry, lsn causal.LSN) error {
	c := &s.r.c
	s.batch, s.outcome, s.sent = entries, make([]error, len(entries)), s.sent[:0]
	raws := make([]events.Raw, 0, len(entries))
	var failed map[string]bool // keys of which an event is not what can be published
	for i := range entries {
		m := entries[i].message // a copy
		if failed[m.Key] {
			s.outcome[i] = errBehind
			continue
		}
		m.Token, m.Outbox = s.stamp(m.Token, lsn), s.l.place.row(s.batch[i].seq)
		raw, err := events.Encode(&m, c.Source)
		if err != nil {
			s.outcome[i] = err
			if m.Key != "" {
				if failed == nil {
					failed = make(map[string]bool)
				}
				failed[m.Key] = true
			}
			continue
		}
		raws = append(raws, raw)
		s.sent = append(s.sent, i)
	}
	// Who has slept may have a successor by now. The publication, too, ends before there
	// can be one.
	left := c.LeaseTTL - time.Since(s.l.renewed)
	if left <= 0 {
		return errLease
	}
	ctx, s.cancel = context.WithTimeout(context.WithoutCancel(ctx), min(c.PublishTimeout, left))
	result := make(chan []error, 1)
	s.published = result
	if len(raws) == 0 {
		result <- nil
		return nil
	}
	began := time.Now()
	ctx, spans := s.r.spans(ctx, entries, s.sent)
	go func() {
		errs := c.Driver.Publish(ctx, raws)
		s.r.m.publishing(ctx, time.Since(began))
		spans.end(errs)
		result <- errs
	}()
	return nil
}

// errBehind: an earlier event of the key has failed.
var errBehind = errors.New("outbox: behind an event of the same key that has failed")

// errUnanswered: the driver has returned too few errors.
var errUnanswered = fmt.Errorf("%w: the driver has not said what became of it", events.ErrUnavailable)

// collect sorts the outcomes of a publication.
func (s *session) collect(ctx context.Context, errs []error) error {
	s.cancel()
	s.published = nil
	for n, i := range s.sent {
		s.outcome[i] = errUnanswered
		if n < len(errs) {
			s.outcome[i] = errs[n]
		}
	}
	v := s.judge(ctx)
	s.batch, s.outcome = nil, nil
	if v.away == nil {
		s.resume(ctx)
		return nil // the next step writes it
	}
	s.pause(ctx, v)
	return s.flush(ctx)
}

// pause waits for the broker. No attempt is counted, and no transaction is open.
func (s *session) pause(ctx context.Context, v verdict) {
	if v.sent > 0 {
		s.probe.reset()
	}
	s.probe.longer(probeMax)
	reason := pauseUnavailable
	if errors.Is(v.away, events.ErrBackpressure) {
		reason = pauseBackpressure
	}
	if s.paused == "" && v.sent == 0 {
		s.r.c.Logger.WarnContext(ctx, "outbox: paused; events wait in the database", "reason", string(reason), "error", v.away)
	}
	if v.sent == 0 {
		s.paused = string(reason)
		s.r.m.pause(reason)
	}
	s.due = true
}

func (s *session) resume(ctx context.Context) {
	if s.paused != "" {
		s.r.c.Logger.InfoContext(ctx, "outbox: the broker takes events again")
	}
	s.paused = ""
	s.probe.reset()
	s.r.m.pause(pauseNone)
}

// tick renews the lease, and begins rounds.
func (s *session) tick(ctx context.Context) error {
	if err := s.renew(ctx); err != nil {
		return err
	}
	if err := s.r.look(ctx, s.l.conn); err != nil {
		return err
	}
	if err := s.maintain(ctx); err != nil {
		return err
	}
	s.due, s.heed, s.cache.due = true, true, s.r.c.Invalidator != nil
	if err := s.rounds(ctx, true); err != nil {
		return err
	}
	if s.published != nil || s.probe.waiting() { // otherwise with the next step
		return s.invalidate(ctx)
	}
	return nil
}

// renew renews the lease, and says in it how far this has come.
func (s *session) renew(ctx context.Context) error {
	var b pgx.Batch
	var top, low, invalidations *int64
	if s.rows.settled {
		top, low = new(s.rows.top), new(s.low())
	}
	if s.cache.settled {
		invalidations = new(s.cache.low())
	}
	sent, renewed, text := time.Now(), false, ""
	b.Queue(renewSQL, s.l.shard, s.l.epoch, s.paused, top, low, invalidations, int64(s.cache.epoch)).Exec(func(tag pgconn.CommandTag) error {
		renewed = tag.RowsAffected() == 1
		return nil
	})
	b.Queue(positionSQL).QueryRow(func(row pgx.Row) error { return row.Scan(&text) })
	if err := s.send(ctx, &b); err != nil {
		return err
	}
	if !renewed {
		return errLease
	}
	s.l.renewed = sent
	lsn, err := position(text)
	if err == nil {
		s.beat(ctx, lsn)
	}
	return err
}

// low is a number that no row is below.
func (s *session) low() int64 {
	low := s.rows.low()
	if len(s.batch) > 0 {
		low = min(low, s.batch[0].seq)
	}
	for seq := range s.held {
		low = min(low, seq)
	}
	return low
}

// rounds asks for the transactions that may hold rows, and begins rounds where it is time.
func (s *session) rounds(ctx context.Context, begin bool) error {
	caching := s.r.c.Invalidator != nil
	begin = begin && time.Now().After(s.nextRound) && (s.rows.round == nil || caching && s.cache.round == nil)
	waiting := func(t *tracker) bool { return t.round != nil && !t.round.over }
	if !begin && !waiting(&s.rows) && !waiting(&s.cache.tracker) {
		return nil
	}
	var b pgx.Batch
	var text string
	var last, lastInvalidation int64
	var rowHolders, cacheHolders []string
	if begin {
		b.Queue(lastSQL).QueryRow(func(row pgx.Row) error { return row.Scan(&text, &last, &lastInvalidation) })
	}
	b.Queue(holdersSQL).Query(func(rows pgx.Rows) error {
		for rows.Next() {
			var ofRows bool
			var holders []string
			if err := rows.Scan(&ofRows, &holders); err != nil {
				return err
			}
			if ofRows {
				rowHolders = holders
			} else {
				cacheHolders = holders
			}
		}
		return rows.Err()
	})
	if err := s.send(ctx, &b); err != nil {
		return err
	}
	s.rows.holding(rowHolders)
	s.cache.holding(cacheHolders)
	if begin {
		lsn, err := position(text)
		if err != nil {
			return err
		}
		s.rows.begin(last, lsn, rowHolders)
		s.check.reset()
		if caching {
			s.cache.begin(lastInvalidation, lsn, cacheHolders)
		}
	}
	if s.rows.full() {
		s.due = true
	}
	if waiting(&s.rows) || waiting(&s.cache.tracker) {
		s.check.again(s.r.c.Poll)
	}
	if caching && s.cache.full() {
		s.cache.due = true
		if s.published != nil || s.probe.waiting() || !s.due {
			return s.invalidate(ctx)
		}
	}
	return nil
}

// backoffTimer fires soon at first, and later each time.
type backoffTimer struct {
	timer *time.Timer
	delay time.Duration
}

func (b *backoffTimer) reset() { b.delay = 0 }

func (b *backoffTimer) again(most time.Duration) {
	b.stop()
	b.delay = min(max(2*b.delay, roundCheck), most)
	b.timer = time.NewTimer(b.delay)
}

func (b *backoffTimer) stop() {
	if b.timer != nil {
		b.timer.Stop()
	}
}

func (b *backoffTimer) C() <-chan time.Time {
	if b.timer == nil {
		return nil
	}
	return b.timer.C
}
