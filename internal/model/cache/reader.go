package cachemodel

import "fmt"

func (m *machine) sessionStep(s *State, i int, emit emit) {
	switch s.sessions[i].pc {
	case idle:
		m.writeOther(s, i, emit)
		m.startWrite(s, i, emit)
		if s.sessions[i].reads > 0 {
			for p := range uint8(processes) {
				m.startRead(*s, i, p, emit)
			}
		}
		if m.Events {
			m.handle(s, i, emit)
		}
	case writeRecorded:
		m.becomeVisible(*s, i, emit)
	case writeVisible:
		m.sendInvalidation(*s, i, emit)
	case readRedis:
		m.askRedis(*s, i, emit)
	case readTag:
		m.askTag(*s, i, emit)
	case readWait:
		m.wait(*s, i, emit)
	case readNode:
		m.chooseNode(*s, i, emit)
	case readRow:
		m.readRow(*s, i, emit)
	case readSet:
		m.fill(*s, i, emit)
	case readDone:
		m.finish(*s, i, emit)
	}
}

// startRead decides from what the process has heard: L1, the load in flight, Redis,
// or the database alone.
func (m *machine) startRead(t State, i int, pi uint8, emit emit) {
	x, q := &t.sessions[i], &t.processes[pi]
	x.reads--
	x.process = pi
	x.readEpoch = q.epoch
	if t.unsettled() {
		x.excused = 1
	}
	covered := m.covered(x, q.epoch, q.heard, q.dm)
	m.exchange(x, q)
	if covered && m.usable(q) {
		u := t
		bad := u.answer(i, q.value)
		emit(say("S%d reads v%d from P%d's L1", idx(i), q.value, pi), u, bad)
	}
	if !covered && !(m.Early && x.number > 0 && x.epoch == q.epoch) {
		if m.broken(JoinUncovered) && q.loader > 0 {
			x.pc = readJoined
			emit(say("S%d joins the load of S%d", idx(i), q.loader-1), t, "")
			return
		}
		x.unstored = bypassed
		x.pc = readNode
		if m.broken(StoreUncovered) && q.loader == 0 {
			q.loader, x.shared, x.asOf = uint8(i+1), 1, q.heard
		}
		emit(say("S%d is not covered in P%d (W=%d D=%d): reads the database at %d", idx(i), pi, q.heard, q.dm, x.lsn), t, "")
		return
	}
	if covered && q.loader > 0 && m.joinable(x, q, &t.sessions[q.loader-1]) {
		x.pc = readJoined
		emit(say("S%d joins the load of S%d in P%d", idx(i), q.loader-1, pi), t, "")
		return
	}
	what := "S%d starts a read in P%d (epoch %d W=%d D=%d)"
	if covered && q.loader == 0 {
		if q.has == 1 {
			q.has, q.value, q.asOf = 0, 0, 0
			what = "S%d starts a read in P%d (epoch %d W=%d D=%d), L1 entry evicted"
		}
		q.loader, x.shared = uint8(i+1), 1
		if !m.JoinByLast {
			x.startHeard, x.startDrained = q.heard, q.dm
		}
	}
	x.pc = readRedis
	emit(say(what, idx(i), pi, q.epoch, q.heard, q.dm), t, "")
}

// joinable reports whether a session that is covered now may have the result of a load
// that is under way: it has to have been covered when the load began.
func (m *machine) joinable(x *session, q *process, load *session) bool {
	switch {
	case m.broken(JoinStarted):
		return true
	case m.JoinByLast:
		return load.moved == 0
	}
	return m.covered(x, q.epoch, load.startHeard, load.startDrained)
}

