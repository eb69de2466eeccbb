package causal

import (
	"iter"
	"slices"
)

// MaxMarks bounds a token: 8 logs, so that its signed form stays below [MaxSize].
// Guess: a request that touches more clusters than this is not known to us.
const MaxMarks = 8

// Token says: whoever holds me has seen everything up to here. It holds at most one
// mark per log, which is a timeline of a cluster. The zero Token has seen nothing. A
// Token does not change; it may be copied and used by several goroutines.
//
// A mark of an older timeline stays beside the newer one until somebody who knows where
// the timelines parted has looked at it: it may name a write that a failover has lost.
type Token struct {
	marks      []Mark // ordered by Mark.compare, shared, never written to
	incomplete bool
}

// NewToken returns the token of marks, merged.
func NewToken(marks ...Mark) Token {
	var t Token
	for _, m := range marks {
		t = t.Add(m)
	}
	return t
}

// Unknown is the token of a holder who may have seen anything.
func Unknown() Token { return Token{incomplete: true} }

// IsZero reports whether the holder has seen nothing.
func (t Token) IsZero() bool { return len(t.marks) == 0 && !t.incomplete }

// Incomplete reports that the holder has seen more than the marks say, because they
// were more than [MaxMarks] or could not be found: he reads primaries, and no cache.
func (t Token) Incomplete() bool { return t.incomplete }

// Mark returns the mark of the newest timeline that the token has of a cluster.
func (t Token) Mark(system uint64) (m Mark, ok bool) {
	for i := range t.marks {
		if t.marks[i].System == system {
			return t.marks[i], true
		}
	}
	return Mark{}, false
}

// Marks yields all marks: by cluster, the newest timeline first.
func (t Token) Marks() iter.Seq[Mark] { return slices.Values(t.marks) }

// Add returns the token of a holder who has also seen m. A mark without a position
// names no log and adds nothing.
func (t Token) Add(m Mark) Token {
	if m.LSN == 0 {
		return t
	}
	if m.Number == 0 {
		m.Epoch = 0 // as merging has it: the same mark twice must be the same as once
	}
	at, found := slices.BinarySearchFunc(t.marks, m, Mark.compare)
	if found {
		merged := t.marks[at].merge(m)
		if merged == t.marks[at] {
			return t
		}
		t.marks = slices.Clone(t.marks)
		t.marks[at] = merged
		return t
	}
	marks := make([]Mark, 0, len(t.marks)+1)
	marks = append(append(append(marks, t.marks[:at]...), m), t.marks[at:]...)
	t.marks = marks
	return t.bounded()
}

// Merge returns the token of a holder who has seen what t and u say.
func (t Token) Merge(u Token) Token {
	if len(t.marks) == 0 {
		u.incomplete = u.incomplete || t.incomplete
		return u
	}
	t.incomplete = t.incomplete || u.incomplete
	for _, m := range u.marks {
		t = t.Add(m)
	}
	return t
}

// Without returns the token without the mark of m's log. It is for those who know
// what became of that log: a timeline that has ended is covered by the one after it.
func (t Token) Without(m Mark) Token {
	at, found := slices.BinarySearchFunc(t.marks, m, Mark.compare)
	if found {
		t.marks = slices.Delete(slices.Clone(t.marks), at, at+1)
	}
	return t
}

// Equal reports whether the two say the same.
func (t Token) Equal(u Token) bool {
	return t.incomplete == u.incomplete && slices.Equal(t.marks, u.marks)
}

// bounded leaves out what is too much, ended timelines first, and says so.
func (t Token) bounded() Token {
	for len(t.marks) > MaxMarks {
		drop := len(t.marks) - 1
		for i := len(t.marks) - 1; i > 0; i-- {
			if t.marks[i].System == t.marks[i-1].System {
				drop = i
				break
			}
		}
		t.marks = slices.Delete(t.marks, drop, drop+1)
		t.incomplete = true
	}
	return t
}
