package inbox_test

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/loadlinehq/loadline/events"
	"github.com/loadlinehq/loadline/inbox"
)

// memory is a Recent.
type memory struct {
	mu     sync.Mutex
	values map[string]string
	broken error
	gets   int
}

func (m *memory) Get(_ context.Context, keys []string) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.gets++
	values := make([]string, len(keys))
	for i, key := range keys {
		values[i] = m.values[key]
	}
	return values, m.broken
}

func (m *memory) Put(_ context.Context, keys []string, value string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, key := range keys {
		m.values[key] = value
	}
	return m.broken
}

func (m *memory) asked() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.gets
}

// counting counts transactions.
type counting struct {
	inbox.DB
	n atomic.Int64
}

func (c *counting) InTx(ctx context.Context, f func(context.Context, pgx.Tx) error) error {
	c.n.Add(1)
	return c.DB.InTx(ctx, f)
}

// What was handled lately needs no transaction: while Follow knows the timeline, and if it was
// handled on that one. Whatever the memory does, the effect is there once.
func TestRecent(t *testing.T) {
	t.Parallel()
	p, _ := migrated(t)
	db := &counting{DB: p}
	m := &memory{values: make(map[string]string)}
	in, err := inbox.New(inbox.Config{DB: db, Recent: m, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	one := inbox.Handle(in, func(ctx context.Context, tx pgx.Tx, e events.Event[int]) error { return insert(ctx, tx, e.Payload) })
	many := inbox.HandleBatch(in, func(ctx context.Context, tx pgx.Tx, all []events.Event[int]) error {
		for _, e := range all {
			if err := insert(ctx, tx, e.Payload); err != nil {
				return err
			}
		}
		return nil
	})
	// transactions handles events, and returns how many transactions that took.
	transactions := func(all ...events.Event[int]) int64 {
		t.Helper()
		before := db.n.Load()
		for _, e := range all {
			if err := one(t.Context(), e); err != nil {
				t.Error(err)
			}
		}
		return db.n.Load() - before
	}
	e := event(t, 1)
	if n := transactions(e, e); n != 2 || m.asked() != 0 {
		t.Errorf("nobody knows the timeline, and there were %d transactions, and %d questions", n, m.asked())
	}

	ctx, stop := context.WithCancel(context.Background())
	var following sync.WaitGroup
	defer func() { stop(); following.Wait() }()
	following.Go(func() { _ = in.Follow(ctx, &group{floors: map[string]uint64{}}) })
	for limit := time.Now().Add(10 * time.Second); m.asked() == 0; time.Sleep(10 * time.Millisecond) {
		if transactions(e); time.Now().After(limit) {
			t.Fatal("the memory is never asked")
		}
	}
	// The transactions of Follow count as well: the least of some tries is the handler's.
	least := func(all ...events.Event[int]) (n int64) {
		n = 100
		for range 5 {
			n = min(n, transactions(all...))
		}
		return n
	}
	if n := least(e, e); n != 0 {
		t.Errorf("two repeats took %d transactions", n)
	}

	m.mu.Lock()
	for key := range m.values {
		m.values[key] = "0" // handled before a failover
	}
	m.mu.Unlock()
	if n := transactions(e); n == 0 {
		t.Error("what was handled on another timeline is believed")
	}

	batch := []events.Event[int]{e, event(t, 2), event(t, 3), e}
	for range 3 {
		if err := many(t.Context(), batch); err != nil {
			t.Error(err)
		}
	}
	if n := least(batch...); n != 0 {
		t.Errorf("repeats of a batch took %d transactions", n)
	}

	// One that fails is left alone for a moment, and changes nothing.
	m.mu.Lock()
	m.broken = errors.New("Redis is away")
	m.mu.Unlock()
	before := m.asked()
	for range 5 {
		transactions(e, event(t, 4))
	}
	if asked := m.asked() - before; asked == 0 || asked > 2 {
		t.Errorf("a memory that fails was asked %d times", asked)
	}
	counts := make(map[int]int)
	for _, n := range effects(t, p) {
		counts[n]++
	}
	if counts[1] != 1 || counts[2] != 1 || counts[3] != 1 || counts[4] != 5 {
		t.Errorf("the effects are there so many times: %v", counts)
	}
	if _, err := inbox.New(inbox.Config{DB: p, Recent: m, Settle: time.Second}); err == nil {
		t.Error("members that have not noticed a failover yet would lose events")
	}
}
