package db

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/loadlinehq/loadline/causal"
)

// Router sends each read to a server that has seen what its session has, and each write
// to the primary. It may be used by several goroutines.
type Router struct {
	config Config
	log    *slog.Logger
	nodes  []*node
	read   Handle
	write  Handle
	// fallback admits reads to the primary that should have gone to a replica.
	fallback *gate

	system  atomic.Uint64
	cluster atomic.Pointer[cluster]
	news    atomic.Pointer[chan struct{}] // closed by the next poll's end
	turn    atomic.Uint32                 // spreads reads over replicas that are equally busy
	running atomic.Bool
	closing chan struct{} // closed by Close
	warned  atomic.Bool
	closed  atomic.Bool

	lostWrites atomic.Int64
	metrics    metric.Registration
	tracer     trace.Tracer

	mu      sync.Mutex
	samples samples
	lost    lost
}

// Open connects to all servers and fails if the primary cannot be reached, or if one
// that answers cannot take part ([ErrUnsupported]). A replica that does not answer is
// logged and tried again by [Router.Run]. Close the router when done.
func Open(ctx context.Context, c Config) (*Router, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	c = c.withDefaults()
	r := &Router{config: c, log: c.Logger}
	r.samples.gap = max(c.LagLimit/time.Duration(len(r.samples.ring)/2), c.PollInterval/2)
	r.lost.forks = make(map[uint32]causal.LSN)
	r.lost.reported = make(map[causal.Mark]struct{})
	r.read = Handle{r: r}
	r.write = Handle{r: r, write: true}
	share := max(1, int(c.FallbackShare*float64(c.PrimaryPool.MaxConns)))
	r.fallback = newGate("reads in place of a replica", share, c.PrimaryPool.Queue)
	r.tracer = c.TracerProvider.Tracer(scope)
	r.closing = make(chan struct{})
	news := make(chan struct{})
	r.news.Store(&news)

	for i, dsn := range slices.Concat([]string{c.Primary}, c.Replicas, c.Endpoints) {
		limits := c.ReplicaPool
		if i == 0 {
			limits = c.PrimaryPool
		}
		n, err := newNode(r, dsn, limits, i > len(c.Replicas))
		if err != nil {
			r.Close()
			return nil, err
		}
		n.index = i
		r.nodes = append(r.nodes, n)
	}
	if err := r.observe(); err != nil {
		r.Close()
		return nil, err
	}
	// The first decides which cluster it is, so the others wait for it.
	r.nodes[0].poll(ctx)
	var wait sync.WaitGroup
	for _, n := range r.nodes[1:] {
		wait.Go(func() { n.poll(ctx) })
	}
	wait.Wait()
	if err := r.opened(ctx); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

func (r *Router) opened(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var errs []error
	for _, n := range r.nodes {
		if err := n.state.Load().err; errors.Is(err, ErrUnsupported) {
			errs = append(errs, err)
		}
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	if c := r.cluster.Load(); c == nil || c.primary == nil || c.primary.state.Load().err != nil {
		for _, n := range r.nodes {
			if err := n.state.Load().err; err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", n.name, err))
			}
		}
		return because(ErrNoEligibleNode, errors.Join(errs...), "none of %d servers is a primary that answers", len(r.nodes))
	}
	return nil
}

// Run watches the servers until ctx is done or the router closed, and returns nil then.
// Without it all reads go to the primary, and a failover is not followed. Run may be
// called once.
func (r *Router) Run(ctx context.Context) error {
	if r.running.Swap(true) {
		return errors.New("db: Run has been called before")
	}
	defer func() {
		r.running.Store(false)
		r.mu.Lock()
		r.tell() // whoever waits for news would wait for ever
		r.mu.Unlock()
	}()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wait sync.WaitGroup
	wait.Go(func() {
		select {
		case <-r.closing:
			cancel()
		case <-ctx.Done():
		}
	})
	for _, n := range r.nodes {
		wait.Go(func() { n.watch(ctx) })
	}
	wait.Wait()
	return nil
}

// Close closes all connections; those in use when they are given back. It may be
// called twice, and waits for calls that go on.
func (r *Router) Close() {
	if r.closed.Swap(true) {
		return
	}
	close(r.closing)
	if r.metrics != nil {
		if err := r.metrics.Unregister(); err != nil {
			r.log.Warn("db: metrics", "error", err)
		}
	}
	for _, n := range r.nodes {
		if !r.running.Load() {
			n.unwatch()
		}
		n.close()
	}
}

// LostWrites is how many acknowledged writes are known to have been lost by failovers;
// see [Config.LostWrite].
func (r *Router) LostWrites() int64 { return r.lostWrites.Load() }
