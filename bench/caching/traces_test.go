package caching_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"container/list"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"text/tabwriter"

	"github.com/maypok86/otter/v2"
	"github.com/ulikunitz/xz"

	"github.com/loadlinehq/loadline/cache"
)

// trace is a recorded sequence of keys that were read; traces/README.md in LOADLINE_DATA says whose.
type trace struct {
	file string
	read func(r *bufio.Reader) ([]uint64, error)
	slow bool // too long for each run of the tests
}

var traces = []trace{
	{"web07.trace.xz", words(4), false},
	{"orm-busy.trace.xz", words(4), true},
	{"scarab-recs.trace.xz", words(8), true},
	{"arc-oltp.lis.gz", ranges, true},
	{"lirs-sprite.trace.gz", lines, true},
	{"lirs-multi3.trace.gz", lines, false},
	{"lirs-2_pools.trace.gz", lines, true},
	{"lirs-loop.trace.gz", lines, true},
}

// words reads big-endian numbers of so many bytes.
func words(size int) func(*bufio.Reader) ([]uint64, error) {
	return func(r *bufio.Reader) (all []uint64, err error) {
		b := make([]byte, 8)
		for {
			if _, err := io.ReadFull(r, b[8-size:]); err == io.EOF {
				return all, nil
			} else if err != nil {
				return nil, err
			}
			all = append(all, binary.BigEndian.Uint64(b))
		}
	}
}

// ranges reads lines "first count 0 request".
func ranges(r *bufio.Reader) (all []uint64, err error) {
	return all, each(r, func(line string) error {
		var first, count uint64
		if _, err := fmt.Sscan(line, &first, &count); err != nil {
			return err
		}
		for i := range count {
			all = append(all, first+i)
		}
		return nil
	})
}

// lines reads a number from each line.
func lines(r *bufio.Reader) (all []uint64, err error) {
	return all, each(r, func(line string) error {
		var key uint64
		if _, err := fmt.Sscan(line, &key); err != nil {
			return err
		}
		all = append(all, key)
		return nil
	})
}

func each(r *bufio.Reader, do func(line string) error) error {
	s := bufio.NewScanner(r)
	for s.Scan() {
		if line := strings.TrimSpace(s.Text()); line != "" && line != "*" {
			if err := do(line); err != nil {
				return fmt.Errorf("%q: %w", line, err)
			}
		}
	}
	return s.Err()
}

func (tr trace) open(folder string) ([]uint64, error) {
	packed, err := os.ReadFile(filepath.Join(folder, tr.file))
	if err != nil {
		return nil, err
	}
	var r io.Reader
	if strings.HasSuffix(tr.file, ".xz") {
		r, err = xz.NewReader(bytes.NewReader(packed))
	} else {
		r, err = gzip.NewReader(bytes.NewReader(packed))
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", tr.file, err)
	}
	all, err := tr.read(bufio.NewReader(r))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", tr.file, err)
	}
	return all, nil
}

// What the in-process tier keeps, beside otter alone, whose choice it is, and a plain LRU, with room for as many
// entries. Sequences that were filtered by caches before, or are of one file after another, are LRU's.
func TestHitRatios(t *testing.T) {
	t.Parallel()
	data := os.Getenv("LOADLINE_DATA")
	if data == "" {
		t.Skip("LOADLINE_DATA is not set: the traces are needed")
	}
	if raceEnabled {
		t.Skip("with the race detector otter's own goroutine falls behind, and its choice is another; make test runs it without")
	}
	var table strings.Builder
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "trace\treads\tkeys\troom for\tcache\totter\tLRU\tall kept\t")
	for _, tr := range traces {
		if tr.slow && os.Getenv("LOADLINE_SLOW") == "" {
			continue
		}
		reads, err := tr.open(filepath.Join(data, "traces"))
		if err != nil {
			t.Fatal(err)
		}
		unique := make(map[uint64]bool)
		for _, key := range reads {
			unique[key] = true
		}
		for _, percent := range []int{1, 10, 25} {
			room := len(unique) * percent / 100
			ours, otters, lru := cacheHits(t, reads, room), otterHits(reads, room), lruHits(reads, room)
			share := func(hits int) float64 { return 100 * float64(hits) / float64(len(reads)) }
			fmt.Fprintf(w, "%s\t%d\t%d\t%d %%\t%.1f %%\t%.1f %%\t%.1f %%\t%.1f %%\t\n", tr.file, len(reads), len(unique), percent, share(ours), share(otters), share(lru), share(len(reads)-len(unique)))
			if room >= minRoom && share(ours) < share(otters)-margin {
				t.Errorf("%s, room for %d %%: %.1f %% hits, and otter alone has %.1f %%", tr.file, percent, share(ours), share(otters))
			}
		}
	}
	w.Flush()
	t.Logf("\n%s", table.String())
	if os.Getenv("LOADLINE_SLOW") == "" {
		t.Log("LOADLINE_SLOW is not set: the long traces were left out")
	}
}

// minRoom is from how many entries on the two are held to be the same: with room for seventy, what otter has not done yet in
// the background is as much as the room.
const minRoom = 500

// margin is in points, for what otter does in the background, sooner or later: from one run to another otter alone
// differs by as much on the shortest traces.
const margin = 5

// cacheHits reads all by a cache of one process, with room for so many entries of the same size.
func cacheHits(t *testing.T, reads []uint64, room int) (hits int) {
	t.Helper()
	store, err := cache.OpenStore(t.Context(), cache.StoreConfig{Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	const entry = 200 + 2 // what a cache counts for an entry, and its value {}
	c, err := cache.New(store, cache.Config[uint64, struct{}]{Name: "trace", Class: cache.Cold(), MaxBytes: int64(room * entry)})
	if err != nil {
		t.Fatal(err)
	}
	loads := 0
	load := func(context.Context) (struct{}, error) { loads++; return struct{}{}, nil }
	for _, key := range reads {
		if _, err := c.Get(t.Context(), key, load); err != nil {
			t.Fatal(err)
		}
	}
	return len(reads) - loads
}

func otterHits(reads []uint64, room int) (hits int) {
	c := otter.Must(&otter.Options[uint64, struct{}]{MaximumSize: room})
	for _, key := range reads {
		if _, ok := c.GetIfPresent(key); ok {
			hits++
		} else {
			c.Set(key, struct{}{})
		}
	}
	return hits
}

func lruHits(reads []uint64, room int) (hits int) {
	order, at := list.New(), make(map[uint64]*list.Element)
	for _, key := range reads {
		if e, ok := at[key]; ok {
			order.MoveToFront(e)
			hits++
			continue
		}
		at[key] = order.PushFront(key)
		if order.Len() > room {
			delete(at, order.Remove(order.Back()).(uint64))
		}
	}
	return hits
}
