package db

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/loadlinehq/loadline/causal"
)

// need is what a server must have to answer a read.
type need struct {
	primary bool
	// timeline is that of target; a server on another cannot be compared with it.
	timeline uint32
	target   causal.LSN
	ahead    bool // the session has seen a timeline that we know too little of
	why      reason
}

// lease is a connection to a chosen server, with what must be given back.
type lease struct {
	node     *node
	conn     *pgxpool.Conn
	timeline uint32
	why      reason
	fallback *gate
	// unproven: the server must first say that it has come to target, over this connection.
	unproven bool
	target   causal.LSN
}

func (l *lease) release() {
	if l.conn == nil {
		return
	}
	l.node.release(l.conn)
	l.conn = nil
	if l.fallback != nil {
		l.fallback.leave()
	}
}

// needOf is what the options and the context's session ask for.
func (r *Router) needOf(ctx context.Context, c *cluster, o *callOptions) need {
	s := causal.FromContext(ctx)
	n := need{timeline: c.timeline}
	var m causal.Mark
	var ok, incomplete bool
	if s != nil && (o.policy == session || o.policy == strong) {
		// Until the new primary has said where it left the old timeline, or this process has
		// seen the one that the session has: the primary that is known may be an old one.
		settled := r.settle(s, c)
		m, ok, incomplete = s.Mark(c.system)
		if !settled || ok && m.Timeline > c.timeline {
			n.ahead = true
			return n
		}
	}
	switch o.policy {
	case strong:
		return need{primary: true, why: asked}
	case anyNode:
		return n
	case bounded:
		r.mu.Lock()
		target, ok := r.samples.upTo(time.Now().Add(-o.maxStale))
		same := r.samples.timeline == c.timeline
		r.mu.Unlock()
		if !ok || !same {
			return need{primary: true, why: tooNew}
		}
		n.target = target
		return n
	}
	if s == nil {
		return need{primary: true, why: noSession}
	}
	if incomplete {
		return need{primary: true, why: notKnown}
	}
	if ok {
		n.target = m.LSN
	}
	return n
}

// pick is the least busy replica that has what is needed, or nil. It allocates nothing.
func (r *Router) pick(c *cluster, n *need, tried uint64) *node {
	if n.ahead {
		return nil
	}
	var best *node
	var least int
	count := uint32(len(c.replicas))
	start := r.turn.Add(1)
	for i := range count {
		at := (start + i) % count
		candidate := c.replicas[at]
		if tried&(1<<candidate.index) != 0 {
			continue
		}
		if !r.eligible(candidate, n) {
			continue
		}
		if load := candidate.load(); best == nil || load < least {
			best, least = candidate, load
		}
	}
	return best
}

// eligible reports whether a node is a replica that has what is needed and keeps the lag
// limit; or, if it hides several servers, may have: that is made sure of later.
func (r *Router) eligible(n *node, what *need) bool {
	s := n.state.Load()
	if s.err != nil {
		return false
	}
	if s.hidden {
		hope := n.best.Load() >= uint64(what.target) || !n.lags(hopeless*r.config.Wait)
		return hope || n.mayTry(r.config.PollInterval)
	}
	return !s.primary && s.timeline == what.timeline && s.lsn >= what.target && !n.lags(r.config.LagLimit)
}

func (n *node) lags(limit time.Duration) bool {
	return limit >= 0 && n.lag.Load() > int64(limit)
}

// hopeless is how many times the wait a replica's lag must be for nobody to wait for
// it: a guess. It may catch up all the same, after a stall, and is asked soon enough.
const hopeless = 10

