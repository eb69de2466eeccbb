package cachemodel

// processSteps are those of the subscribers: hear, lose the subscription, resync.
func (m *machine) processSteps(s *State, emit emit) {
	for pi := range s.processes {
		p := &s.processes[pi]
		if p.unwritten > 0 {
			t := *s
			q := &t.processes[pi]
			m.write(q, q.unwritten, q.unkind)
			q.unwritten, q.unkind = 0, 0
			emit(say("P%d writes down what it heard", idx(pi)), t, "")
		} else if p.deaf == 0 && p.heard < s.redis[p.epoch].count {
			m.hear(*s, pi, emit)
		}
		if p.deaf == 0 && s.left.Deaf > 0 {
			t := *s
			t.left.Deaf--
			t.processes[pi].deaf = 1
			emit(say("P%d's subscription breaks, unnoticed", idx(pi)), t, "")
		}
		if (p.deaf == 1 || p.epoch != s.epoch) && (s.redis[s.epoch].open == 1 || m.broken(AnyoneOpens)) {
			t := *s
			if t.redis[t.epoch].open == 0 {
				m.open(&t, t.wal)
			}
			m.resync(&t, pi)
			q := &t.processes[pi]
			emit(say("P%d resubscribes, new view: epoch %d, W=%d, D=%d", idx(pi), q.epoch, q.heard, q.dm), t, "")
		}
	}
}

// hear takes the next announcement. Nothing is removed from L1: entries are judged by
// their numbers.
func (m *machine) hear(t State, pi int, emit emit) {
	q := &t.processes[pi]
	q.heard++
	version := t.announcedVersion[q.epoch][q.heard]
	switch drained := t.announced[q.epoch][q.heard]; {
	case drained > 0:
		q.dm = max(q.dm, drained)
		emit(say("P%d hears %d/%d: drained %d", idx(pi), q.epoch, q.heard, q.dm), t, "")
	case version == evictions:
		m.settle(&t, pi)
		emit(say("P%d hears %d/%d: evictions, new view", idx(pi), q.epoch, q.heard), t, "")
	case version == 0:
		emit(say("P%d hears %d/%d: another key", idx(pi), q.epoch, q.heard), t, "")
	case m.broken(NumberBeforeLast):
		q.unwritten, q.unkind = q.heard, version
		emit(say("P%d hears %d/%d, and will write it down", idx(pi), q.epoch, q.heard), t, "")
	default:
		m.write(q, q.heard, version)
		if !m.byTag(version) && q.loader > 0 && m.JoinByLast {
			t.sessions[q.loader-1].moved = 1
		}
		what := "P%d hears %d/%d: invalidate"
		if m.byTag(version) {
			what = "P%d hears %d/%d: invalidate the tag"
		}
		emit(say(what, idx(pi), q.epoch, q.heard), t, "")
	}
}

// write notes the number of an invalidation.
func (m *machine) write(q *process, number, version uint8) {
	if !m.byTag(version) {
		q.lastKey = number
	} else {
		q.lastTag = number
	}
	if !m.byTag(version) || m.Bare == 0 {
		q.told = max(q.told, version)
	}
}

// resync begins a new view: nothing in L1, no load to join, and what runs will not be
// stored.
func (m *machine) resync(t *State, pi int) {
	q, r := &t.processes[pi], &t.redis[t.epoch]
	old := *q
	*q = process{epoch: t.epoch, heard: r.count, dm: r.drained, told: r.told, mark: r.mark}
	if m.Tagged != 0 {
		q.since = r.count
	}
	if m.broken(NoFlush) {
		q.has, q.value, q.asOf, q.told = old.has, old.value, old.asOf, 0
	}
	if old.loader > 0 {
		if m.broken(FlushKeepsLoads) {
			q.loader = old.loader
		} else {
			t.sessions[old.loader-1].cut = 1
		}
	}
}

// settle begins a new view after evictions: nothing from before their mark counts, and
// what is under way is shared by LSN alone.
func (m *machine) settle(t *State, pi int) {
	q := &t.processes[pi]
	q.mark = q.heard
	if m.broken(EvictionsUnheard) {
		return
	}
	q.has, q.value, q.asOf = 0, 0, 0
	if q.loader > 0 {
		x := &t.sessions[q.loader-1]
		x.cut = 1
		if x.pc != readDone || x.unstored == stored {
			x.unstored = max(x.unstored, refused)
		}
		q.loader = 0
	}
}

// valid reports whether the L1 entry may be given to covered sessions.
func (m *machine) valid(q *process) bool {
	return q.has == 1 && q.lastKey <= q.asOf && (q.lastTag <= q.asOf || !m.carries(q.value))
}

// usable is valid, or what a broken rule makes of it.
func (m *machine) usable(q *process) bool {
	switch m.Broken {
	case L1IgnoresNumbers:
		return q.has == 1
	case L1IgnoresTags:
		return q.has == 1 && q.lastKey <= q.asOf
	}
	return m.valid(q)
}