// askRedis is GET, and on a miss the acquire script, which looks again, so that one
// step is the same.
func (m *machine) askRedis(s State, i int, emit emit) {
	x := &s.sessions[i]
	if s.left.RedisAway > 0 {
		t := s
		t.left.RedisAway--
		m.bypass(t, i, "S%d by-passes Redis: no answer", emit)
	}
	p := &s.processes[x.process]
	if m.broken(OtherEpoch) {
		x.readEpoch = s.epoch // whatever the connection happens to reach
	} else if p.epoch != x.readEpoch || !m.reachable(&s, x.readEpoch) {
		m.bypass(s, i, "S%d by-passes Redis: epoch over", emit)
		return
	}
	k := &s.redis[x.readEpoch].key
	if k.has == 1 && !m.refuses(x, p, k) {
		t := s
		y := &t.sessions[i]
		y.value, y.asOf, y.ignore = k.value, k.asOf, 0
		if m.unsure(p, k) {
			y.pc = readTag
			emit(say("S%d gets v%d as of %d from Redis, older than the view of P%d", idx(i), y.value, y.asOf, x.process), t, "")
			return
		}
		y.pc = readDone
		emit(say("S%d gets v%d from Redis", idx(i), y.value), t, "")
		if k.owner == 0 && s.left.Refresh > 0 {
			t := s
			t.left.Refresh--
			t.redis[x.readEpoch].key.owner = uint8(i + 1)
			y := &t.sessions[i]
			y.fence, y.asOf, y.ignore, y.pc = k.fence, t.redis[x.readEpoch].count, 0, readNode
			emit(say("S%d takes the lease to refresh v%d", idx(i), k.value), t, "")
		}
		return
	}
	owner := k.owner
	if !m.acquire(&s, i) {
		x.pc = readWait
		emit(say("S%d finds the lease of S%d, waits", idx(i), owner-1), s, "")
		return
	}
	x.pc = readNode
	emit(say("S%d misses, takes the lease as of %d, fence %d", idx(i), x.asOf, x.fence), s, "")
}

// refuses reports whether a value is known to be invalid by its tag.
func (m *machine) refuses(x *session, p *process, k *record) bool {
	if k.asOf < p.mark && (m.carries(k.value) || !m.broken(EvictionsTagsOnly)) {
		return true
	}
	return m.carries(k.value) && !m.broken(HitIgnoresTags) && (p.lastTag > k.asOf || x.ignore == k.asOf+1)
}

// unsure reports whether an invalidation of the value's tag may have been announced
// before the process listened.
func (m *machine) unsure(p *process, k *record) bool {
	return m.carries(k.value) && k.asOf < p.since && !m.broken(HitIgnoresTags) && !m.broken(YoungTrusts)
}

// askTag reads the tag's record. An absent one has number 0.
func (m *machine) askTag(s State, i int, emit emit) {
	x := &s.sessions[i]
	if s.left.RedisAway > 0 {
		t := s
		t.left.RedisAway--
		m.bypass(t, i, "S%d by-passes Redis: no answer about the tag", emit)
	}
	if s.processes[x.process].epoch != x.readEpoch || !m.reachable(&s, x.readEpoch) {
		m.bypass(s, i, "S%d by-passes Redis: epoch over", emit)
		return
	}
	n := s.redis[x.readEpoch].tag.number
	if n <= x.asOf {
		x.pc = readDone
		emit(say("S%d finds the tag at %d: v%d as of %d is valid", idx(i), n, x.value, x.asOf), s, "")
		return
	}
	value, asOf := x.value, x.asOf
	x.value, x.asOf, x.ignore, x.pc = 0, 0, asOf+1, readRedis
	emit(say("S%d finds the tag at %d: v%d as of %d is invalid", idx(i), n, value, asOf), s, "")
}

func (m *machine) bypass(t State, i int, why string, emit emit) {
	x := &t.sessions[i]
	x.unstored, x.fence, x.asOf, x.value, x.ignore, x.pc = bypassed, 0, 0, 0, 0, readNode
	emit(say(why, idx(i)), t, "")
}

func (m *machine) wait(s State, i int, emit emit) {
	x := &s.sessions[i]
	if k := &s.redis[x.readEpoch].key; k.owner == 0 || k.has == 1 || !m.reachable(&s, x.readEpoch) {
		t := s
		t.sessions[i].pc = readRedis
		emit(say("S%d sees the lease end", idx(i)), t, "")
	}
	if !m.NoBound {
		if m.broken(BypassNoFence) {
			x.fence = 0
		}
		x.unstored, x.pc = refused, readNode
		emit(say("S%d waits no longer, reads the database at %d, does not store", idx(i), x.fence), s, "")
	}
}

// need is the LSN that a load has to read at or past.
func (m *machine) need(x *session) uint8 {
	switch m.Broken {
	case NoLSN:
		return x.fence
	case FenceOff:
		return x.lsn
	}
	return max(x.lsn, x.fence)
}

