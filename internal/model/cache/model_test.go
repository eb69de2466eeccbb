package cachemodel_test

import (
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"testing"

	cachemodel "github.com/loadlinehq/loadline/internal/model/cache"
)

// Each rule of the protocol is there for something: where it is switched off, the
// search finds what goes wrong. With -v the way there is told.
func TestRulesAreNeeded(t *testing.T) {
	t.Parallel()
	skipSearch(t)
	tested := map[cachemodel.Rule]bool{}
	for _, run := range cachemodel.Mutations {
		if tested[run.Broken] {
			t.Errorf("%s is there twice", run.Broken)
		}
		tested[run.Broken] = true
		t.Run(string(run.Broken), func(t *testing.T) {
			t.Parallel()
			r := cachemodel.Explore(run)
			if r.Violation == "" {
				t.Fatalf("%v: within these bounds the rule is not needed", r)
			}
			t.Logf("%v\n\t%s", r, strings.Join(r.Path, "\n\t"))
		})
	}
}

// What TestRunsHold does, within bounds that take a moment.
func TestSmallRunsHold(t *testing.T) {
	t.Parallel()
	skipSearch(t)
	type two = [2]uint8
	for _, run := range []cachemodel.Run{
		{Name: "no-faults", Writes: two{1, 0}, Reads: two{2, 0}},
		{Name: "unacked", Writes: two{1, 0}, Reads: two{1, 0}, Faults: cachemodel.Faults{InvFails: 1}, Drain: true},
		{Name: "failover", Writes: two{1, 0}, Reads: two{1, 0}, Faults: cachemodel.Faults{Failover: 1}, Split: true},
		{Name: "tag", Writes: two{1, 0}, Reads: two{0, 2}, Tagged: 0b10, Reached: true},
		{Name: "tag-loss", Writes: two{1, 0}, Reads: two{2, 0}, Faults: cachemodel.Faults{Deaf: 1}, Tagged: 0b10},
		{Name: "tag-handler", Writes: two{1, 0}, Reads: two{0, 1}, Faults: cachemodel.Faults{WriterDies: 1}, Events: true, Tagged: 0b10},
	} {
		t.Run(run.Name, func(t *testing.T) {
			t.Parallel()
			holds(t, run)
		})
	}
}

// The runs of docs/adr/0011, one after the other, since the largest needs gigabytes.
func TestRunsHold(t *testing.T) {
	if os.Getenv("LOADLINE_SLOW") == "" {
		t.Skip("runs when LOADLINE_SLOW is set")
	}
	skipSearch(t)
	for _, run := range cachemodel.Runs {
		t.Run(run.Name, func(t *testing.T) {
			holds(t, run)
			debug.FreeOSMemory()
		})
	}
}

func holds(t *testing.T, run cachemodel.Run) {
	t.Helper()
	r := cachemodel.Explore(run)
	if r.Violation != "" {
		t.Fatalf("%v\n\t%s", r, strings.Join(r.Path, "\n\t"))
	}
	t.Log(r)
}

func skipSearch(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("a search of many states")
	}
	if raceEnabled {
		t.Skip("one goroutine, and five times slower with -race: make test runs it without")
	}
}

func TestExploreStops(t *testing.T) {
	t.Parallel()
	r := cachemodel.Explore(cachemodel.Run{Writes: [2]uint8{1, 0}, Reads: [2]uint8{1, 1}, Max: 100})
	if !r.Truncated || r.States <= 100 || r.States > 1000 {
		t.Errorf("%+v, want a search that stops soon after 100 states", r)
	}
}

// A process that loses its subscription and comes back has not heard of the tag, and
// takes a value that is older than its view.
func ExampleExplore() {
	r := cachemodel.Explore(cachemodel.Run{
		Writes: [2]uint8{1, 0},
		Reads:  [2]uint8{2, 0},
		Faults: cachemodel.Faults{Deaf: 1},
		Tagged: 0b10, // version 1 invalidates the tag
		Broken: cachemodel.YoungTrusts,
	})
	fmt.Println(r.Violation)
	for _, step := range r.Path {
		fmt.Println("-", step)
	}
	// Output:
	// read_your_writes: S0 got v0 after its own (or its cause's) v1
	// - P0's subscription breaks, unnoticed
	// - S0 starts a read in P0 (epoch 0 W=0 D=1)
	// - S0 misses, takes the lease as of 0, fence 1
	// - S0 asks the replica (replay LSN 1, needed 1)
	// - S0 reads row v0
	// - S0 sets v0: accepted
	// - S0 answers v0, stored in P0's L1
	// - S0 commits v1 in P0: record at LSN 2, not yet visible
	// - v1 visible on the primary; S0 reads LSN 2
	// - S0's direct inv of v1: acknowledged; token LSN 2, 0/1
	// - P0 resubscribes, new view: epoch 0, W=1, D=1
	// - S0 starts a read in P0 (epoch 0 W=1 D=1)
	// - S0 gets v0 from Redis
	// - S0 answers v0, stored in P0's L1
}
