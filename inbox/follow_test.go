package inbox_test

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/loadlinehq/loadline/inbox"
)

// group is one whose floors are what the test says.
type group struct {
	mu      sync.Mutex
	floors  map[string]uint64
	rewound map[string][]uint64
	broken  error
	asked   func()
}

func (g *group) Subscriptions() []string { return []string{"a", "b"} }

func (g *group) Floors(context.Context) (map[string]uint64, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	floors := maps.Clone(g.floors)
	if g.asked != nil {
		g.asked()
		g.asked = nil
	}
	return floors, nil
}

func (g *group) Rewind(_ context.Context, floors map[string]uint64) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.broken != nil {
		err := g.broken
		g.broken = nil
		return err
	}
	for name, floor := range floors {
		g.rewound[name] = append(g.rewound[name], floor)
	}
	return nil
}

func (g *group) set(name string, floor uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.floors[name] = floor
}

func (g *group) times() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return min(len(g.rewound["a"]), len(g.rewound["b"]))
}

// Follow notes how far the group is, and rewinds it to that, twice, when the timeline has
// changed, as a row of an older one shows. TestFailover has a real one.
func TestFollow(t *testing.T) {
	t.Parallel()
	p, _ := migrated(t)
	const settle = 1500 * time.Millisecond
	in, err := inbox.New(inbox.Config{DB: p, Settle: settle, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var following sync.WaitGroup
	defer func() { stop(); following.Wait() }()
	g := &group{floors: map[string]uint64{"a": 7}, rewound: make(map[string][]uint64)}
	following.Go(func() {
		if err := in.Follow(ctx, g); err != nil {
			t.Error(err)
		}
	})
	floor := func(name string) (n int64) {
		t.Helper()
		if err := p.QueryRow(t.Context(), "SELECT coalesce((SELECT floor::bigint FROM loadline.inbox_floor WHERE subscription = $1), -1)", name).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	until := func(what string, is func() bool) {
		t.Helper()
		for limit := time.Now().Add(20 * time.Second); !is(); time.Sleep(20 * time.Millisecond) {
			if time.Now().After(limit) {
				t.Fatalf("%s: never; the floors are %d and %d, rewound was %v", what, floor("a"), floor("b"), g.rewound)
			}
		}
	}
	exec := func(sql string) {
		t.Helper()
		if _, err := p.Exec(context.Background(), sql); err != nil {
			t.Error(err)
		}
	}
	until("it is noted", func() bool { return floor("a") == 7 && floor("b") == -1 })
	g.set("a", 9)
	until("what comes later, too", func() bool { return floor("a") == 9 })

	// Somebody else rewinds the group while the broker is asked: what it says is of before.
	g.mu.Lock()
	g.floors["a"] = 20
	asked := make(chan struct{})
	g.asked = func() {
		exec("UPDATE loadline.inbox_floor SET generation = generation + 1")
		g.floors["a"] = 8
		close(asked)
	}
	g.mu.Unlock()
	<-asked
	until("the next answer is noted", func() bool {
		n := floor("a")
		if n == 20 {
			t.Error("what the broker said before the group was rewound is noted after it")
			return true
		}
		return n == 8
	})

	g.mu.Lock()
	g.broken = errors.New("the broker is away")
	g.floors = map[string]uint64{"a": 30, "b": 5}
	g.mu.Unlock()
	exec("UPDATE loadline.inbox_floor SET floor = 10, timeline = 0, noted_at = now() + interval '1 min'")
	until("it is rewound, although the first try failed", func() bool { return g.times() == 1 })
	rewoundAt := time.Now()
	until("and once more", func() bool {
		if n := floor("a"); n != 10 && g.times() == 1 {
			t.Errorf("the floor went to %d before the second rewind", n)
			return true
		}
		return g.times() >= 2
	})
	if took := time.Since(rewoundAt); took < settle-100*time.Millisecond {
		t.Errorf("the second time came %v after the first, not %v", took, settle)
	}
	until("it is noted again", func() bool { return floor("a") == 30 && floor("b") == 5 })
	g.mu.Lock()
	defer g.mu.Unlock()
	if !slices.Equal(g.rewound["a"], []uint64{10, 10}) || !slices.Equal(g.rewound["b"], []uint64{0, 0}) {
		t.Errorf("rewound to %v", g.rewound)
	}
}
