package cachemodel

// evictions is announced instead of a version.
const evictions = maxVersion + 1

// The scripts, all in the namespace of one epoch.

func (s *State) announce(epoch, drained, version uint8) uint8 {
	r := &s.redis[epoch]
	r.count++
	if r.count > maxNumber {
		panic("cachemodel: more announcements than maxNumber")
	}
	s.announced[epoch][r.count], s.announcedVersion[epoch][r.count] = drained, version
	return r.count
}

// invalidate is what a write asks for: inv or invTag.
func (m *machine) invalidate(s *State, epoch, version, lsn uint8) uint8 {
	if m.byTag(version) {
		return m.invTag(s, epoch, version, lsn)
	}
	return m.inv(s, epoch, version, lsn)
}

// inv drops the key's value and lease, raises its fence, and announces.
func (m *machine) inv(s *State, epoch, version, lsn uint8) uint8 {
	r := &s.redis[epoch]
	if m.Dedup && r.key.live == 1 && r.key.applied == version {
		return r.count
	}
	r.told = max(r.told, version)
	r.key = record{live: 1, fence: max(m.fence(r), lsn)}
	if m.Dedup {
		r.key.applied = version
	}
	return s.announce(epoch, 0, version)
}

// invTag raises the tag's fence, numbers it, and announces. It does not know which
// keys carry the tag, and touches none.
func (m *machine) invTag(s *State, epoch, version, lsn uint8) uint8 {
	r := &s.redis[epoch]
	if m.Bare == 0 { // it says nothing of values that do not carry the tag
		r.told = max(r.told, version)
	}
	n := s.announce(epoch, 0, version)
	r.tag = tagRecord{live: 1, fence: max(m.tagFence(r), lsn), number: n}
	return n
}

// fence is the key's, and the floor of the epoch at least, whether the record is absent
// or was made again since it was evicted.
func (m *machine) fence(r *redis) uint8 {
	switch {
	case r.key.live == 1 && m.broken(FloorAbsentOnly):
		return r.key.fence
	case r.key.live == 1:
		return max(r.key.fence, r.floor)
	case m.broken(FloorOff):
		return 0
	case m.FloorIsD:
		return max(r.floor, r.drained)
	}
	return r.floor
}

func (m *machine) tagFence(r *redis) uint8 {
	return max(r.tag.fence, r.floor)
}

// acquire gives a session the lease on the key and tells it the fence and the
// counter. A value that is there was found invalid, and goes.
func (m *machine) acquire(s *State, i int) bool {
	x := &s.sessions[i]
	r := &s.redis[x.readEpoch]
	x.fence, x.ignore = m.fence(r), 0
	if r.key.owner != 0 && !m.broken(LeaseOff) {
		return false
	}
	r.key = record{live: 1, fence: x.fence, owner: uint8(i + 1), applied: r.key.applied}
	x.asOf = r.count
	return true
}

// set stores what a session has loaded, while it holds the lease and if no tag of the
// value speaks against it.
func (m *machine) set(s *State, i int) bool {
	x := &s.sessions[i]
	r := &s.redis[x.readEpoch]
	if r.key.owner != uint8(i+1) && !m.broken(LeaseOff) {
		return false
	}
	if m.carries(x.value) {
		during := r.tag.number > x.asOf && !m.broken(SetIgnoresTagNumber)
		before := m.tagFence(r) > m.reached(x) && !m.broken(SetIgnoresTagFence)
		if during || before {
			// The next load reads far enough.
			r.key.owner, r.key.fence = 0, max(m.fence(r), m.tagFence(r))
			return false
		}
	}
	if m.AsOfAtSet {
		x.asOf = r.count
	}
	r.key = record{live: 1, has: 1, value: x.value, asOf: x.asOf, fence: m.fence(r), applied: r.key.applied}
	return true
}

