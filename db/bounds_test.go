package db_test

import (
	"bytes"
	"context"
	"database/sql/driver"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/loadlinehq/loadline/causal"
	"github.com/loadlinehq/loadline/db"
	"github.com/loadlinehq/loadline/internal/stack/faultproxy"
	"github.com/loadlinehq/loadline/internal/stack/stacktest"
)

func newerSession(t testing.TB, router *db.Router) causal.Mark {
	ctx := client(t)
	if _, err := router.Write(ctx).Exec(ctx, "INSERT INTO t VALUES (1000)"); err != nil {
		t.Fatal(err)
	}
	for m := range causal.FromContext(ctx).Token().Marks() {
		m.Timeline++
		return m
	}
	return causal.Mark{}
}

// A session that has seen a newer timeline is not answered by the primary of an older one,
// whatever the policy.
func TestAhead(t *testing.T) {
	t.Parallel()
	router := open(t, nil)
	m := newerSession(t, router)
	try := func(name string, s *causal.Session, o ...db.Option) {
		ctx := causal.WithSession(t.Context(), s)
		var replica bool
		err := router.Read(ctx, o...).QueryRow(ctx, onReplica).Scan(&replica)
		t.Logf("%s: err=%v", name, err)
		if !errors.Is(err, db.ErrNoEligibleNode) {
			t.Errorf("%s: a session of a newer timeline was answered by timeline %d (replica %t)", name, m.Timeline-1, replica)
		}
	}
	try("default", causal.NewSession(causal.NewToken(m)))
	try("strong", causal.NewSession(causal.NewToken(m)), db.Strong())
	try("incomplete", causal.NewSession(causal.Unknown().Merge(causal.NewToken(m))))
	s := causal.NewSession(causal.NewToken(m))
	s.Doubt()
	try("doubt", s)
}

// Nor while nobody watches.
func TestAheadNotRunning(t *testing.T) {
	t.Parallel()
	d := stacktest.Postgres(t)
	router := run(t, db.Config{Primary: d.URL, Replicas: d.ReplicaURLs}, nil)
	m := newerSession(t, router)
	other, err := db.Open(t.Context(), db.Config{Primary: d.URL, Replicas: d.ReplicaURLs})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	ctx := causal.WithSession(t.Context(), causal.NewSession(causal.NewToken(m)))
	var replica bool
	if err := other.Read(ctx).QueryRow(ctx, onReplica).Scan(&replica); !errors.Is(err, db.ErrNoEligibleNode) {
		t.Errorf("answered: %v", err)
	}
}

// A read ends in bounded time when no replica comes to what it needs, and the primary fails
// meanwhile.
func TestDeadTimer(t *testing.T) {
	t.Parallel()
	d := stacktest.Postgres(t)
	dsn, proxy := stacktest.Proxied(t, d.URL)
	setup := run(t, db.Config{Primary: d.URL, Replicas: d.ReplicaURLs}, nil)
	m := newerSession(t, setup)
	m.Timeline--
	m.LSN += 1 << 40 // a replica that is behind, however long one waits

	router, err := db.Open(t.Context(), db.Config{Primary: dsn, Replicas: d.ReplicaURLs, Logger: slog.New(slog.NewTextHandler(testWriter{t}, nil))})
	if err != nil {
		t.Fatal(err)
	}
	rctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = router.Run(rctx) })
	defer func() { stop(); wg.Wait(); router.Close() }()
	time.Sleep(600 * time.Millisecond)
	if err := proxy.Add("silent", faultproxy.Fault{Kind: faultproxy.Stall}); err != nil {
		t.Fatal(err)
	}
	defer proxy.Remove("silent")
	ctx, cancel := context.WithTimeout(causal.WithSession(context.Background(), causal.NewSession(causal.NewToken(m))), 20*time.Second)
	defer cancel()
	began := time.Now()
	var one int
	err = router.Read(ctx).QueryRow(ctx, "SELECT 1").Scan(&one)
	took := time.Since(began)
	t.Logf("%v after %v", err, took)
	if took > 10*time.Second {
		t.Errorf("waited %v (until its own deadline): %v", took, err)
	}
}

// Writers that wait for a primary do not storm it.
func TestDialStorm(t *testing.T) {
	t.Parallel()
	d := stacktest.Postgres(t)
	dsn, proxy := tampered(t, d.URL)
	router := run(t, db.Config{Primary: dsn}, nil)
	proxy.refuse.Store(true)
	proxy.cutAll()
	time.Sleep(300 * time.Millisecond)
	before := proxy.accepted.Load()
	began := time.Now()
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() { _, _ = router.Write(t.Context()).Exec(t.Context(), "INSERT INTO t VALUES ($1)", i) })
	}
	wg.Wait()
	took := time.Since(began)
	n := proxy.accepted.Load() - before
	t.Logf("%d connections in %v while 20 writers wait for the primary", n, took)
	if n > 200 {
		t.Errorf("%d attempts per second by 20 writers of one process", int(float64(n)/took.Seconds()))
	}
}

// A replica that accepts and then says nothing does not keep the router from opening.
func TestOpenWithHalfDeadReplica(t *testing.T) {
	t.Parallel()
	d := stacktest.Postgres(t)
	dsn, proxy := tampered(t, d.ReplicaURLs[0])
	proxy.toServer = func(b []byte) bool { return !bytes.Contains(b, []byte("pg_control_system")) }
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	router, err := db.Open(ctx, db.Config{Primary: d.URL, Replicas: []string{dsn}})
	if err != nil {
		t.Errorf("a replica that does not answer keeps the router from opening: %v (unsupported %t)", err, errors.Is(err, db.ErrUnsupported))
		return
	}
	router.Close()
}

