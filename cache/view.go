package cache

import (
	"sync/atomic"

	"github.com/loadlinehq/loadline/causal"
)

// view is what a process knows of the epoch that it takes part in. A resync makes a new one, so
// that nothing that was cached under an older one counts.
type view struct {
	number   uint64 // in this process; entries have it, and not the view, which is large
	epoch    uint64
	dials    uint64 // of its connection
	system   uint64 // whose positions fences are; 0: none
	timeline uint32
	space    string // before each key

	w0 uint64        // what was announced when it began
	w  atomic.Uint64 // all announcements up to here have been heard
	d  atomic.Uint64 // drained mark
	// tagFence is the highest fence of a tag that was announced: who loads what may have tags reads
	// past it, or Redis would refuse the value.
	tagFence atomic.Uint64
	heard    atomic.Int64 // nanoseconds since the store began

	keys, tags stripes

	clock int64 // Redis's when the store began, in ms of Unix
	// Of a store without Redis, which has the fences itself.
	fences, tagFences stripes
	floor             causal.LSN // what every load reads at least
}

func newView(number, epoch uint64, m meta) *view {
	v := &view{number: number, epoch: epoch, system: m.system, timeline: m.timeline, w0: m.n, keys: newStripes(keyStripes), tags: newStripes(tagSlots)}
	v.w.Store(m.n)
	v.d.Store(uint64(m.d))
	return v
}

func newLocalView(number, epoch uint64, m meta) *view {
	v := newView(number, epoch, m)
	v.fences, v.tagFences, v.floor = newStripes(keyStripes), newStripes(tagSlots), m.floor
	return v
}

// horizon is what a process has heard: all announcements up to a number, and the drained mark.
type horizon struct {
	w uint64
	d causal.LSN
}

func (v *view) horizon() horizon { return horizon{v.w.Load(), causal.LSN(v.d.Load())} }

// needs is what a session must see of the view's database.
type needs struct {
	mark causal.Mark // zero: nothing
	more bool        // and something that is not known
}

// needsOf looks at a session's token. A mark of an older timeline needs nothing: an epoch begins with its
// timeline, past the fork.
func (v *view) needsOf(s *causal.Session) needs {
	if s == nil {
		return needs{}
	}
	if v.system == 0 {
		return v.needsByNumber(s)
	}
	m, ok, incomplete := s.Mark(v.system)
	switch {
	case incomplete:
		return needs{more: true}
	case !ok, m.Timeline < v.timeline:
		return needs{}
	case m.Timeline > v.timeline:
		return needs{m, true}
	}
	return needs{mark: m}
}

// needsByNumber is of an epoch without positions: each mark must have its number in it.
func (v *view) needsByNumber(s *causal.Session) (n needs) {
	if _, _, incomplete := s.Mark(0); incomplete {
		return needs{more: true}
	}
	for m := range s.Token().Marks() {
		if m.Number == 0 || m.Epoch != v.epoch {
			return needs{more: true}
		}
		n.mark.Epoch, n.mark.Number = m.Epoch, max(n.mark.Number, m.Number)
	}
	return n
}

// covered reports whether all that is needed had been heard: then both tiers may be read. Who is not
// covered reads the database, and stores nothing.
func (v *view) covered(n needs, h horizon) bool {
	switch {
	case n.more:
		return false
	case n.mark == causal.Mark{}:
		return true
	case n.mark.Number > 0 && n.mark.Epoch == v.epoch && h.w >= n.mark.Number:
		return true
	}
	return n.mark.LSN != 0 && h.d >= n.mark.LSN
}