// withinLag is what a server has that keeps the lag limit, as far as it is known.
func (r *Router) withinLag(c *cluster) causal.LSN {
	if r.config.LagLimit < 0 {
		return 0
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	lsn, ok := r.samples.upTo(time.Now().Add(-r.config.LagLimit))
	if !ok || r.samples.timeline != c.timeline {
		return 0
	}
	return lsn
}

// behind reports whether a replica may come to have what is needed within the wait.
func (r *Router) behind(c *cluster, n *need, tried uint64, wait time.Duration) bool {
	found := false
	for _, candidate := range c.replicas {
		s := candidate.state.Load()
		comparable := s.hidden || !s.primary && s.timeline == n.timeline
		if tried&(1<<candidate.index) == 0 && s.err == nil && comparable &&
			!candidate.lags(r.config.LagLimit) && !candidate.lags(hopeless*wait) {
			candidate.suspect()
			found = true
		}
	}
	return found
}

// forRead returns a connection to a server that may answer. Tried are those that have
// failed already.
func (r *Router) forRead(ctx context.Context, o *callOptions, tried *uint64) (lease, error) {
	wait := o.waitOr(r.config.Wait)
	var timer *time.Timer
	var late bool
	defer func() {
		if timer != nil {
			timer.Stop()
		}
	}()
	for {
		if r.closed.Load() {
			return lease{}, ErrClosed
		}
		news := *r.news.Load() // before what it is about
		c := r.cluster.Load()
		n := r.needOf(ctx, c, o)
		if !n.ahead && (n.primary || len(c.replicas) == 0 || !r.watched()) {
			why := n.why
			if !n.primary {
				why = noReplica
			}
			l, again, err := r.onPrimary(ctx, c, why)
			if again {
				continue
			}
			return l, err
		}
		if node := r.pick(c, &n, *tried); node != nil {
			conn, err := node.acquire(ctx)
			if err == nil && node.hidden {
				n.target = max(n.target, r.withinLag(c))
			}
			switch {
			case err == nil && infoOf(conn.Conn()).proven(node.state.Load(), n.timeline, n.target):
				why := caughtUp
				if timer != nil {
					why = waited
				}
				node.chosen[why].Add(1)
				return lease{node: node, conn: conn, timeline: n.timeline, why: why}, nil
			case err == nil && node.hidden:
				return lease{node: node, conn: conn, timeline: n.timeline, why: caughtUp, unproven: true, target: n.target}, nil
			case err == nil: // the server was restarted since it was asked
				node.release(conn)
			case ctx.Err() != nil || errors.Is(err, ErrPoolSaturated):
				return lease{}, err
			default:
				*tried |= 1 << node.index
				continue
			}
		}
		// Also who does not wait has replicas asked, for the next one.
		if hope := r.behind(c, &n, *tried, wait); wait > 0 && !late && (hope || n.ahead) {
			if n.ahead {
				r.askAll()
			}
			if timer == nil {
				timer = time.NewTimer(wait)
			}
			select {
			case <-news:
				continue
			case <-ctx.Done():
				return lease{}, context.Cause(ctx)
			case <-timer.C:
				late = true // it fires once, and this loop may come here again
			}
		}
		if n.ahead {
			if c.primary == nil {
				return lease{}, because(ErrNoEligibleNode, nil, "no server is the primary of timeline %d", c.timeline)
			}
			return lease{}, because(ErrNoEligibleNode, nil, "the session has seen a newer timeline than any server here (%d)", c.timeline)
		}
		l, again, err := r.onPrimary(ctx, c, fallback)
		if again {
			continue
		}
		return l, err
	}
}

// onPrimary returns a connection to the primary, for a read. Again says that the
// cluster has changed, so that what the read needs is to be asked again.
func (r *Router) onPrimary(ctx context.Context, c *cluster, why reason) (l lease, again bool, err error) {
	if c.primary == nil {
		return lease{}, false, because(ErrNoEligibleNode, nil, "no replica is past what the session has seen, and no server is the primary of timeline %d", c.timeline)
	}
	l = lease{node: c.primary, timeline: c.timeline, why: why}
	if why == fallback {
		if err := r.fallback.enter(ctx, c.primary.limits.QueueWait); err != nil {
			return lease{}, false, err
		}
		l.fallback = r.fallback
	}
	l.conn, err = c.primary.acquire(ctx)
	if err == nil && infoOf(l.conn.Conn()).primaryOf(c.primary.state.Load(), c.timeline) {
		c.primary.chosen[why].Add(1)
		return l, false, nil
	}
	if err == nil {
		c.primary.release(l.conn)
		c.primary.suspect()
		err = because(ErrNoEligibleNode, nil, "%s is no longer the primary of timeline %d", c.primary.name, c.timeline)
	} else if ctx.Err() == nil && !errors.Is(err, ErrPoolSaturated) {
		err = because(ErrNoEligibleNode, err, "no replica is eligible, and the primary %s cannot be reached", c.primary.name)
	}
	if l.fallback != nil {
		l.fallback.leave()
	}
	return lease{}, r.cluster.Load() != c && ctx.Err() == nil, err
}

// primaryOf reports whether the connection's server is the primary of a timeline. A
// primary stays on its timeline until it stops.
func (i *connInfo) primaryOf(s *state, timeline uint32) bool {
	if i.state.primary {
		return i.state.timeline == timeline
	}
	// Promoted since?
	return s.err == nil && s.primary && s.timeline == timeline && !s.at.Before(i.since)
}

// forWrite returns a connection to the primary. It waits, bounded, for a failover.
func (r *Router) forWrite(ctx context.Context) (lease, error) {
	var timer *time.Timer
	defer func() {
		if timer != nil {
			timer.Stop()
		}
	}()
	for {
		if r.closed.Load() {
			return lease{}, ErrClosed
		}
		news := *r.news.Load()
		c := r.cluster.Load()
		err := r.mayWrite(ctx, c)
		if err == nil && timer != nil && c.primary.state.Load().err != nil {
			// It is asked once for all who wait, and not dialled by each.
			err = because(ErrNoEligibleNode, c.primary.state.Load().err, "the primary %s cannot be reached", c.primary.name)
		} else if err == nil {
			var conn *pgxpool.Conn
			if conn, err = c.primary.acquire(ctx); err == nil {
				if infoOf(conn.Conn()).primaryOf(c.primary.state.Load(), c.timeline) {
					c.primary.chosen[writes].Add(1)
					return lease{node: c.primary, conn: conn, timeline: c.timeline, why: writes}, nil
				}
				c.primary.release(conn)
				err = because(ErrNoEligibleNode, nil, "%s is no longer the primary of timeline %d", c.primary.name, c.timeline)
			}
			if ctx.Err() != nil || errors.Is(err, ErrPoolSaturated) {
				return lease{}, err
			}
			if !errors.Is(err, ErrNoEligibleNode) {
				err = because(ErrNoEligibleNode, err, "the primary %s cannot be reached", c.primary.name)
			}
		}
		if !r.running.Load() {
			return lease{}, err
		}
		r.askAll()
		if timer == nil {
			timer = time.NewTimer(r.config.PrimaryPool.QueueWait)
		}
		select {
		case <-news:
		case <-ctx.Done():
			return lease{}, context.Cause(ctx)
		case <-timer.C:
			return lease{}, err
		}
	}
}

// mayWrite keeps a session that has seen a newer timeline from an old primary, which
// would take the write and lose it.
func (r *Router) mayWrite(ctx context.Context, c *cluster) error {
	if c.primary == nil {
		return because(ErrNoEligibleNode, nil, "no server is the primary of timeline %d", c.timeline)
	}
	if s := causal.FromContext(ctx); s != nil {
		if m, ok, _ := s.Mark(c.system); ok && m.Timeline > c.timeline {
			return because(ErrNoEligibleNode, nil, "the session has seen timeline %d, and %s is on %d", m.Timeline, c.primary.name, c.timeline)
		}
	}
	return nil
}

func (r *Router) askAll() {
	for _, n := range r.nodes {
		n.suspect()
	}
}

// watched reports whether Run runs: without it what is known of replicas is old.
func (r *Router) watched() bool {
	if r.running.Load() {
		return true
	}
	if !r.warned.Swap(true) {
		r.log.Warn("db: Router.Run is not running, so all reads go to the primary")
	}
	return false
}
