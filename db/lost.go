package db

import (
	"slices"

	"github.com/loadlinehq/loadline/causal"
)

const (
	// ownWrites is how many of its own acknowledged writes a router remembers, to tell
	// after a failover which of them were lost: at 8000 writes a second those of two
	// seconds, which is more than a replica that is fit to be promoted lags.
	ownWrites = 16384
	// reportedMarks bounds what keeps a lost write from being reported twice.
	reportedMarks = 4096
	// maxTimelines bounds the search for the way from an old timeline to the newest.
	maxTimelines = 64
)

// lost finds writes that a failover has lost. All of it is guarded by Router.mu.
type lost struct {
	forks    map[uint32]causal.LSN // timeline: where it left the one before
	own      []ownWrite            // a ring, when it is full
	ownNext  int                   // the oldest of a full one
	judged   uint32                // the timeline up to which own writes have been judged
	reported map[causal.Mark]struct{}
	untold   []LostWrite // see unlock

	era         int64 // of the primary when it was last asked
	eraTimeline uint32
}

// ownWrite is a write of this process that was acknowledged.
type ownWrite struct {
	causal.Mark
	// era is that of the server, if the write was acknowledged before it was on disk
	// (synchronous_commit=off); otherwise 0.
	era int64
}

// era is another one after each start and crash of a server.
func (l life) era() int64 { return l.started.UnixNano() ^ int64(l.replayed) }

// noteFork learns from a server that was promoted where it left the old timeline: its
// recovery has ended there. It is believed only if the server was seen as a standby on
// the timeline just before, and not restarted since: after a crash the same function says
// where that recovery has ended, and a timeline further back may not be the one it came
// from.
func (r *Router) noteFork(n *node, s *state) {
	from := n.standbyTimeline
	if from == s.timeline {
		from = n.standbyBefore // see sawStandby
	}
	if s.timeline < 2 || s.replayed == 0 || !n.standbySince.Equal(s.started) || from+1 != s.timeline {
		return
	}
	if _, known := r.lost.forks[s.timeline]; !known {
		r.lost.forks[s.timeline] = s.replayed
		for _, other := range r.nodes {
			r.noteDiverged(other, other.state.Load())
		}
		r.log.Info("db: a server was promoted", "server", n.name, "timeline", s.timeline, "fork", s.replayed.String())
	}
}

// sawStandby notes which timeline a standby is on. One that is being promoted shows the new
// one (min_recovery_end_timeline) a moment before it stops being a standby. That can be
// no other's: a promotion takes a number above all that the server knows.
func (n *node) sawStandby(s *state) {
	switch {
	case !n.standbySince.Equal(s.started):
		n.standbyBefore = 0
	case s.timeline > n.standbyTimeline:
		n.standbyBefore = n.standbyTimeline
	}
	n.standbySince, n.standbyTimeline = s.started, s.timeline
}

// noteDiverged notes that a standby has come past the fork of a timeline that it is not
// on: it needs pg_rewind or a new copy, and PostgreSQL does not always see that. A copy of
// the new primary's has the timeline in its control file.
func (r *Router) noteDiverged(n *node, s *state) {
	if s.err != nil || s.primary || s.hidden {
		return
	}
	if s.timeline >= n.diverged {
		n.diverged = 0
	}
	for t, fork := range r.lost.forks {
		if s.timeline < t && s.lsn > fork && n.diverged < t {
			n.diverged = t
			r.log.Error("db: a replica has come further than the server that was promoted; it is not read from until it was made anew", "server", n.name,
				"timeline", s.timeline, "position", s.lsn.String(), "fork", fork.String(), "new_timeline", t)
		}
	}
}

// noteCrash reports what the crash of a primary that goes on has undone: writes that were
// acknowledged before they were on disk.
func (r *Router) noteCrash(s *state) {
	if s.timeline < r.lost.eraTimeline {
		return // an old primary that still runs
	}
	era := life{s.started, s.replayed}.era()
	if s.timeline == r.lost.eraTimeline && era != r.lost.era && s.replayed != 0 {
		gone := 0
		for _, w := range r.lost.own {
			if w.Timeline == s.timeline && w.era != 0 && w.era != era && w.LSN > s.replayed {
				gone++
				r.report(w.Mark, s.replayed, s.timeline)
			}
		}
		if gone > 0 {
			r.log.Error("db: a crash of the primary has lost acknowledged writes of this process, which did not wait for the disk (synchronous_commit=off)",
				"writes", gone, "timeline", s.timeline, "recovered_to", s.replayed.String())
		}
	}
	r.lost.era, r.lost.eraTimeline = era, s.timeline
}

