package outbox

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/metric"
)

// DefaultObserveEvery is below the interval of any exporter, and the cost of one round trip.
const DefaultObserveEvery = 5 * time.Second

const (
	readEvery   = time.Second // at most
	readTimeout = time.Second
	// staleAfter is longer than the rarest reading takes to come again: scanShare times readTimeout.
	staleAfter = 30 * time.Second
	// readTimeoutSQL is for the batch that it is in, which is one transaction. It leaves the
	// connection, and the lease that belongs to it, where a context that ends would close it.
	readTimeoutSQL = "select set_config('statement_timeout', $1, true)"
)

// ObserveConfig has a usable zero value.
type ObserveConfig struct {
	// Every is how often the database is asked. Default 5 s, and at least 1 s.
	Every         time.Duration
	Logger        *slog.Logger         // default slog.Default()
	MeterProvider metric.MeterProvider // default: the global one
}

// Validate reports all fields that cannot be.
func (c ObserveConfig) Validate() error {
	if c.Every != 0 && c.Every < readEvery {
		return fmt.Errorf("outbox: ObserveConfig.Every is %v, and should be at least %v", c.Every, readEvery)
	}
	return nil
}

// Observe has the gauges of the outbox in a process without a relay, until ctx is done; it returns nil then.
// A relay has them by itself, also while it stands by. They are what the database says, the same
// from each process, so take their maximum; see [Stats]:
//
//	loadline.outbox.age               of the oldest event that waits, those of held keys included
//	loadline.outbox.depth             events that wait, at most
//	loadline.outbox.size              of the table
//	loadline.outbox.held              events that have failed and hold back their keys
//	loadline.outbox.dead.depth        events in outbox_dead
//	loadline.outbox.invalidation.age  of the oldest that the cache has not taken
//
// db leads to the primary: a pgxpool.Pool, or a db.Router's Write; a single connection is closed by the first reading
// that takes too long. While the database does not answer there are none, after 30 s or three times Every.
func Observe(ctx context.Context, db Tx, c ObserveConfig) error {
	if err := c.Validate(); err != nil {
		return err
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.MeterProvider == nil {
		c.MeterProvider = otel.GetMeterProvider()
	}
	g := newGauges(cmp.Or(c.Every, DefaultObserveEvery), c.Logger)
	stop, err := g.register(c.MeterProvider.Meter(scope))
	if err != nil {
		return err
	}
	defer stop()
	for ctx.Err() == nil {
		g.read(ctx, db)
		sleep(ctx, time.Until(g.next))
	}
	return nil
}

// gauges are what the database has said last. One goroutine reads, others observe.
type gauges struct {
	every  time.Duration
	logger *slog.Logger
	next   time.Time // when to read again
	failed bool      // the last reading has
	last   atomic.Pointer[reading]
}

type reading struct {
	stats Stats
	at    time.Time
}

func newGauges(every time.Duration, logger *slog.Logger) *gauges {
	return &gauges{every: max(every, readEvery), logger: logger}
}

// read reads, if it is time. Where somebody's old snapshot keeps the rows that are gone it
// passes all of them, so it takes at most a twentieth of the time, as full scans do.
func (g *gauges) read(ctx context.Context, db Tx) {
	began := time.Now()
	if began.Before(g.next) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 3*readTimeout) // the server's own comes first, unless it is gone
	defer cancel()
	var stats Stats
	var b pgx.Batch
	b.Queue(readTimeoutSQL, strconv.FormatInt(readTimeout.Milliseconds(), 10))
	b.Queue(statsSQL).QueryRow(stats.scan)
	err := db.SendBatch(ctx, &b).Close()
	g.next = began.Add(max(g.every, scanShare*min(time.Since(began), readTimeout)))
	if err == nil {
		g.last.Store(&reading{stats, time.Now()})
	} else if !g.failed && !errors.Is(context.Cause(ctx), context.Canceled) {
		g.logger.WarnContext(ctx, "outbox: its gauges could not be read, and will be missing", "error", err)
	}
	g.failed = err != nil
}

// fresh returns the last reading, unless it is too old to stand for now.
func (g *gauges) fresh() (Stats, bool) {
	r := g.last.Load()
	if r == nil || time.Since(r.at) > max(staleAfter, 3*g.every) {
		return Stats{}, false
	}
	return r.stats, true
}

func (g *gauges) register(meter metric.Meter) (stop func(), err error) {
	age, err1 := meter.Float64ObservableGauge("loadline.outbox.age", metric.WithUnit("s"), metric.WithDescription("Age of the oldest event that waits to be published."))
	depth, err2 := meter.Int64ObservableGauge("loadline.outbox.depth", metric.WithUnit("{event}"), metric.WithDescription("Events that wait to be published, at most."))
	size, err3 := meter.Int64ObservableGauge("loadline.outbox.size", metric.WithUnit("By"), metric.WithDescription("Size of the table, with the space of rows that are gone."))
	held, err4 := meter.Int64ObservableGauge("loadline.outbox.held", metric.WithUnit("{event}"), metric.WithDescription("Events that have failed and hold back their keys, up to 10,000."))
	dead, err5 := meter.Int64ObservableGauge("loadline.outbox.dead.depth", metric.WithUnit("{event}"), metric.WithDescription("Events in outbox_dead, up to 10,000."))
	invalidations, err6 := meter.Float64ObservableGauge("loadline.outbox.invalidation.age", metric.WithUnit("s"), metric.WithDescription("Age of the oldest invalidation that the cache has not taken."))
	if err := errors.Join(err1, err2, err3, err4, err5, err6); err != nil {
		return nil, err
	}
	registration, err := meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		s, ok := g.fresh()
		if !ok {
			return nil
		}
		o.ObserveFloat64(age, s.Oldest.Seconds())
		o.ObserveInt64(depth, s.Depth)
		o.ObserveInt64(size, s.Bytes)
		o.ObserveInt64(held, s.Held)
		o.ObserveInt64(dead, s.Dead)
		o.ObserveFloat64(invalidations, s.Invalidations.Seconds())
		return nil
	}, age, depth, size, held, dead, invalidations)
	if err != nil {
		return nil, err
	}
	return func() { _ = registration.Unregister() }, nil
}
