package cachemodel

import (
	"bytes"
	"unsafe"
)

// canon gives states that differ in nothing that matters the same form.
func (m *machine) canon(s *State) {
	for e := range s.redis {
		r := &s.redis[e]
		// What every live subscriber has heard.
		heard := r.count
		for p := range s.processes {
			if q := &s.processes[p]; q.deaf == 0 && int(q.epoch) == e {
				heard = min(heard, q.heard)
			}
		}
		clear(s.announced[e][:heard+1])
		clear(s.announcedVersion[e][:heard+1])
		if e < int(s.epoch) && !m.Split { // nobody reaches it
			r.key, r.tag = record{}, tagRecord{}
		}
	}
	if s.left.Failover == 0 {
		s.backup = record{}
	}
	for i := range s.sessions { // one that will do nothing more
		x := &s.sessions[i]
		if x.pc == idle && x.writes == 0 && x.reads == 0 {
			*x = session{}
		}
		if x.cut == 1 || s.sessions[1-i].reads == 0 { // nobody can join
			x.startHeard, x.startDrained = 0, 0
		}
		if x.pc == readDone && (x.unstored != stored && !m.storesAll() || x.shared == 0 || x.cut == 1) { // not for L1
			x.asOf = 0
		}
	}
	for p := range s.processes {
		m.forget(s, p)
	}
	// The processes are alike.
	if swapped(s) {
		s.processes[0], s.processes[1] = s.processes[1], s.processes[0]
		for i := range s.sessions {
			if x := &s.sessions[i]; x.pc != idle {
				x.process = 1 - x.process
			}
		}
	}
}

// forget drops an L1 entry that can never be valid again, and numbers that speak
// against nothing that there is or will be.
func (m *machine) forget(s *State, p int) {
	q := &s.processes[p]
	if q.has == 1 && !m.usable(q) {
		q.has, q.value, q.asOf = 0, 0, 0
	}
	oldest := s.redis[q.epoch].count
	if k := &s.redis[q.epoch].key; k.has == 1 {
		oldest = min(oldest, k.asOf)
	}
	if q.has == 1 {
		oldest = min(oldest, q.asOf)
	}
	for i := range s.sessions {
		if x := &s.sessions[i]; x.readEpoch == q.epoch && x.pc >= readTag && x.pc != readWait && x.pc != readJoined && (x.unstored == stored || m.storesAll()) {
			oldest = min(oldest, x.asOf)
		}
	}
	if q.lastKey <= oldest {
		q.lastKey = 0
	}
	if q.lastTag <= oldest {
		q.lastTag = 0
	}
}

// storesAll reports whether L1 is given what is not a value in Redis.
func (m *machine) storesAll() bool { return m.broken(StoreUncovered) || m.broken(StoreRefused) }

// swapped reports whether the processes are not in their order. Where they are equal,
// that in which the first busy session works comes first.
func swapped(s *State) bool {
	a := (*[unsafe.Sizeof(process{})]byte)(unsafe.Pointer(&s.processes[0]))
	b := (*[unsafe.Sizeof(process{})]byte)(unsafe.Pointer(&s.processes[1]))
	if c := bytes.Compare(a[:], b[:]); c != 0 {
		return c > 0
	}
	for i := range s.sessions {
		if x := &s.sessions[i]; x.pc != idle {
			return x.process == 1
		}
	}
	return false
}
