package cachemodel

import "fmt"

// check says what is wrong with a state, or nothing: what may be read in Redis or in
// an L1 is never older than what was told to it, and at rest is what the database has.
func (m *machine) check(s *State) string {
	if s.unsettled() {
		return ""
	}
	for e := range s.redis {
		if m.broken(TagExpiresEarly) {
			break // what its number would say is what is missing: let a reader show it
		}
		if r := &s.redis[e]; m.readable(r) && r.open == 1 && r.key.value < r.told && m.reachable(s, uint8(e)) {
			return fmt.Sprintf("no_stale_fill: Redis (epoch %d) holds v%d although it was told of v%d", e, r.key.value, r.told)
		}
	}
	for p := range s.processes {
		if q := &s.processes[p]; m.valid(q) && q.value < q.told {
			return fmt.Sprintf("no_stale_fill: P%d's L1 holds v%d although it was told of v%d", p, q.value, q.told)
		}
	}
	if !s.atRest() {
		return ""
	}
	r := &s.redis[s.epoch]
	if m.readable(r) && r.key.value != s.visible {
		return fmt.Sprintf("no_stale_fill: at rest Redis holds v%d, the database v%d", r.key.value, s.visible)
	}
	for p := range s.processes {
		if q := &s.processes[p]; m.valid(q) && q.value != s.visible {
			return fmt.Sprintf("no_stale_fill: at rest P%d's L1 holds v%d, the database v%d", p, q.value, s.visible)
		}
	}
	return ""
}

// readable reports whether Redis holds a value that its tag's record does not speak
// against.
func (m *machine) readable(r *redis) bool {
	if r.key.asOf < r.mark && (m.carries(r.key.value) || !m.broken(EvictionsTagsOnly)) {
		return false
	}
	return r.key.has == 1 && (r.tag.number <= r.key.asOf || !m.carries(r.key.value))
}

// atRest reports whether every write is finished, everything is heard, and nobody reads.
func (s *State) atRest() bool {
	if s.visible != s.written || s.relay.pc != relayIdle || s.deleted != s.visible || s.applied != s.visible || s.relay.epoch != s.epoch {
		return false
	}
	for i := range s.sessions {
		if s.sessions[i].pc != idle {
			return false
		}
	}
	for p := range s.processes {
		if q := &s.processes[p]; q.deaf == 1 || q.unwritten > 0 || q.epoch != s.epoch || q.heard != s.redis[s.epoch].count {
			return false
		}
	}
	return true
}

// hung names a session that has something to do, in a state in which nothing can
// happen.
func (s *State) hung() string {
	for i := range s.sessions {
		if s.sessions[i].pc != idle {
			return fmt.Sprintf("no_lease_hang: S%d can never go on", i)
		}
	}
	return ""
}
