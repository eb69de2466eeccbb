package mesh_test

import (
	"context"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/loadlinehq/loadline/causal"
	"github.com/loadlinehq/loadline/events/natsjs"
	"github.com/loadlinehq/loadline/examples/conduit/mesh"
	"github.com/loadlinehq/loadline/examples/conduit/postgres"
	"github.com/loadlinehq/loadline/inbox"
	"github.com/loadlinehq/loadline/internal/stack/stacktest"
	"github.com/loadlinehq/loadline/outbox"
)

// cache is one that counts.
type cache struct{ ticks, applied atomic.Int64 }

func (c *cache) Apply(_ context.Context, fence causal.Mark, records [][]byte) (causal.Mark, error) {
	c.applied.Add(int64(len(records)))
	return fence, nil
}

func (c *cache) Drained(context.Context, causal.Mark) error { return nil }

func (c *cache) Tick(context.Context, causal.Mark) (epoch uint64, err error) {
	c.ticks.Add(1)
	return 1, nil
}

// An application that starts while the broker is away has its cache told of changes all the same.
func TestCacheWithoutBroker(t *testing.T) {
	t.Parallel()
	set := stacktest.New(t, stacktest.Migrated(postgres.Migrations, outbox.Migrations, inbox.Migrations))
	quiet := slog.New(slog.DiscardHandler)
	db, err := postgres.OpenReplicated(t.Context(), postgres.Config{URL: set.URL, MaxConns: 2}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	var c cache
	m, err := mesh.New(mesh.Config{NATS: natsjs.Config{URL: "nats://127.0.0.1:1", Logger: quiet}, DB: db.Router(), RelayDSN: set.URL, Invalidator: &c, Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- m.Run(ctx) }()
	err = m.Waking(db).InTx(t.Context(), func(ctx context.Context) error {
		return m.AddInvalidation(ctx, db.Write(ctx).(outbox.Tx), []byte("k"))
	})
	if err != nil {
		t.Fatal(err)
	}
	for limit := time.Now().Add(30 * time.Second); c.applied.Load() == 0 || c.ticks.Load() == 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("%d were applied, and it was told %d times that there is a relay", c.applied.Load(), c.ticks.Load())
		}
	}
	stop()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(30 * time.Second):
		t.Error("it does not end")
	}
}
