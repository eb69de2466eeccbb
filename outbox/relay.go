package outbox

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"go.opentelemetry.io/otel/trace"
)

// Relay publishes what transactions have added. Several may run for a shard: one has the
// lease, the others stand by.
type Relay struct {
	c       RelayConfig
	wake    chan struct{}
	m       *metrics
	gauges  *gauges
	tracer  trace.Tracer
	started atomic.Bool

	standingBy atomic.Bool
}

// NewRelay checks the configuration. Run does the work.
func NewRelay(c RelayConfig) (*Relay, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	c = c.withDefaults()
	m, err := newMetrics(c)
	if err != nil {
		return nil, err
	}
	return &Relay{c: c, wake: make(chan struct{}, 1), m: m, gauges: newGauges(c.Poll, c.Logger), tracer: c.TracerProvider.Tracer(scope)}, nil
}

// Wake makes the relay look at once. Call it after a commit; it does not block, and many
// calls are as one. A notification by the database in the writer's transaction would do the
// same for half of the rate at which it commits: it takes a lock of the whole server until
// the commit is on disk. A relay that stands by sends a hint to the one that has the lease.
func (r *Relay) Wake() {
	r.hinted()
	if r.c.Hints != nil && !r.m.active.Load() {
		r.c.Hints.Send()
	}
}

func (r *Relay) hinted() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// receive hears the hints of others.
func (r *Relay) receive(ctx context.Context) {
	for ctx.Err() == nil {
		if err := r.c.Hints.Receive(ctx, r.hinted); err != nil && ctx.Err() == nil {
			r.c.Logger.WarnContext(ctx, "outbox: no hints of other processes are heard; the relay looks by itself", "every", r.c.Poll, "error", err)
		}
		sleep(ctx, probeMax)
	}
}

// Run stands by until it has the lease, and relays until ctx is done; then it waits for
// what is being published, at most PublishTimeout, gives the lease back, and returns nil. A
// database that is away, or without the tables, is tried again. Run may be called once.
func (r *Relay) Run(ctx context.Context) error {
	if !r.started.CompareAndSwap(false, true) {
		return errors.New("outbox: Relay.Run was called before")
	}
	stop, err := r.m.observe()
	if err != nil {
		return err
	}
	defer stop()
	unregister, err := r.gauges.register(r.m.meter)
	if err != nil {
		return err
	}
	defer unregister()
	if r.c.Hints != nil {
		var receiving sync.WaitGroup
		receiving.Go(func() { r.receive(ctx) })
		defer receiving.Wait() // ctx is done
	}
	var wait backoff
	for ctx.Err() == nil {
		began := time.Now()
		err := r.connected(ctx)
		if ctx.Err() != nil {
			break
		}
		if time.Since(began) > probeMax {
			wait.reset()
		}
		wait.longer(probeMax)
		if !errors.Is(err, errLease) {
			r.c.Logger.WarnContext(ctx, "outbox: the relay connects again", "shard", r.c.Shard, "error", err)
		} else {
			r.c.Logger.WarnContext(ctx, "outbox: another relay has the lease; this one stands by", "shard", r.c.Shard)
		}
		sleep(ctx, wait.delay/2+rand.N(wait.delay))
	}
	return nil
}

// connected stands by and leads over one connection.
func (r *Relay) connected(ctx context.Context) error {
	conn, err := r.connect(ctx)
	if err != nil {
		return err
	}
	defer closeConn(ctx, conn)
	defer r.standingBy.Store(false)
	for {
		// First, so that it is known how the outbox is while a predecessor does not end.
		if err := r.look(ctx, conn); err != nil {
			return err
		}
		l, err := r.acquire(ctx, conn)
		if err != nil || ctx.Err() != nil {
			return err
		}
		if l != nil {
			r.c.Logger.InfoContext(ctx, "outbox: this relay has the lease", "shard", r.c.Shard, "epoch", l.epoch)
			r.standingBy.Store(false)
			s := &session{r: r, l: l}
			return s.lead(ctx)
		}
		r.standingBy.Store(true)
		sleep(ctx, r.c.Poll/2+rand.N(r.c.Poll)) // relays that stand by do not look all at once
		if ctx.Err() != nil {
			return nil
		}
	}
}

// look reads the gauges. That they cannot be read ends nothing, unless the connection is gone.
func (r *Relay) look(ctx context.Context, conn *pgx.Conn) error {
	r.gauges.read(context.WithoutCancel(ctx), conn) // an end of it would close the connection
	if conn.IsClosed() {
		return errors.New("outbox: the connection is lost")
	}
	return nil
}

func closeConn(ctx context.Context, conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = conn.Close(ctx) // the server sees that it is gone
}

func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