// Close ends Run.
func TestCloseStopsRun(t *testing.T) {
	t.Parallel()
	d := stacktest.Postgres(t)
	dsn, proxy := tampered(t, d.URL)
	router, err := db.Open(t.Context(), db.Config{Primary: dsn})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { _ = router.Run(ctx); close(done) }()
	time.Sleep(300 * time.Millisecond)
	router.Close()
	time.Sleep(300 * time.Millisecond)
	before := proxy.accepted.Load()
	proxy.cutAll()
	time.Sleep(1 * time.Second)
	if n := proxy.accepted.Load() - before; n > 0 {
		t.Errorf("a closed router has made %d connections", n)
	}
	cancel()
	<-done
}

type panics struct{}

func (panics) Value() (driver.Value, error) { panic("Value") }

// A panic in the caller's code gives the connection back.
func TestPanic(t *testing.T) {
	t.Parallel()
	d := stacktest.Postgres(t)
	for name, do := range map[string]func(ctx context.Context, r *db.Router) error{
		"read": func(ctx context.Context, r *db.Router) error {
			_, err := r.Read(ctx).Exec(ctx, "SELECT $1::text", panics{})
			return err
		},
		"write": func(ctx context.Context, r *db.Router) error {
			_, err := r.Write(ctx).Exec(ctx, "SELECT $1::text", panics{})
			return err
		},
		"batch": func(ctx context.Context, r *db.Router) error {
			b := new(pgx.Batch)
			b.Queue("SELECT 1").QueryRow(func(pgx.Row) error { panic("Fn") })
			br := r.Write(ctx).SendBatch(ctx, b)
			defer br.Close()
			return br.Close()
		},
	} {
		router := run(t, db.Config{Primary: d.URL}, func(c *db.Config) {
			c.PrimaryPool.MaxConns, c.ReplicaPool.MaxConns = 1, 1
			c.PrimaryPool.QueueWait = 200 * time.Millisecond
		})
		func() {
			defer func() { _ = recover() }()
			_ = do(t.Context(), router)
		}()
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		if _, err := router.Read(ctx).Exec(ctx, "SELECT 1"); err != nil {
			t.Errorf("%s: the connection is lost for ever: %v", name, err)
		}
		cancel()
	}
}

// Contexts that end anywhere, and connections that break, leak no place.
func TestChurn(t *testing.T) {
	t.Parallel()
	d := stacktest.Postgres(t)
	dsn, proxy := tampered(t, d.URL)
	rdsn, rproxy := tampered(t, d.ReplicaURLs[0])
	router := run(t, db.Config{Primary: dsn, Replicas: []string{rdsn}}, func(c *db.Config) {
		c.PrimaryPool.MaxConns, c.ReplicaPool.MaxConns = 3, 3
		c.PrimaryPool.QueueWait, c.ReplicaPool.QueueWait = 20*time.Millisecond, 20*time.Millisecond
	})
	var wg sync.WaitGroup
	end := time.Now().Add(3 * time.Second)
	var ops, failed atomic.Int64
	for g := range 12 {
		wg.Go(func() {
			for i := 0; time.Now().Before(end); i++ {
				s := client(t)
				ctx, cancel := context.WithTimeout(s, time.Duration((i*7919+g*104729)%8000)*time.Microsecond)
				var err error
				switch (i + g) % 7 {
				case 0:
					_, err = router.Write(ctx).Exec(ctx, "INSERT INTO t VALUES ($1) ON CONFLICT (id) DO UPDATE SET n = t.n+1", i%50)
				case 1:
					_, err = router.Write(ctx).Exec(ctx, "UPDATE t SET n = n + 1 WHERE id = 3")
				case 2:
					err = router.InTx(ctx, func(ctx context.Context, tx pgx.Tx) error {
						_, err := tx.Exec(ctx, "SELECT pg_sleep(0.002)")
						return err
					})
				case 3:
					var rows pgx.Rows
					rows, err = router.Read(ctx).Query(ctx, "SELECT pg_sleep(0.001), generate_series(1,100)")
					if err == nil {
						rows.Next()
						rows.Close()
					}
				case 4:
					err = router.ReadTx(ctx, func(ctx context.Context, tx pgx.Tx) error {
						rows, err := tx.Query(ctx, "SELECT generate_series(1,1000)")
						if err == nil {
							rows.Next() // and not closed
						}
						return err
					})
				case 5:
					b := new(pgx.Batch)
					b.Queue("SELECT 1")
					b.Queue("SELECT 1/0")
					err = router.Write(ctx).SendBatch(ctx, b).Close()
				case 6:
					err = router.Read(ctx, db.Strong()).QueryRow(ctx, "SELECT 1").Scan(new(string))
				}
				cancel()
				ops.Add(1)
				if err != nil {
					failed.Add(1)
				}
			}
		})
	}
	wg.Go(func() {
		for time.Now().Before(end) {
			time.Sleep(700 * time.Millisecond)
			proxy.cutAll()
			rproxy.cutAll()
		}
	})
	wg.Wait()
	t.Logf("%d calls, %d failed", ops.Load(), failed.Load())
	within(t, 10*time.Second, func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		for _, o := range [][]db.Option{{db.Strong()}, {db.Any()}} {
			var held []pgx.Rows
			var err error
			for range 3 {
				var rows pgx.Rows
				if rows, err = router.Read(ctx, o...).Query(ctx, "SELECT 1"); err != nil {
					break
				}
				if !rows.Next() {
					err = rows.Err()
				}
				held = append(held, rows)
			}
			for _, rows := range held {
				rows.Close()
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}
