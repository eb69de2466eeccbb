package db

import (
	"fmt"
	"time"

	"github.com/loadlinehq/loadline/causal"
)

// cluster is which server has which role. It does not change; a poll that finds
// something else makes another.
type cluster struct {
	system   uint64
	timeline uint32  // the newest that any server has been seen on
	primary  *node   // nil: no server is the primary of that timeline
	replicas []*node // all others
}

// belongs holds all servers to one cluster.
func (r *Router) belongs(n *node, system uint64) error {
	if r.system.CompareAndSwap(0, system) || r.system.Load() == system {
		return nil
	}
	return fmt.Errorf("db: %s: %w: it belongs to another cluster (system identifier %d, not %d): a replica is a copy of its primary, made by pg_basebackup or the like", n.name, ErrUnsupported, system, r.system.Load())
}

// note makes known what a poll of a server has found, and wakes who waits for it.
func (r *Router) note(n *node, s *state) {
	r.mu.Lock()
	defer r.unlock()
	old := n.state.Load()
	n.state.Store(s)
	if s.err == nil && !s.hidden {
		if s.primary {
			r.noteFork(n, s)
			r.noteCrash(s)
			r.samples.add(s.at, s.timeline, s.lsn)
		} else {
			n.sawStandby(s)
			r.noteDiverged(n, s)
			n.lag.Store(int64(r.samples.lag(s.lsn, s.at)))
		}
	}
	if s.err == nil && s.hidden {
		n.lag.Store(int64(r.samples.lag(causal.LSN(n.best.Load()), s.at)))
	}
	if (old.err == nil) != (s.err == nil) {
		if s.err != nil {
			r.log.Warn("db: a server does not answer", "server", n.name, "error", s.err)
			if !timedOut(s.err) {
				n.pool.Reset() // its connections are dead, and would be tried one by one
			}
		} else {
			r.log.Info("db: a server answers", "server", n.name, "primary", s.primary, "timeline", s.timeline)
		}
	}
	if r.cluster.Load() == nil || (old.err == nil) != (s.err == nil) || old.primary != s.primary || old.timeline != s.timeline {
		r.rebuild()
	}
	r.tell()
}

// tell wakes who waits for news. Router.mu is held.
func (r *Router) tell() {
	close(*r.news.Load())
	next := make(chan struct{})
	r.news.Store(&next)
}

// rebuild decides who is the primary: the server that is one on the newest timeline
// that has been seen anywhere. An old primary that still runs is on an older one, and is
// not written to again.
func (r *Router) rebuild() {
	next := cluster{system: r.system.Load()}
	var was *node
	if c := r.cluster.Load(); c != nil {
		next.timeline, was = c.timeline, c.primary
	}
	before := next.timeline
	for _, n := range r.nodes {
		if s := n.state.Load(); s.err == nil && !s.hidden {
			next.timeline = max(next.timeline, s.timeline)
		}
	}
	// One that does not answer stays the primary until another is seen.
	if was != nil && next.timeline == before {
		if s := was.state.Load(); s.err != nil || s.primary {
			next.primary = was
		}
	}
	for _, n := range r.nodes {
		s := n.state.Load()
		if s.err != nil || s.hidden || !s.primary || s.timeline != next.timeline || n == next.primary {
			continue
		}
		if next.primary != nil {
			if next.primary.state.Load().err == nil {
				r.log.Error("db: two servers are the primary of one timeline; writes stay with the first",
					"first", next.primary.name, "second", n.name, "timeline", s.timeline)
				continue
			}
		}
		next.primary = n
	}
	for _, n := range r.nodes {
		if next.timeline > before {
			n.best.Store(0) // it may have been beyond the fork
		}
		if n == next.primary {
			n.gate.setLimit(r.config.PrimaryPool.MaxConns, r.config.PrimaryPool.Queue)
			continue
		}
		next.replicas = append(next.replicas, n)
		n.gate.setLimit(r.config.ReplicaPool.MaxConns, r.config.ReplicaPool.Queue)
	}
	if was != next.primary && was != nil {
		name := "none"
		if next.primary != nil {
			name = next.primary.name
		}
		r.log.Warn("db: the primary has changed", "from", was.name, "to", name, "timeline", next.timeline)
	}
	if next.primary != nil && next.timeline > r.lost.judged {
		r.reportOwn(next.timeline) // before any read can miss what is lost
		r.lost.judged = next.timeline
	}
	r.cluster.Store(&next)
}

// samples remember where the primary has been when, so that a replica's lag is a time
// without comparing the clocks of two machines.
type samples struct {
	gap      time.Duration
	timeline uint32 // positions of two timelines cannot be compared
	ring     [256]sample
	n        int // number ever added
}

type sample struct {
	at  time.Time // the primary had come to lsn at some moment after it
	lsn causal.LSN
}

func (s *samples) add(at time.Time, timeline uint32, lsn causal.LSN) {
	if timeline < s.timeline {
		return // of a primary that has been replaced
	}
	if timeline > s.timeline {
		s.timeline, s.n = timeline, 0
	}
	if s.n > 0 {
		last := &s.ring[(s.n-1)%len(s.ring)]
		if lsn == last.lsn {
			// Nothing happened in between: who is here has seen all until now.
			if s.n > 1 && s.ring[(s.n-2)%len(s.ring)].lsn == lsn {
				last.at = at
				return
			}
		} else if at.Sub(last.at) < s.gap {
			return
		}
	}
	s.ring[s.n%len(s.ring)] = sample{at, lsn}
	s.n++
}

// lag is how long ago the primary has first been seen past a position.
func (s *samples) lag(lsn causal.LSN, now time.Time) time.Duration {
	for i := max(0, s.n-len(s.ring)); i < s.n; i++ {
		if e := s.ring[i%len(s.ring)]; e.lsn > lsn {
			return max(0, now.Sub(e.at))
		}
	}
	return 0
}

// upTo is a position that holds all that was committed before a moment: the first at
// which the primary was seen since. It is false when the primary was not asked since.
func (s *samples) upTo(at time.Time) (lsn causal.LSN, ok bool) {
	for i := s.n - 1; i >= max(0, s.n-len(s.ring)); i-- {
		e := s.ring[i%len(s.ring)]
		if e.at.Before(at) {
			break
		}
		lsn, ok = e.lsn, true
	}
	return lsn, ok
}
