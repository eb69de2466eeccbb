package causal

// Mark says how far its holder has seen one timeline of one cluster.
type Mark struct {
	System   uint64 // pg_control_system().system_identifier
	Timeline uint32 // changes with each promotion; starts at 1
	LSN      LSN    // everything up to here has been seen

	// Epoch and Number are the place of the write's invalidation in the cache's
	// numbering. Number 0: nobody has promised that the caches know.
	Epoch, Number uint64
}

// sameLog reports whether positions of the two can be compared.
func (m Mark) sameLog(n Mark) bool { return m.System == n.System && m.Timeline == n.Timeline }

// merge returns the least mark at or past two of one log. A number stays only if
// both have one, in the same epoch: otherwise a write of which the caches were not told
// would hide behind one of which they were.
func (m Mark) merge(n Mark) Mark {
	if m.Number > 0 && n.Number > 0 && m.Epoch == n.Epoch {
		m.Number = max(m.Number, n.Number)
	} else {
		m.Epoch, m.Number = 0, 0
	}
	m.LSN = max(m.LSN, n.LSN)
	return m
}

// compare orders marks by cluster, the newest timeline first.
func (m Mark) compare(n Mark) int {
	switch {
	case m.System < n.System, m.System == n.System && m.Timeline > n.Timeline:
		return -1
	case m.sameLog(n):
		return 0
	}
	return 1
}
