package cachemodel

// The bounds of the model. Sessions and processes are two each, so that each rule
// between two has both sides.
const (
	sessions   = 2
	processes  = 2
	epochs     = 2
	maxVersion = 3
	maxNumber  = 15 // announcements in one epoch
)

// record is the one record of the key in one epoch: a fence, perhaps a lease,
// perhaps a value.
type record struct {
	live       uint8 // the record exists in Redis
	has, value uint8 // a value, by its version
	asOf       uint8 // the counter when the value's lease was given
	owner      uint8 // who holds the lease: session+1, 0 is nobody
	fence      uint8 // a fill has to be at or past this LSN
	applied    uint8 // with Run.Dedup: the invalidation that was applied last
}

// tagRecord is the record of the one tag in one epoch.
type tagRecord struct {
	live   uint8
	fence  uint8 // values that carry the tag have to be at or past this LSN
	number uint8 // of the tag's last invalidation
}

// redis is the namespace of one epoch.
type redis struct {
	key     record
	tag     tagRecord
	count   uint8 // the announcements' counter
	drained uint8 // D
	open    uint8 // opened by the relay
	floor   uint8 // the fence of a record that is absent
	mark    uint8 // the counter when the relay last found evictions: values from before are invalid
	told    uint8 // ghost: the highest version whose invalidation was applied, or was finished before this epoch
}

// process is one instance of the application: what it has heard, and its first
// tier (L1). Its view begins at a resync, and everything here belongs to it.
type process struct {
	has, value, asOf  uint8 // the L1 entry
	lastKey, lastTag  uint8 // numbers of the last invalidations heard in this view
	since             uint8 // W0: the counter when the view began; only with tags
	epoch, heard, dm  uint8 // epoch; W, announcements heard up to; D as it was heard
	mark              uint8 // the last mark of evictions heard
	deaf              uint8 // the subscription is lost, which nobody has noticed
	told              uint8 // ghost: the highest version of which it has heard
	loader            uint8 // session+1 that runs the shared load of this view
	unwritten, unkind uint8 // only for [NumberBeforeLast]: what was heard and not yet written down
}

// session is a client in order: one request at a time.
type session struct {
	pc, process   uint8
	writes, reads uint8 // still to come
	// The token.
	lsn, epoch, number uint8
	own                uint8 // ghost: the version that it must see, by its own write or an event's

	version, versionLSN uint8 // the write in progress

	// The read in progress.
	readEpoch, fence, value, asOf uint8
	replica, replay               uint8 // the row is the replica's; its replay LSN when it was chosen
	ignore                        uint8 // asOf+1 of a value that the tag's record has shown to be invalid
	shared                        uint8 // others may join, and the result may be stored in L1
	startHeard, startDrained      uint8 // W and D at the start of the shared load
	moved                         uint8 // with Run.JoinByLast: the key was invalidated since the start
	excused                       uint8 // ghost: an eviction may have been unknown during the read
	cut                           uint8 // the process has a new view since the start
	unstored                      uint8 // why the load is not a value in Redis
}

// Values of session.unstored.
const (
	stored   = iota
	refused  // the fill was refused, or never tried
	bypassed // without Redis
)

// Values of session.pc.
const (
	idle          = iota
	writeRecorded // the commit record is written, and cannot be seen yet
	writeVisible  // COMMIT is answered; the invalidation is not sent yet
	readRedis     // about to ask Redis
	readTag       // has a value that is older than the process's view; about to ask for the tag's record
	readWait      // another holds the lease
	readNode      // choose a node
	readRow       // read the row
	readSet       // fill
	readDone      // store in L1, answer
	readJoined    // waits for the shared load of this process
)

// event is what the relay has published of one version.
type event struct{ published, lsn, epoch, number uint8 }

// relay is the one process that applies invalidations and publishes events.
type relay struct {
	pc, epoch   uint8
	mark        uint8 // of a tick: the LSN that D will be
	need        uint8 // of a tick: versions in progress when it was noted
	to, done    uint8 // the batch: up to which version; applied up to
	lsn         uint8 // of the batch
	number      uint8 // of the last invalidation, in numberEpoch
	numberEpoch uint8
	failed      uint8
}

// Values of relay.pc.
const (
	relayIdle      = iota
	relayWait      // a tick waits for the transactions in progress
	relayApply     // applies a batch
	relayApplied   // has applied it, or failed
	relayPublished // has published the events
	relayDrained   // announces D
	relayOpen      // opens an epoch
)

// State is everything, in bytes alone, so that it can be hashed as memory.
type State struct {
	wal, written, visible, replay uint8
	at                            [maxVersion + 1]uint8 // the LSN of each version
	redis                         [epochs]redis
	epoch                         uint8                        // the master that new connections reach
	backup                        record                       // only for [OneNamespace]: what the Redis replica holds
	announced                     [epochs][maxNumber + 1]uint8 // an LSN drained, or 0
	announcedVersion              [epochs][maxNumber + 1]uint8 // a version invalidated, or 0
	processes                     [processes]process
	sessions                      [sessions]session
	events                        [maxVersion + 1]event
	relay                         relay
	deleted, applied              uint8 // versions whose event rows, and whose invalidation rows, are deleted
	evicted                       uint8 // a record was evicted, and the relay has not looked yet
	left                          Faults
}

func (m *machine) initial() State {
	var s State
	// Version 0 is at LSN 1 everywhere; LSN 0 means none.
	s.wal, s.replay = 1, 1
	s.redis[0].drained, s.redis[0].open, s.redis[0].floor = 1, 1, 1
	for i := range s.processes {
		s.processes[i].dm = 1
	}
	for i := range s.sessions {
		s.sessions[i].writes, s.sessions[i].reads = m.Writes[i], m.Reads[i]
	}
	s.left = m.Faults
	return s
}

// rest ends what a session does, and keeps what it has.
func (x *session) rest() {
	*x = session{writes: x.writes, reads: x.reads, lsn: x.lsn, epoch: x.epoch, number: x.number, own: x.own}
}

// versionAt is what a node shows whose replay LSN is lsn.
func (s *State) versionAt(lsn uint8) uint8 {
	v := uint8(0)
	for i := uint8(1); i <= s.written; i++ {
		if s.at[i] <= lsn {
			v = i
		}
	}
	return v
}

// byTag reports whether the write of a version invalidates the tag, and not the key.
func (m *machine) byTag(version uint8) bool { return m.Tagged>>version&1 == 1 }

// unsettled reports whether an eviction is not known yet to all who listen. What a record
// has protected is not protected for so long.
func (s *State) unsettled() bool {
	if s.evicted == 1 {
		return true
	}
	for p := range s.processes {
		if q := &s.processes[p]; q.mark < s.redis[q.epoch].mark {
			return true
		}
	}
	return false
}

// carries reports whether the value of a version has the tag.
func (m *machine) carries(version uint8) bool { return m.Tagged != 0 && m.Bare>>version&1 == 0 }
