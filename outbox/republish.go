package outbox

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/time/rate"

	"github.com/loadlinehq/loadline/events"
)

// Filter says which events of the archive are published again. Empty fields say nothing.
type Filter struct {
	Types  []string
	Keys   []string
	Tenant string
}

// RepublishConfig has a usable zero value.
type RepublishConfig struct {
	// Source says who writes the events, as RelayConfig.Source does. Default "/".
	Source string
	// PerSecond is how many events are published in a second, at most. Default 500. Consumers
	// have to handle them beside the new ones.
	PerSecond int
	// Batch is how many are published at once. Default 100.
	Batch int
	// DryRun counts, and publishes nothing.
	DryRun bool
	// PublishTimeout bounds one call of the driver. Default 5 s.
	PublishTimeout time.Duration
	// Progress is told after each batch, if it is not nil.
	Progress func(Republished)
}

// Defaults of [RepublishConfig]. Guesses: a tenth of what handlers with a transaction each
// have done, and a batch within a fifth of a second.
const (
	DefaultRepublishRate  = 500
	DefaultRepublishBatch = 100
)

// Republished counts.
type Republished struct {
	Found     int64     // by the filter
	Published int64     // of them
	Rejected  int64     // by the broker, or not to be encoded; the others go on
	Until     time.Time // all that was sent before is done: begin here after an error
}

const archiveSQL = "select " + entryColumns + `, sent_at from loadline.outbox_sent
	where (sent_at, seq) > ($1, $2) and sent_at < $3
	and (cardinality($4::text[]) = 0 or type = any($4)) and (cardinality($5::text[]) = 0 or key = any($5)) and ($6 = '' or tenant = $6)
	order by sent_at, seq limit $7`

// Republish publishes again what was published from since on and before until, for a stream
// that is lost, or a consumer that did the wrong thing. The events keep their IDs, so that
// whoever has handled one passes over it, and come in the order they were published in. They carry the
// position of now: what they tell of has long been committed.
//
// A broker that does not answer or has no room is tried again until ctx is done. No transaction
// is open meanwhile. The error says why it ended; what was counted is returned with it.
func Republish(ctx context.Context, db DB, driver events.Driver, since, until time.Time, f Filter, c RepublishConfig) (Republished, error) {
	var errs []error
	if c.PerSecond < 0 || c.Batch < 0 || c.PublishTimeout < 0 {
		errs = append(errs, fmt.Errorf("outbox: RepublishConfig.PerSecond (%d), Batch (%d) and PublishTimeout (%v) must not be negative", c.PerSecond, c.Batch, c.PublishTimeout))
	}
	if !since.Before(until) {
		errs = append(errs, fmt.Errorf("outbox: republish: since (%v) is not before until (%v)", since, until))
	}
	if err := errors.Join(errs...); err != nil {
		return Republished{}, err
	}
	orElse(&c.PerSecond, DefaultRepublishRate)
	orElse(&c.Batch, DefaultRepublishBatch)
	orElse(&c.PublishTimeout, DefaultPublishTimeout)
	orElse(&c.Source, defaultSource)
	if f.Types == nil {
		f.Types = []string{}
	}
	if f.Keys == nil {
		f.Keys = []string{}
	}
	r := republishing{db: db, driver: driver, c: c, pace: rate.NewLimiter(rate.Limit(c.PerSecond), c.Batch)}
	at, seq := since, int64(0)
	for {
		entries, sent, err := r.read(ctx, at, seq, until, f)
		if err != nil {
			return r.done, err
		}
		if len(entries) == 0 {
			r.done.Until = until
			return r.done, nil
		}
		r.done.Found += int64(len(entries))
		if !c.DryRun {
			if err := r.publish(ctx, entries); err != nil {
				return r.done, err
			}
		}
		at, seq = sent, entries[len(entries)-1].seq
		r.done.Until = at
		if c.Progress != nil {
			c.Progress(r.done)
		}
	}
}

func orElse[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

type republishing struct {
	db     DB
	driver events.Driver
	c      RepublishConfig
	pace   *rate.Limiter
	done   Republished
}

// read returns the next batch, and when the last of it was sent.
func (r *republishing) read(ctx context.Context, at time.Time, seq int64, until time.Time, f Filter) (entries []entry, sent time.Time, err error) {
	rows, err := r.db.Query(ctx, archiveSQL, at, seq, until, f.Types, f.Keys, f.Tenant, r.c.Batch)
	if err != nil {
		return nil, sent, fmt.Errorf("outbox: read the archive: %w", missing(err))
	}
	if entries, err = readEntries(rows, &sent); err != nil {
		return nil, sent, fmt.Errorf("outbox: read the archive: %w", missing(err))
	}
	return entries, sent, nil
}

// publish publishes a batch, as often as it takes.
func (r *republishing) publish(ctx context.Context, entries []entry) error {
	place, err := placeOf(ctx, r.db)
	if err != nil {
		return err
	}
	var text string
	if err := r.db.QueryRow(ctx, positionSQL).Scan(&text); err != nil {
		return fmt.Errorf("outbox: position: %w", err)
	}
	lsn, err := position(text)
	if err != nil {
		return fmt.Errorf("outbox: position: %w", err)
	}
	var left []events.Raw
	for i := range entries {
		m := &entries[i].message
		m.Token, m.Outbox = m.Token.Add(place.mark(lsn)), place.row(entries[i].seq)
		raw, err := events.Encode(m, r.c.Source)
		if err != nil {
			r.done.Rejected++
			continue
		}
		left = append(left, raw)
	}
	var wait backoff
	for len(left) > 0 {
		if err := r.pace.WaitN(ctx, len(left)); err != nil {
			return fmt.Errorf("outbox: republish: %w", err)
		}
		bounded, cancel := context.WithTimeout(ctx, r.c.PublishTimeout)
		errs := r.driver.Publish(bounded, left)
		cancel()
		var again []events.Raw
		var away error
		for i := range left {
			err := error(errUnanswered)
			if i < len(errs) {
				err = errs[i]
			}
			switch {
			case err == nil:
				r.done.Published++
			case errors.Is(err, events.ErrRejected):
				r.done.Rejected++
			default:
				again, away = append(again, left[i]), err
			}
		}
		if left = again; len(left) == 0 {
			return nil
		}
		wait.longer(probeMax)
		sleep(ctx, wait.delay)
		if ctx.Err() != nil {
			return fmt.Errorf("outbox: republish: %w: %w", context.Cause(ctx), away)
		}
	}
	return nil
}

var _ DB = pgx.Tx(nil)
