package cachemodel

// open makes the current epoch usable. Whatever is no more in the outbox was visible
// before.
func (m *machine) open(t *State, floor uint8) {
	r := &t.redis[t.epoch]
	r.open, r.floor, r.told = 1, floor, t.applied
	if m.broken(OpenDrained) {
		r.drained = floor
	}
}

func (m *machine) relayStep(s State, emit emit) {
	r := &s.relay
	if s.left.RelayDies > 0 && r.pc != relayIdle {
		t := s
		t.left.RelayDies--
		t.relay = relay{epoch: r.epoch}
		emit(say("relay crashes and restarts"), t, "")
	}
	if r.epoch != s.epoch && r.pc != relayOpen && (!m.broken(BatchAnyEpoch) || r.pc == relayIdle) {
		t := s
		t.relay = relay{epoch: r.epoch, pc: relayOpen, mark: t.wal}
		emit(say("relay finds epoch %d, drops its batch, notes floor %d", t.epoch, t.wal), t, "")
	}
	if r.epoch != s.epoch && m.broken(BatchAnyEpoch) && r.pc == relayApply {
		t := s
		m.open(&t, t.wal)
		t.relay.epoch = t.epoch
		emit(say("relay opens epoch %d in the middle of its batch", t.epoch), t, "")
	}
	switch r.pc {
	case relayOpen:
		if s.redis[s.epoch].open == 0 {
			m.open(&s, r.mark)
		}
		s.relay = relay{epoch: s.epoch}
		emit(say("relay opens epoch %d", s.epoch), s, "")
	case relayIdle:
		if s.deleted < s.visible || s.applied < s.visible && m.reachable(&s, r.epoch) {
			m.claim(s, emit)
		}
		if s.evicted == 1 && m.reachable(&s, r.epoch) && r.epoch == s.epoch {
			t := s
			t.evicted = 0
			q := &t.redis[r.epoch]
			q.floor = t.wal
			q.mark = t.announce(r.epoch, 0, evictions)
			emit(say("relay finds evictions: floor %d, mark %d/%d", q.floor, r.epoch, q.mark), t, "")
		}
		if m.Drain && s.redis[r.epoch].drained < s.wal && m.reachable(&s, r.epoch) {
			t := s
			q := &t.relay
			q.mark, q.need, q.pc = t.wal, t.written, relayWait
			emit(say("relay's tick: notes LSN %d, transactions in progress up to v%d", q.mark, q.need), t, "")
		}
	case relayWait:
		if s.visible >= r.need || m.broken(DrainedNaive) {
			m.claim(s, emit)
		}
	case relayApply:
		m.applyBatch(s, emit)
	case relayApplied:
		if m.Events && s.deleted < r.to {
			m.publish(s, emit)
			return
		}
		m.commitBatch(s, emit)
	case relayPublished:
		m.commitBatch(s, emit)
	case relayDrained:
		q := *r
		s.relay = relay{epoch: q.epoch}
		if m.reachable(&s, q.epoch) && s.redis[q.epoch].drained < q.mark {
			s.redis[q.epoch].drained = q.mark
			n := s.announce(q.epoch, q.mark, 0)
			emit(say("relay announces drained %d as %d/%d", q.mark, q.epoch, n), s, "")
		} else {
			emit(say("relay announces nothing"), s, "")
		}
	}
}

// claim takes the rows that are visible, and then reads the LSN.
func (m *machine) claim(t State, emit emit) {
	q := &t.relay
	q.to, q.lsn, q.done, q.number, q.failed, q.pc = t.visible, t.wal, t.applied, 0, 0, relayApply
	if m.broken(DeleteBeforeInv) {
		t.deleted, t.applied = t.visible, t.visible
	}
	emit(say("relay claims rows %d..%d, then LSN %d", q.done+1, q.to, q.lsn), t, "")
}

func (m *machine) applyBatch(s State, emit emit) {
	r := &s.relay
	if r.done == r.to {
		if !m.Events || s.deleted >= r.to {
			m.commitBatch(s, emit)
			return
		}
		r.pc = relayApplied
		emit(say("relay has applied its batch"), s, "")
		return
	}
	if m.reachable(&s, r.epoch) {
		t := s
		q := &t.relay
		q.done++
		q.number, q.numberEpoch = m.invalidate(&t, q.epoch, q.done, q.lsn), q.epoch
		emit(say("relay's inv of v%d, fence %d, number %d/%d", q.done, q.lsn, q.epoch, q.number), t, "")
	}
	if s.left.InvFails > 0 || !m.reachable(&s, r.epoch) {
		s.left.InvFails -= min(s.left.InvFails, 1)
		r.failed, r.done, r.pc = 1, r.to, relayApplied
		emit(say("relay's inv fails: the invalidation rows stay"), s, "")
	}
}

// publish sends the batch's events, stamped with what has been acknowledged.
func (m *machine) publish(t State, emit emit) {
	q := &t.relay
	for v := t.deleted + 1; v <= q.to; v++ {
		e := event{published: 1, lsn: q.lsn, epoch: q.numberEpoch, number: q.number}
		if q.number == 0 || q.failed == 1 {
			e.epoch, e.number = 0, 0
			if m.broken(StampUnacked) {
				e.epoch, e.number = q.epoch, max(t.redis[q.epoch].count, 1)
			}
		}
		if m.broken(EventUnstamped) {
			e = event{published: 1}
		}
		t.events[v] = e
	}
	q.pc = relayPublished
	e := t.events[q.to]
	emit(say("relay publishes events up to v%d: LSN %d, number %d/%d", q.to, e.lsn, e.epoch, e.number), t, "")
}

// commitBatch deletes the rows of what was published and applied.
func (m *machine) commitBatch(t State, emit emit) {
	q := t.relay
	t.deleted = max(t.deleted, q.to)
	if q.failed == 0 {
		t.applied = max(t.applied, q.to)
	}
	t.relay = relay{epoch: q.epoch}
	if q.mark > 0 && (q.failed == 0 || m.broken(DrainedUnapplied)) {
		t.relay.pc, t.relay.mark = relayDrained, q.mark
	}
	emit(say("relay deletes rows up to v%d (invalidations up to v%d)", t.deleted, t.applied), t, "")
}