// survived reports whether a write on an older timeline is in the newest, and if not,
// where that has left the write's: 0 when a fork is not known.
func (r *Router) survived(m causal.Mark, newest uint32) (fork causal.LSN, survived bool) {
	if newest-m.Timeline > maxTimelines {
		return 0, false
	}
	for t := newest; t > m.Timeline; t-- {
		at, known := r.lost.forks[t]
		if !known {
			return 0, false // whatever the forks before: it may have come from another
		}
		// What is past any fork is not in what came after it.
		if fork == 0 || at < fork {
			fork = at
		}
		if m.LSN > fork {
			return fork, false
		}
	}
	return fork, true
}

// acknowledged remembers a write of this process.
func (r *Router) acknowledged(w ownWrite) {
	r.mu.Lock()
	if len(r.lost.own) < ownWrites {
		r.lost.own = append(r.lost.own, w)
	} else {
		r.lost.own[r.lost.ownNext] = w
		r.lost.ownNext = (r.lost.ownNext + 1) % ownWrites
	}
	if w.Timeline < r.lost.judged { // the failover was noticed before its acknowledgement came
		r.judge(w.Mark, r.lost.judged)
	}
	r.unlock()
}

// reportOwn reports what a failover has lost of this process's writes.
func (r *Router) reportOwn(newest uint32) {
	own := slices.Concat(r.lost.own[r.lost.ownNext:], r.lost.own[:r.lost.ownNext])
	r.lost.own, r.lost.ownNext = nil, 0
	unknown, gone := 0, 0
	for _, w := range own {
		if w.Timeline >= newest {
			r.lost.own = append(r.lost.own, w)
			continue
		}
		switch fork, ok := r.survived(w.Mark, newest); {
		case ok: // so far
			r.lost.own = append(r.lost.own, w)
		case fork == 0:
			unknown++
			r.judge(w.Mark, newest)
		default:
			gone++
			r.judge(w.Mark, newest)
		}
	}
	if gone > 0 {
		r.log.Error("db: a failover has lost acknowledged writes of this process", "writes", gone, "timeline", newest, "fork", r.lost.forks[newest].String())
	}
	if unknown > 0 {
		r.log.Error("db: a failover may have lost writes of this process: the promoted server was not watched before, so where it left the old timeline is not known",
			"last_writes", unknown, "timeline", newest)
	}
}

// judge reports a write of an older timeline if it was lost, once, and returns the mark
// that takes its place: what has survived is in the newest timeline as well.
func (r *Router) judge(m causal.Mark, newest uint32) causal.Mark {
	fork, ok := r.survived(m, newest)
	now := m
	now.Timeline = newest
	if ok {
		return now
	}
	if fork != 0 {
		now.LSN, now.Epoch, now.Number = fork, 0, 0
	}
	r.report(m, fork, newest)
	return now
}

// report reports a lost write, once.
func (r *Router) report(m causal.Mark, fork causal.LSN, newest uint32) {
	key := causal.Mark{System: m.System, Timeline: m.Timeline, LSN: m.LSN}
	if _, again := r.lost.reported[key]; again {
		return
	}
	if len(r.lost.reported) >= reportedMarks {
		clear(r.lost.reported)
	}
	r.lost.reported[key] = struct{}{}
	r.lostWrites.Add(1)
	r.log.Debug("db: an acknowledged write is lost", "lsn", m.LSN.String(), "timeline", m.Timeline,
		"fork", fork.String(), "new_timeline", newest, "certain", fork != 0)
	if r.config.LostWrite != nil {
		r.lost.untold = append(r.lost.untold, LostWrite{Mark: m, Fork: fork, Timeline: newest})
	}
}

// unlock unlocks Router.mu, and then tells the application what was found out: it may
// take its time, or panic.
func (r *Router) unlock() {
	untold := r.lost.untold
	r.lost.untold = nil
	r.mu.Unlock()
	for _, l := range untold {
		r.config.LostWrite(l)
	}
}

// Survived reports whether all that a token has seen in this cluster is in the newest
// timeline that this router knows: in a transaction, that of its server. Known is false when
// that cannot be said: of a failover that the router has not watched from before, and of a
// token that has forgotten something. It asks nobody.
func (r *Router) Survived(t causal.Token) (survived, known bool) {
	c := r.cluster.Load()
	if c == nil {
		return false, false
	}
	known = !t.Incomplete()
	for m := range t.Marks() {
		if m.System != c.system || m.Timeline >= c.timeline {
			continue
		}
		r.mu.Lock()
		fork, ok := r.survived(m, c.timeline)
		r.mu.Unlock()
		switch {
		case ok:
		case fork == 0:
			known = false
		default:
			return false, true
		}
	}
	return known, known
}

// settle replaces marks of older timelines in a session. It reports false when nobody
// can have said yet what became of them.
func (r *Router) settle(s *causal.Session, c *cluster) bool {
	for m := range s.Token().Marks() {
		if m.System != c.system || m.Timeline >= c.timeline {
			continue
		}
		if c.primary == nil {
			return false
		}
		r.mu.Lock()
		now := r.judge(m, c.timeline)
		r.unlock()
		s.Add(now)
		s.Forget(m)
	}
	return true
}
