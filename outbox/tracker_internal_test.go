package outbox

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// The tracker against a model of the table: writers take numbers, commit or roll back in
// any order, and let go of their locks after that; scans see what is committed. Each committed row
// is found, a row is found before later ones of its key, and when a round has settled
// there are no gaps of writers that had ended.
func TestTrackerModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		type writer struct {
			name string
			key  int
			seqs []int64
			gone bool // ended, and holds its lock still
		}
		var tr tracker
		var last int64
		next := 0
		open := map[string]*writer{}
		keys := map[int]bool{}           // locked by a writer
		table := map[int64]int{}         // committed, not yet taken: key
		found := map[int64]bool{}        // taken
		latest := map[int]int64{}        // of a key, that was taken
		committed := map[int64]int{}     // all
		names := func() (all []string) { // those who hold the lock
			for name := range open {
				all = append(all, name)
			}
			slices.Sort(all)
			return all
		}
		pick := func() *writer {
			all := names()
			if len(all) == 0 {
				t.Skip("none is open")
			}
			return open[rapid.SampledFrom(all).Draw(t, "writer")]
		}
		scan := func(limit int) bool {
			top, gaps := tr.from()
			var seqs []int64
			for seq := range table {
				if seq > top || slices.Contains(gaps, seq) {
					seqs = append(seqs, seq)
				}
			}
			slices.Sort(seqs)
			more := len(seqs) >= limit
			seqs = seqs[:min(len(seqs), limit)]
			for _, seq := range seqs {
				key := table[seq]
				if latest[key] > seq {
					t.Fatalf("%d of key %d was found after %d", seq, key, latest[key])
				}
				latest[key] = max(latest[key], seq)
				found[seq] = true
				delete(table, seq)
			}
			tr.scanned(seqs, more)
			return len(seqs) > 0
		}
		end := func(w *writer, commit bool) {
			for _, seq := range w.seqs {
				if commit {
					table[seq], committed[seq] = w.key, w.key
				}
			}
			w.gone = true
			delete(keys, w.key)
		}
		t.Repeat(map[string]func(*rapid.T){
			"begin": func(t *rapid.T) {
				key := rapid.IntRange(0, 5).Draw(t, "key")
				if keys[key] {
					t.Skip("its row is locked")
				}
				keys[key] = true
				next++
				w := &writer{name: fmt.Sprintf("w%05d", next), key: key}
				open[w.name] = w // the lock on the table comes before the number
			},
			"number": func(t *rapid.T) {
				if w := pick(); !w.gone {
					last++
					w.seqs = append(w.seqs, last)
				}
			},
			"commit": func(t *rapid.T) {
				if w := pick(); !w.gone {
					end(w, true)
				}
			},
			"roll back": func(t *rapid.T) {
				if w := pick(); !w.gone {
					end(w, false)
				}
			},
			"let go": func(t *rapid.T) {
				if w := pick(); w.gone {
					delete(open, w.name)
				}
			},
			"begin round": func(t *rapid.T) {
				tr.begin(last, 1, names())
			},
			"look":      func(t *rapid.T) { tr.holding(names()) },
			"scan":      func(t *rapid.T) { scan(3) },
			"scan more": func(t *rapid.T) { scan(100) },
			"rewind":    func(t *rapid.T) { tr.rewind(rapid.Int64Range(1, last+1).Draw(t, "seq")) },
			"numbers, 50": func(t *rapid.T) {
				if w := pick(); !w.gone {
					for range 50 {
						last++
						w.seqs = append(w.seqs, last)
					}
				}
			},
		})
		for _, name := range names() {
			if w := open[name]; !w.gone {
				end(w, true)
			}
			delete(open, name)
		}
		for scan(3) {
		}
		if tr.settled && len(table) > 0 {
			t.Fatalf("%d rows are not found without a round: %+v", len(table), tr)
		}
		tr.holding(nil)
		tr.begin(last, 1, nil)
		for scan(3) {
		}
		tr.begin(last, 1, nil)
		for scan(3) {
		}
		if len(found) != len(committed) {
			t.Fatalf("%d of %d rows were found", len(found), len(committed))
		}
		if len(tr.gaps) > 0 {
			t.Fatalf("gaps are left: %v", tr.gaps)
		}
	})
}

// Too many gaps are not looked for one by one.
func TestTrackerManyGaps(t *testing.T) {
	t.Parallel()
	var tr tracker
	tr.begin(0, 1, nil)
	tr.scanned(nil, false)
	tr.scanned([]int64{1, 2, 1_000_000_000}, false)
	top, gaps := tr.from()
	if top != 2 || len(gaps) != 0 {
		t.Errorf("scans begin at %d with %d gaps, want 2 and none", top, len(gaps))
	}
}
