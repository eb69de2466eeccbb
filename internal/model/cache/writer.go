package cachemodel

// startWrite begins a write in either process. A row lock keeps writers apart.
func (m *machine) startWrite(s *State, i int, emit emit) {
	if s.sessions[i].writes == 0 || s.written != s.visible {
		return
	}
	for p := range uint8(processes) {
		t := *s
		x := &t.sessions[i]
		x.writes--
		t.written++
		t.wal++
		t.at[t.written] = t.wal
		x.version, x.process, x.pc = t.written, p, writeRecorded
		emit(say("S%d commits v%d in P%d: record at LSN %d, not yet visible", idx(i), x.version, p, t.wal), t, "")
	}
}

// writeOther writes another key, and its invalidation is acknowledged.
func (m *machine) writeOther(s *State, i int, emit emit) {
	e := s.processes[0].epoch
	if s.left.Other == 0 || s.sessions[i].reads == 0 || !m.reachable(s, e) || s.redis[e].open == 0 {
		return
	}
	t := *s
	t.left.Other--
	t.wal++
	n := t.announce(e, 0, 0)
	m.merge(&t.sessions[i], t.wal, e, n)
	emit(say("S%d writes another key in P0: LSN %d, inv acknowledged as %d/%d", idx(i), t.wal, e, n), t, "")
}

func (m *machine) becomeVisible(s State, i int, emit emit) {
	t := s
	x := &t.sessions[i]
	t.visible = x.version
	x.versionLSN = t.wal // read after COMMIT was answered
	x.pc = writeVisible
	emit(say("v%d visible on the primary; S%d reads LSN %d", t.visible, idx(i), t.wal), t, "")
	if s.left.WriterDies > 0 {
		t := s
		t.left.WriterDies--
		t.visible = t.sessions[i].version
		t.sessions[i].rest()
		emit(say("v%d visible; its writer crashed, no invalidation, no answer", t.visible), t, "")
	}
}

// sendInvalidation is the writer's own, for speed; the relay's comes in any case.
func (m *machine) sendInvalidation(s State, i int, emit emit) {
	e := s.processes[s.sessions[i].process].epoch
	send := func(applied, acknowledged bool, format string) {
		t := s
		x := &t.sessions[i]
		n, v := uint8(0), x.version
		if applied {
			n = m.invalidate(&t, e, v, x.versionLSN)
		}
		if acknowledged {
			m.merge(x, x.versionLSN, e, n)
		} else {
			m.merge(x, x.versionLSN, 0, 0)
			t.left.InvFails -= min(t.left.InvFails, 1)
		}
		x.own = max(x.own, v)
		x.rest()
		emit(say(format, idx(i), v, x.lsn, x.epoch, x.number), t, "")
	}
	if m.reachable(&s, e) && s.redis[e].open == 1 {
		send(true, true, "S%d's direct inv of v%d: acknowledged; token LSN %d, %d/%d")
		if s.left.InvFails > 0 {
			send(true, false, "S%d's direct inv of v%d: applied, reply lost; token LSN %d, %d/%d")
		}
	}
	if s.left.InvFails > 0 || !m.reachable(&s, e) {
		send(false, false, "S%d's direct inv of v%d: fails; token LSN %d, %d/%d")
	}
	if s.left.WriterDies > 0 {
		t := s
		t.left.WriterDies--
		t.sessions[i].rest()
		emit(say("writer of S%d crashes before the inv, no answer", idx(i)), t, "")
	}
}

// handle lets a session handle the event of a version: it must see the cause.
func (m *machine) handle(s *State, i int, emit emit) {
	x := &s.sessions[i]
	for v := uint8(1); v <= s.written; v++ {
		if e := s.events[v]; e.published == 1 && x.own < v && x.reads > 0 {
			t := *s
			y := &t.sessions[i]
			y.own = v
			m.merge(y, e.lsn, e.epoch, e.number)
			emit(say("S%d handles the event of v%d: stamp LSN %d, number %d/%d", idx(i), v, e.lsn, e.epoch, e.number), t, "")
		}
	}
}
