package caching_test

import (
	"context"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/rueidis"
	"go.opentelemetry.io/otel/metric/noop"

	"github.com/loadlinehq/loadline/causal"
	"github.com/loadlinehq/loadline/examples/conduit"
	"github.com/loadlinehq/loadline/examples/conduit/caching"
	"github.com/loadlinehq/loadline/examples/conduit/postgres"
	"github.com/loadlinehq/loadline/examples/conduit/postgres/sqlc"
	"github.com/loadlinehq/loadline/internal/stack/stacktest"
	"github.com/loadlinehq/loadline/outbox"
)

var (
	slow  = os.Getenv("LOADLINE_SLOW") != ""
	quiet = slog.New(slog.DiscardHandler)
)

// fleet are instances of the application, and the one relay of their outbox.
type fleet struct {
	set       *stacktest.Set
	database  *postgres.Store // as it is, from the primary
	instances []*instance
	start     func() *instance // another one
}

// instance is what one process of the application has.
type instance struct {
	*caching.Store
	caches *caching.Caches
	reads  *atomic.Int64 // statements that only read
}

func newFleet(t testing.TB, size int) *fleet {
	t.Helper()
	set := stacktest.New(t, stacktest.Migrated(postgres.Migrations, outbox.Migrations))
	redis, err := rueidis.ParseURL(set.RedisURL)
	if err != nil {
		t.Fatal(err)
	}
	f := &fleet{set: set}
	primary, err := postgres.Open(t.Context(), postgres.Config{URL: set.URL, MaxConns: 4})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(primary.Close)
	f.database = postgres.NewStore(primary, postgres.Immediately{})
	box, err := outbox.New(outbox.Config{})
	if err != nil {
		t.Fatal(err)
	}
	f.start = func() *instance {
		caches, err := caching.New(t.Context(), caching.Config{
			Redis: redis, Prefix: set.KeyPrefix, Timeout: time.Second, Log: quiet, MeterProvider: noop.NewMeterProvider(),
		})
		if err != nil {
			t.Fatal(err)
		}
		db, err := postgres.OpenReplicated(t.Context(), postgres.Config{URL: set.URL, Replicas: set.ReplicaURLs, MaxConns: 8, ReplicaMaxConns: 8}, quiet)
		if err != nil {
			t.Fatal(err)
		}
		i := &instance{caches: caches, reads: new(atomic.Int64)}
		i.Store = caching.NewStore(postgres.NewStore(counting{db, i.reads}, postgres.Immediately{}), caches, box)
		f.instances = append(f.instances, i)
		t.Cleanup(db.Close)
		t.Cleanup(caches.Close)
		running(t, db.Run)
		running(t, caches.Run)
		return i
	}
	for range size {
		f.start()
	}
	relay, err := outbox.NewRelay(outbox.RelayConfig{DSN: set.URL, Invalidator: f.instances[0].caches, Logger: quiet, Poll: 100 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	running(t, relay.Run)
	for _, i := range f.instances {
		waitFor(t, "an instance is active", i.caches.Active)
	}
	return f
}

// settle waits until the relay has applied all invalidations: one that comes late hides that another is missing.
func (f *fleet) settle(t testing.TB) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), f.set.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	waitFor(t, "all invalidations are applied", func() bool {
		left := -1
		if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM loadline.outbox_invalidation").Scan(&left); err != nil {
			t.Fatal(err)
		}
		return left == 0
	})
}

func running(t testing.TB, run func(context.Context) error) {
	ctx, stop := context.WithCancel(context.Background())
	var wait sync.WaitGroup
	wait.Go(func() {
		if err := run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { stop(); wait.Wait() })
}

func waitFor(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for limit := time.Now().Add(20 * time.Second); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}

// counting counts the statements of a database's readers.
type counting struct {
	postgres.DB
	reads *atomic.Int64
}

func (c counting) Read(ctx context.Context) sqlc.DBTX { return counted{c.DB.Read(ctx), c.reads} }

type counted struct {
	sqlc.DBTX
	n *atomic.Int64
}

func (c counted) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	c.n.Add(1)
	return c.DBTX.Query(ctx, sql, args...)
}

func (c counted) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	c.n.Add(1)
	return c.DBTX.QueryRow(ctx, sql, args...)
}

// anyone is a context of a request by nobody.
func anyone(ctx context.Context) context.Context {
	return causal.WithSession(ctx, causal.NewSession(causal.Token{}))
}

// somebody has a session that goes on from request to request, as that of a user does.
func somebody(ctx context.Context) (context.Context, *causal.Session) {
	s := causal.NewSession(causal.Token{})
	return causal.WithSession(ctx, s), s
}

type registrar interface {
	CreateUser(ctx context.Context, r conduit.Registration, hash string) (conduit.User, error)
}

func register(t testing.TB, s registrar, name string) conduit.User {
	t.Helper()
	u, err := s.CreateUser(anyone(t.Context()), conduit.Registration{Username: name, Email: name + "@example.com"}, "hash")
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func draft(title string, tags ...string) conduit.Draft {
	return conduit.Draft{Title: title, Description: "d", Body: "b", TagList: tags}
}
