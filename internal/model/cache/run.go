package cachemodel

// Faults says how often each may happen.
type Faults struct {
	Noise      uint8 // other traffic moves the end of the WAL
	Other      uint8 // a session writes another key
	InvFails   uint8 // an invalidation fails, or its reply is lost
	RedisAway  uint8 // a reader gets no answer from Redis
	WriterDies uint8
	RelayDies  uint8
	FillerDies uint8
	Deaf       uint8 // a subscription breaks, and nobody notices
	Failover   uint8 // Redis fails over, and nothing survives
	Restart    uint8 // the replica of the database comes back in the past
	Expire     uint8 // a value, a key's record or the tag's record goes
	Evict      uint8 // Redis evicts a record: a key's or the tag's
	Refresh    uint8 // a lease is taken while the value is still there
}

// Run is what is explored: bounds, faults, and variants of the protocol.
type Run struct {
	Name          string
	Writes, Reads [sessions]uint8 // of each session
	Faults

	Tagged uint8 // bit v: the write of version v invalidates the tag and not the key; 0 is a model without tags
	Bare   uint8 // bit v: the value of version v does not carry the tag

	Events     bool // sessions may handle the event of a version
	Drain      bool // the relay announces D
	Split      bool // after a failover the old master goes on answering those who have not moved
	NoBound    bool // who waits for a lease waits for ever
	Dedup      bool // inv skips what it applied last
	LSNOnly    bool // tokens without (epoch, number): D alone covers
	Early      bool // Redis may be read in the token's epoch before its number is heard
	FloorIsD   bool // an absent record has D as its fence; a key expires when D has passed its fence
	JoinByLast bool // a load is joined until its key is invalidated, whatever the session must see
	Reached    bool // set is told what the node had reached, and not what was asked for
	AsOfAtSet  bool // a value's asOf is the counter at set, and not at its lease

	Broken Rule // the rule that is switched off
	Max    int  // states after which to stop; 0 is never
}

// machine is a run with what does not belong to the state.
type machine struct{ Run }

// broken reports whether a rule is switched off.
func (m *machine) broken(r Rule) bool { return m.Broken == r }
