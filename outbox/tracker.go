package outbox

import (
	"slices"
	"time"

	"github.com/loadlinehq/loadline/causal"
)

// tracker says where to look for rows that have not been seen yet.
//
// Numbers are given before the commit, so rows appear out of order, and a cursor that goes by
// them loses rows: of 17,490 it lost 8,148. A scan from the start of the table finds all, but
// passes the places of all rows that are gone and that somebody's old snapshot keeps: ten times
// as slow after 100,000. So the tracker knows the numbers below its top that it has not seen, the
// gaps, and a scan looks for those and beyond the top.
//
// A gap whose writer has rolled back would stay for ever. Once in a while a round begins:
// it notes the last number that was given, and then which transactions hold the lock on the
// table that an INSERT takes. The lock is let go after the commit has become visible; so when those
// have ended, each number up to the noted one is a row that can be seen, or nothing. Then one scan from
// the start of the table settles all of them. Transactions that have not touched the
// table, in other databases above all, are not waited for: with the oldest running
// transaction as the horizon, a migration of ten minutes stops all events for ten minutes.
type tracker struct {
	settled bool  // top and gaps are complete
	top     int64 // numbers up to here have been seen, except for the gaps
	gaps    []int64
	round   *round
}

// maxGaps bounds what a claim looks for by number. More are a long transaction with many
// others rolled back meanwhile.
const maxGaps = 4096

type round struct {
	last    int64               // the last number given
	lsn     causal.LSN          // of the log, before the holders were asked for
	holders map[string]struct{} // transactions that may hold rows up to last
	over    bool                // all have ended
	began   time.Time
}

// begin begins a round, unless there is one.
func (t *tracker) begin(last int64, lsn causal.LSN, holders []string) {
	if t.round != nil {
		return
	}
	t.round = &round{last: last, lsn: lsn, holders: make(map[string]struct{}, len(holders)), began: time.Now()}
	for _, h := range holders {
		t.round.holders[h] = struct{}{}
	}
	t.round.over = len(holders) == 0
}

// holding tells the round which transactions hold the lock now.
func (t *tracker) holding(holders []string) {
	if t.round == nil || t.round.over {
		return
	}
	t.round.over = !slices.ContainsFunc(holders, func(h string) bool {
		_, was := t.round.holders[h]
		return was
	})
}

// from is where the next scan begins. With nothing settled, and at the end of a round,
// at the start of the table.
func (t *tracker) from() (top int64, gaps []int64) {
	if !t.settled || t.full() {
		return 0, nil
	}
	return t.top, t.gaps
}

// full reports whether the next scan settles a round.
func (t *tracker) full() bool { return t.round != nil && t.round.over }

// scanned tells of the numbers that a scan from from() has found, in order. More says
// that there may be others. It returns the round that this has settled.
func (t *tracker) scanned(seqs []int64, more bool) *round {
	highest := int64(0)
	if n := len(seqs); n > 0 {
		highest = seqs[n-1]
	}
	if t.full() {
		r := t.round
		t.round, t.settled, t.gaps = nil, true, nil
		if t.top = highest; !more {
			t.top = max(r.last, highest)
		}
		t.addGaps(r.last, highest, seqs)
		return r
	}
	if !t.settled {
		return nil
	}
	t.gaps = slices.DeleteFunc(t.gaps, func(gap int64) bool {
		_, found := slices.BinarySearch(seqs, gap)
		return found
	})
	if highest > t.top {
		before := t.top
		t.top = highest
		t.addGaps(before, highest, seqs)
	}
	return nil
}

// addGaps adds what is missing in (after, upTo]. If that is too much, scans begin at the
// lowest gap.
func (t *tracker) addGaps(after, upTo int64, seqs []int64) {
	i, _ := slices.BinarySearch(seqs, after+1)
	for seq := after + 1; seq <= upTo && i < len(seqs); seq++ {
		if seqs[i] == seq {
			i++
			continue
		}
		if t.gaps = append(t.gaps, seq); len(t.gaps) > maxGaps {
			t.rewind(t.gaps[0])
			return
		}
	}
}

// low is a number that no row is below, of those that have not been seen. For one that is
// not settled it is not known.
func (t *tracker) low() int64 {
	low := t.top + 1
	if len(t.gaps) > 0 {
		low = min(low, t.gaps[0])
	}
	return low
}

// rewind has rows from seq on looked for again. It is always safe: a scan that begins lower
// finds more.
func (t *tracker) rewind(seq int64) {
	if t.settled && seq <= t.top {
		t.top = seq - 1
		t.gaps = slices.DeleteFunc(t.gaps, func(gap int64) bool { return gap >= seq })
	}
}