// reached is what set is told of how far the load has read.
func (m *machine) reached(x *session) uint8 {
	switch {
	case !m.Reached:
		return m.need(x)
	case x.replica == 1:
		return x.replay
	}
	return ^uint8(0) // the primary
}

func (m *machine) chooseNode(s State, i int, emit emit) {
	if need := m.need(&s.sessions[i]); s.replay >= need {
		t := s
		x := &t.sessions[i]
		x.replica, x.replay, x.pc = 1, t.replay, readRow
		emit(say("S%d asks the replica (replay LSN %d, needed %d)", idx(i), x.replay, need), t, "")
	}
	t := s
	x := &t.sessions[i]
	x.replica, x.replay, x.pc = 0, 0, readRow
	emit(say("S%d turns to the primary", idx(i)), t, "")
	fillerDies(s, i, emit)
}

func (m *machine) readRow(s State, i int, emit emit) {
	t := s
	x := &t.sessions[i]
	x.value = t.visible
	if x.replica == 1 {
		x.value = t.versionAt(t.replay)
	}
	x.pc = readSet
	if x.unstored != stored {
		x.pc = readDone
	}
	emit(say("S%d reads row v%d", idx(i), x.value), t, "")
	fillerDies(s, i, emit)
}

func (m *machine) fill(s State, i int, emit emit) {
	t := s
	x := &t.sessions[i]
	x.pc = readDone
	what := "S%d sets v%d: accepted"
	if t.processes[x.process].epoch != x.readEpoch || !m.reachable(&t, x.readEpoch) || !m.set(&t, i) {
		x.unstored = refused
		what = "S%d sets v%d: refused"
	}
	emit(say(what, idx(i), x.value), t, "")
	if s.left.RedisAway > 0 {
		t := s
		t.left.RedisAway--
		t.sessions[i].unstored, t.sessions[i].pc = refused, readDone
		emit(say("S%d's set fails", idx(i)), t, "")
	}
	fillerDies(s, i, emit)
}

// finish stores the result in L1, and answers the session and those who have joined.
func (m *machine) finish(t State, i int, emit emit) {
	load := t.sessions[i]
	p := &t.processes[load.process]
	what := "S%d answers v%d"
	if load.shared == 1 && load.cut == 0 {
		p.loader = 0
		if load.unstored == stored || load.unstored == refused && m.broken(StoreRefused) || load.unstored == bypassed && m.broken(StoreUncovered) {
			p.has, p.value, p.asOf = 1, load.value, load.asOf
			what = "S%d answers v%d, stored in P%d's L1"
		}
	}
	bad := t.answer(i, load.value)
	for j := range t.sessions {
		x := &t.sessions[j]
		if load.shared == 0 || x.pc != readJoined || x.process != load.process {
			continue
		}
		if !m.sharable(&load, x) {
			x.pc = readRedis // alone
			continue
		}
		if b := t.answer(j, load.value); bad == "" {
			bad = b
		}
	}
	emit(say(what, idx(i), load.value, load.process), t, bad)
}

// sharable reports whether one who has joined may have the result: it is a value in
// Redis, or its row is far enough for him by his LSN.
func (m *machine) sharable(load, x *session) bool {
	switch {
	case load.unstored == stored, load.unstored == bypassed && m.broken(JoinBypassed), load.unstored == refused && m.broken(JoinRefused):
		return true
	}
	return load.replica == 0 || load.replay >= x.lsn
}

// answer ends a read, and says what is wrong with it.
func (s *State) answer(i int, value uint8) string {
	x := &s.sessions[i]
	bad := ""
	if value < x.own && x.excused == 0 {
		bad = fmt.Sprintf("read_your_writes: S%d got v%d after its own (or its cause's) v%d", i, value, x.own)
	}
	x.rest()
	return bad
}

func fillerDies(t State, i int, emit emit) {
	if t.left.FillerDies == 0 {
		return
	}
	t.left.FillerDies--
	load := t.sessions[i]
	t.sessions[i].rest()
	if load.shared == 1 {
		if load.cut == 0 {
			t.processes[load.process].loader = 0
		}
		for j := range t.sessions {
			if x := &t.sessions[j]; x.pc == readJoined && x.process == load.process {
				x.rest()
			}
		}
	}
	emit(say("S%d's request dies in the middle of its load", idx(i)), t, "")
}
