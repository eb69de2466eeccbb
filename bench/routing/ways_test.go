package routing_test

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"
	"gorm.io/plugin/dbresolver"

	"github.com/loadlinehq/loadline/causal"
	"github.com/loadlinehq/loadline/db"
	"github.com/loadlinehq/loadline/internal/stack"
	"github.com/loadlinehq/loadline/internal/stack/stacktest"
)

// conns is how many connections to each server every way has. That is many more than
// are busy: what is measured is where reads go.
const conns = 20

const (
	incrementSQL = "UPDATE counter SET n = n + 1 WHERE id = $1"
	readSQL      = "SELECT n, pg_is_in_recovery() FROM counter WHERE id = $1"
)

// way is how a user's requests find their server.
type way struct {
	name string
	unit string // of its metrics
	// settled is how long ago a write can have been that a read still depends on.
	settled time.Duration
	// increment adds one to the user's counter; read returns it, and whether a replica
	// has answered. Each is a request of its own: of the ones before it knows what the
	// user has kept.
	increment func(context.Context, *user) error
	read      func(context.Context, *user) (n int, replica bool, err error)
}

// user is a client with a counter that nobody else writes.
type user struct {
	id       int
	n        int          // as it was last acknowledged
	token    causal.Token // what he keeps for the router
	wroteAt  time.Time    // what he keeps for sticky
	measured tally
}

// servers are a primary and two replicas that lag.
func servers(t testing.TB, lag time.Duration, users int) *stack.Stack {
	t.Helper()
	s := stacktest.Own(t, stack.Config{Replicas: 2})

	primary := open(t, s.DatabaseURL())
	const setup = `
CREATE TABLE counter (id int PRIMARY KEY, n int NOT NULL DEFAULT 0);
INSERT INTO counter SELECT generate_series(1, %d);`
	if _, err := primary.Exec(t.Context(), fmt.Sprintf(setup, users)); err != nil {
		t.Fatal(err)
	}
	for _, url := range s.ReplicaURLs() {
		replica := open(t, url)
		deadline := time.Now().Add(10 * time.Second)
		for n := 0; n != users; time.Sleep(10 * time.Millisecond) {
			err := replica.QueryRow(t.Context(), "SELECT count(*) FROM counter").Scan(&n)
			if time.Now().After(deadline) {
				t.Fatalf("a replica has %d counters of %d after 10 s: %v", n, users, err)
			}
		}
	}
	for _, name := range []string{"replica-1", "replica-2"} {
		if _, err := s.AddFault(t.Context(), stack.Fault{Service: name, Kind: stack.FaultLag, Delay: lag}); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func open(t testing.TB, url string) *pgxpool.Pool {
	t.Helper()
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	config.MaxConns = conns
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

// tokens sends a user's read to a replica that has replayed what his token names.
func tokens(t testing.TB, s *stack.Stack, users int) *way {
	t.Helper()
	// Peers' queues have no bound.
	// The others' users wait for as long as their requests may take.
	pool := db.Pool{MaxConns: conns, Queue: users, QueueWait: limit}
	router, err := db.Open(t.Context(), db.Config{
		Primary: s.DatabaseURL(), Replicas: s.ReplicaURLs(), PrimaryPool: pool, ReplicaPool: pool,
		Logger: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wait sync.WaitGroup
	wait.Go(func() {
		if err := router.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		cancel()
		wait.Wait()
		router.Close()
	})
	return &way{
		name: "db.Router with tokens", unit: "router",
		increment: func(ctx context.Context, u *user) error {
			session := causal.NewSession(u.token)
			ctx = causal.WithSession(ctx, session)
			_, err := router.Write(ctx).Exec(ctx, incrementSQL, u.id)
			u.token = session.Token()
			return err
		},
		read: func(ctx context.Context, u *user) (n int, replica bool, err error) {
			session := causal.NewSession(u.token)
			ctx = causal.WithSession(ctx, session)
			err = router.Read(ctx).QueryRow(ctx, readSQL, u.id).Scan(&n, &replica)
			u.token = session.Token()
			return n, replica, err
		},
	}
}

// resolver sends all reads to a random replica.
func resolver(t testing.TB, s *stack.Stack) *way {
	t.Helper()
	var replicas []gorm.Dialector
	for _, url := range s.ReplicaURLs() {
		replicas = append(replicas, postgres.Open(url))
	}
	orm, err := gorm.Open(postgres.Open(s.DatabaseURL()), &gorm.Config{Logger: logger.Discard})
	if err != nil {
		t.Fatal(err)
	}
	plugin := dbresolver.Register(dbresolver.Config{Replicas: replicas, Policy: dbresolver.RandomPolicy{}})
	t.Cleanup(func() {
		err := plugin.Call(func(pool gorm.ConnPool) error { return pool.(*sql.DB).Close() })
		if err != nil {
			t.Error(err)
		}
	})
	if err := orm.Use(plugin.SetMaxOpenConns(conns).SetMaxIdleConns(conns)); err != nil {
		t.Fatal(err)
	}
	return &way{
		name: "GORM dbresolver", unit: "dbresolver",
		increment: func(ctx context.Context, u *user) error {
			return orm.WithContext(ctx).Table("counter").Where("id = ?", u.id).Update("n", gorm.Expr("n + 1")).Error
		},
		read: func(ctx context.Context, u *user) (int, bool, error) {
			var row struct {
				N       int
				Replica bool
			}
			err := orm.WithContext(ctx).Table("counter").Select("n, pg_is_in_recovery() AS replica").Where("id = ?", u.id).Take(&row).Error
			return row.N, row.Replica, err
		},
	}
}

// sticky sends a user's reads to the primary for some time after his last write, and
// then to a random replica.
func sticky(primary *pgxpool.Pool, replicas []*pgxpool.Pool, name, unit string, d time.Duration) *way {
	return &way{
		name: name, unit: unit, settled: d,
		increment: func(ctx context.Context, u *user) error {
			_, err := primary.Exec(ctx, incrementSQL, u.id)
			u.wroteAt = time.Now()
			return err
		},
		read: func(ctx context.Context, u *user) (n int, replica bool, err error) {
			pool := primary
			if time.Since(u.wroteAt) > d {
				pool = replicas[rand.IntN(len(replicas))]
			}
			err = pool.QueryRow(ctx, readSQL, u.id).Scan(&n, &replica)
			return n, replica, err
		},
	}
}
