package outbox

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/loadlinehq/loadline/events"
)

// hold is a row of outbox_held.
type hold struct {
	key      string
	attempts int
	first    time.Time
	due      bool // for another attempt
	dead     bool
	over     bool // somebody has seen to it
}

func readHeld(rows pgx.Rows, held map[int64]hold) error {
	for rows.Next() {
		var seq int64
		var h hold
		if err := rows.Scan(&seq, &h.key, &h.attempts, &h.first, &h.due, &h.dead, &h.over); err != nil {
			return err
		}
		held[seq] = h
	}
	return rows.Err()
}

// settlement is what has become of rows and is not yet in the database.
type settlement struct {
	sent     []int64
	released []int64
	failed   []failure
}

type failure struct {
	seq    int64
	hold   hold
	dies   bool
	blocks bool
	wait   time.Duration
	reason string
	err    string
}

func (d *settlement) queue(b *pgx.Batch, c RelayConfig) {
	if len(d.sent) > 0 && c.Retention < 0 {
		b.Queue(unarchivedSQL, d.sent)
	} else if len(d.sent) > 0 {
		b.Queue(sentSQL, d.sent)
	}
	for i := range d.failed {
		f := &d.failed[i]
		if !f.dies || f.blocks {
			b.Queue(holdSQL, f.seq, c.Shard, f.hold.key, f.hold.attempts, f.hold.first, f.wait)
		}
		if f.dies {
			b.Queue(dieSQL, f.seq, f.reason, f.err, f.hold.attempts, f.hold.first)
		}
		if f.blocks {
			b.Queue(blockSQL, f.seq, f.hold.attempts)
		}
	}
	if len(d.released) > 0 {
		b.Queue(releaseSQL, d.released)
	}
}

// settled counts what has been written.
func (s *session) settled(ctx context.Context) {
	m := s.r.m
	m.published.Add(ctx, int64(len(s.done.sent)), m.shard)
	for i := range s.done.failed {
		m.failed.Add(ctx, 1, m.shard, reasonOf(s.done.failed[i].reason))
		if s.done.failed[i].dies {
			m.dead.Add(ctx, 1, m.shard)
		}
	}
	s.done = settlement{}
}

// Reasons of rows that are dead.
const (
	reasonRejected    = "rejected"    // by the broker
	reasonUnencodable = "unencodable" // it is no event
)

// verdict is on a batch.
type verdict struct {
	sent int
	away error // the broker's own, of the batch
}

// judge sorts a batch: what is stored is done; what the broker, or the encoder, has
// refused for itself counts an attempt; all else stays as it was and is claimed again. Of
// a key, the first failure alone counts: those after it are refused because of it.
func (s *session) judge(ctx context.Context) verdict {
	var v verdict
	failed := make(map[string]bool)
	again := int64(0)
	for i := range s.batch {
		e, err := &s.batch[i], s.outcome[i]
		key := e.message.Key
		switch {
		case err == nil:
			v.sent++
			s.done.sent = append(s.done.sent, e.seq)
			if _, was := s.held[e.seq]; was {
				s.free(e.seq)
			}
		case key != "" && failed[key], errors.Is(err, errBehind):
			// It waits for the one before.
		case errors.Is(err, events.ErrRejected), errors.Is(err, events.ErrMessage):
			if key != "" {
				failed[key] = true
			}
			s.fail(ctx, e, err)
		default:
			if v.away == nil {
				v.away = err
			}
			if again == 0 {
				again = e.seq
			}
		}
	}
	if again != 0 {
		s.rows.rewind(again)
	}
	return v
}

// fail counts an attempt, the last one perhaps.
func (s *session) fail(ctx context.Context, e *entry, err error) {
	c := &s.r.c
	h, was := s.held[e.seq]
	if !was {
		h = hold{key: e.message.Key, first: time.Now()}
	}
	h.attempts++
	f := failure{seq: e.seq, hold: h, reason: reasonRejected, err: err.Error(), wait: c.RetryDelay}
	if errors.Is(err, events.ErrMessage) {
		f.reason = reasonUnencodable
	}
	for range h.attempts - 1 {
		f.wait = min(f.wait*retryFactor, time.Hour)
	}
	if len(f.err) > maxError {
		f.err = f.err[:maxError]
	}
	f.dies = h.attempts >= c.MaxAttempts
	f.blocks = f.dies && c.OnPoison == Block && h.key != ""
	level := "outbox: an event was refused, and is tried again"
	if f.dies {
		level = "outbox: an event is dead; see loadline.outbox_dead"
	}
	c.Logger.WarnContext(ctx, level, "type", e.message.Type, "id", e.message.ID, "attempt", h.attempts, "error", err)
	s.done.failed = append(s.done.failed, f)
	if f.dies && !f.blocks {
		s.free(e.seq)
		return
	}
	h.due, h.dead = false, f.blocks
	if s.held == nil {
		s.held = make(map[int64]hold)
	}
	s.held[e.seq] = h
}

const maxError = 1000 // bytes of an error's text that are kept

// free lets the key of a row go on. What was passed over meanwhile comes again.
func (s *session) free(seq int64) {
	if _, was := s.held[seq]; was {
		s.done.released = append(s.done.released, seq)
		delete(s.held, seq)
	}
	s.rows.rewind(seq)
}

// release frees what somebody has seen to, and has what is due tried again. It reports
// whether there is any.
func (s *session) release() (any bool) {
	for seq, h := range s.held {
		switch {
		case h.over:
			s.free(seq)
			any = true
		case h.due && !h.dead && !slices.ContainsFunc(s.batch, func(e entry) bool { return e.seq == seq }):
			s.rows.rewind(seq)
			any = true
		}
	}
	return any
}
