package cachemodel

import (
	"fmt"
	"math/bits"
	"slices"
	"time"
	"unsafe"
)

// Result is what a search has found.
type Result struct {
	States, Steps, Depth int
	Violation            string   // what went wrong first; empty when the run holds
	Path                 []string // a shortest way to it
	Truncated            bool     // stopped by Run.Max
	Took                 time.Duration
}

// String is the result without its path.
func (r Result) String() string {
	verdict := "holds"
	switch {
	case r.Violation != "":
		verdict = "violated: " + r.Violation
	case r.Truncated:
		verdict = "no violation, stopped"
	}
	return fmt.Sprintf("%d states, %d steps, depth %d, %.1f s: %s", r.States, r.Steps, r.Depth, r.Took.Seconds(), verdict)
}

// Explore visits every state that a run can reach, nearest first, up to a violation.
// It needs about 30 bytes for each, and the states of two depths.
func Explore(run Run) Result {
	m := &machine{Run: run}
	start := time.Now()
	var result Result
	seen := newTable()
	s := m.initial()
	m.canon(&s)
	seen.add(hash(&s), 0)
	type node struct {
		state State
		id    uint32
	}
	level, following := []node{{s, 0}}, []node(nil)
	for ; len(level) > 0 && result.Violation == "" && !result.Truncated; result.Depth++ {
		for k := range level {
			var wrong State
			moves := 0
			m.next(&level[k].state, func(_ step, after State, bad string) {
				moves++
				if result.Violation != "" {
					return
				}
				m.canon(&after)
				if bad == "" {
					bad = m.check(&after)
				}
				if bad != "" {
					result.Violation, wrong = bad, after
				} else if seen.add(hash(&after), level[k].id) {
					following = append(following, node{after, uint32(len(seen.prints) - 1)})
				}
			})
			result.Steps += moves
			if result.Violation != "" {
				result.Path = m.path(append(seen.way(level[k].id), hash(&wrong)))
				break
			}
			if moves == 0 {
				if result.Violation = level[k].state.hung(); result.Violation != "" {
					result.Path = m.path(seen.way(level[k].id))
					break
				}
			}
		}
		level, following = following, level[:0]
		result.Truncated = run.Max > 0 && len(seen.prints) > run.Max
	}
	result.States, result.Took = len(seen.prints), time.Since(start)
	return result
}

// path tells the steps between states, each known by its fingerprint.
func (m *machine) path(way []print) []string {
	var told []string
	s := m.initial()
	m.canon(&s)
	for _, want := range way[1:] {
		var found bool
		var then State
		m.next(&s, func(did step, after State, _ string) {
			m.canon(&after)
			if !found && hash(&after) == want {
				found, then = true, after
				told = append(told, did.String())
			}
		})
		s = then
	}
	return told
}

// print is a state's fingerprint. With 128 bits, 30 million states meet by chance once
// in 10²³ searches.
type print struct{ a, b uint64 }

func hash(s *State) print {
	const size = unsafe.Sizeof(State{})
	p := (*[size]byte)(unsafe.Pointer(s))[:]
	a, b := uint64(0x9E3779B97F4A7C15), uint64(0xD1B54A32D192ED03)
	mix := func(w uint64) {
		h, l := bits.Mul64(a^w, 0xA0761D6478BD642F)
		a = h ^ l ^ bits.RotateLeft64(a, 23)
		h, l = bits.Mul64(b^w^0x8EBC6AF09C88C6E3, 0xE7037ED1A0B428DB)
		b = h ^ l ^ bits.RotateLeft64(b, 29)
	}
	for ; len(p) >= 8; p = p[8:] {
		mix(*(*uint64)(unsafe.Pointer(&p[0])))
	}
	var w uint64
	for _, c := range p {
		w = w<<8 | uint64(c)
	}
	mix(w)
	return print{a, b}
}

// table is the set of states seen, in the order of their discovery, each with the one
// that it was reached from.
type table struct {
	prints  []print
	parents []uint32
	slots   []uint32 // an index into prints plus one, by open addressing
}

func newTable() *table { return &table{slots: make([]uint32, 1<<12)} }

func (t *table) add(p print, parent uint32) bool {
	if (len(t.prints)+1)*3 > len(t.slots)*2 {
		t.slots = make([]uint32, len(t.slots)*2)
		for i, q := range t.prints {
			t.slots[t.slot(q)] = uint32(i + 1)
		}
	}
	i := t.slot(p)
	if t.slots[i] != 0 {
		return false
	}
	t.prints = append(t.prints, p)
	t.parents = append(t.parents, parent)
	t.slots[i] = uint32(len(t.prints))
	return true
}

// slot is where a fingerprint is, or would be.
func (t *table) slot(p print) uint64 {
	mask := uint64(len(t.slots) - 1)
	i := p.a & mask
	for t.slots[i] != 0 && t.prints[t.slots[i]-1] != p {
		i = (i + 1) & mask
	}
	return i
}

// way lists the fingerprints from the first state to one.
func (t *table) way(id uint32) []print {
	way := []print{t.prints[id]}
	for id != 0 {
		id = t.parents[id]
		way = append(way, t.prints[id])
	}
	slices.Reverse(way)
	return way
}
