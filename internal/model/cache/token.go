package cachemodel

// merge takes (lsn, epoch, number) into the session's token; number 0 says that
// nobody has acknowledged the invalidation.
func (m *machine) merge(x *session, lsn, epoch, number uint8) {
	if number == 0 || m.LSNOnly {
		epoch, number = 0, 0
	}
	switch {
	case x.lsn == 0:
		x.epoch, x.number = epoch, number
	case x.number > 0 && number > 0 && x.epoch == epoch:
		x.number = max(x.number, number)
	case m.broken(MergeMax) && number > 0:
		x.epoch, x.number = epoch, number
	default:
		x.epoch, x.number = 0, 0
	}
	x.lsn = max(x.lsn, lsn)
}

// covered reports whether everything that the session must see had been heard by a
// process that had come to these marks.
func (m *machine) covered(x *session, epoch, heard, drained uint8) bool {
	if x.lsn == 0 {
		return true
	}
	if x.number > 0 && (x.epoch == epoch || m.broken(NoEpoch)) && (heard >= x.number || m.broken(NoNumber)) {
		return true
	}
	if x.number == 0 && m.broken(UnackedIgnored) {
		return true
	}
	return drained >= x.lsn
}

// exchange replaces a number that this process cannot judge, once D has passed the
// token: all of it has been heard up to W. It must not be cleared, for another process may
// not have heard D.
func (m *machine) exchange(x *session, q *process) {
	if x.lsn == 0 || q.dm < x.lsn || x.number > 0 && x.epoch == q.epoch || m.LSNOnly {
		return
	}
	x.epoch, x.number = q.epoch, q.heard
	if m.broken(ExchangeZero) {
		x.lsn, x.epoch, x.number = 0, 0, 0
	}
}