// reachable reports whether a command to an epoch gets an answer.
func (m *machine) reachable(s *State, epoch uint8) bool { return epoch == s.epoch || m.Split }

// redisSteps are what happens in Redis by itself: failover, expiry, leases that end.
func (m *machine) redisSteps(s *State, emit emit) {
	if s.left.Failover > 0 {
		if m.broken(OneNamespace) && s.backup != s.redis[0].key {
			t := *s
			t.backup = s.redis[0].key
			emit(say("Redis replica catches up"), t, "")
		}
		t := *s
		t.left.Failover--
		t.epoch++
		if m.broken(OneNamespace) {
			t.redis[t.epoch].key = t.backup
		}
		emit(say("Redis fails over: epoch %d, empty", t.epoch), t, "")
	}
	for e := range s.redis {
		if !m.reachable(s, uint8(e)) {
			continue
		}
		if s.left.Expire > 0 {
			m.expire(*s, e, emit)
		}
		if s.left.Evict > 0 {
			s.evict(e, emit)
		}
		if owner := s.redis[e].key.owner; owner > 0 && !m.broken(LeaseNoExpiry) {
			x := &s.sessions[owner-1]
			filling := x.pc == readNode || x.pc == readRow || x.pc == readSet
			if !filling || s.left.FillerDies > 0 {
				t := *s
				if filling {
					t.left.FillerDies--
				}
				t.redis[e].key.owner = 0
				emit(say("lease of S%d runs out", owner-1), t, "")
			}
		}
	}
}

// expire lets go what is old. Durations are orders: a value goes at any time, but a
// key's record when the replica has passed its fence, and the tag's when no value from
// before its number or fence is left and no load that could make one.
func (m *machine) expire(s State, e int, emit emit) {
	r := &s.redis[e]
	passed := s.replay >= r.key.fence
	if m.FloorIsD {
		passed = r.drained >= r.key.fence
	}
	switch {
	case r.key.live == 0 || r.key.owner != 0:
	case r.key.has == 1:
		t := s
		t.left.Expire--
		k := &t.redis[e].key
		k.has, k.value, k.asOf = 0, 0, 0 // the fence stays
		if m.broken(ExpiryDropsFence) {
			*k = record{}
		}
		emit(say("value expires in Redis"), t, "")
	case passed:
		t := s
		t.left.Expire--
		t.redis[e].key = record{}
		emit(say("key expires in Redis"), t, "")
	}
	if r.tag.live == 1 && (s.replay >= r.tag.fence || m.broken(TagDropsFence)) && (!m.older(&s, e) || m.broken(TagExpiresEarly)) {
		t := s
		t.left.Expire--
		t.redis[e].tag = tagRecord{}
		emit(say("the tag's record expires in Redis"), t, "")
	}
}

// evict takes a record whatever it is needed for. Redis counts evictions.
func (s State) evict(e int, emit emit) {
	s.left.Evict--
	s.evicted = 1
	for i := range s.sessions {
		s.sessions[i].excused = 1
	}
	if s.redis[e].key.live == 1 {
		t := s
		t.redis[e].key = record{}
		emit(say("Redis evicts the key"), t, "")
	}
	if s.redis[e].tag.live == 1 {
		t := s
		t.redis[e].tag = tagRecord{}
		emit(say("Redis evicts the tag's record"), t, "")
	}
}

// older reports whether something is left that the tag's record speaks against.
func (m *machine) older(s *State, e int) bool {
	r := &s.redis[e]
	if r.key.has == 1 && r.key.asOf < r.tag.number {
		return true
	}
	for i := range s.sessions {
		x := &s.sessions[i]
		busy := x.pc == readTag || x.pc == readNode || x.pc == readRow || x.pc == readSet
		behind := (x.pc == readRow || x.pc == readSet) && x.replica == 1 && x.replay < r.tag.fence
		if busy && int(x.readEpoch) == e && (x.asOf < r.tag.number || behind) {
			return true
		}
	}
	return false
}
