package db_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/loadlinehq/loadline/db"
	"github.com/loadlinehq/loadline/internal/ratio"
	"github.com/loadlinehq/loadline/internal/stack/faultproxy"
	"github.com/loadlinehq/loadline/internal/stack/stacktest"
)

func pool(b *testing.B, dsn string) *pgxpool.Pool {
	b.Helper()
	p, err := pgxpool.New(b.Context(), dsn)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(p.Close)
	return p
}

func compare(b *testing.B, what string, pairs int, baseline, variant func() error, times int) {
	b.Helper()
	run := func(f func() error) func() (time.Duration, error) {
		return func() (time.Duration, error) {
			began := time.Now()
			for range times {
				if err := f(); err != nil {
					return 0, err
				}
			}
			return time.Since(began), nil
		}
	}
	var result ratio.Result
	for b.Loop() {
		var err error
		if result, err = ratio.Measure(pairs, run(baseline), run(variant)); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(result.Median, "ratio")
	fmt.Printf("# %s: %s\n", what, result)
}

// A read that is routed by a session's mark, against pgxpool on the replica.
func BenchmarkRead(b *testing.B) {
	d := stacktest.Postgres(b)
	router := run(b, db.Config{Primary: d.URL, Replicas: d.ReplicaURLs[:1]}, nil)
	raw := pool(b, d.ReplicaURLs[0])
	ctx := client(b)
	if _, err := router.Write(ctx).Exec(ctx, "INSERT INTO t VALUES ($1)", 1); err != nil {
		b.Fatal(err)
	}
	time.Sleep(time.Second)
	var n int
	const sql = "SELECT n FROM t WHERE id = $1"
	compare(b, "routed read / the same on pgxpool", 240,
		func() error { return raw.QueryRow(ctx, sql, 1).Scan(&n) },
		func() error { return router.Read(ctx).QueryRow(ctx, sql, 1).Scan(&n) }, 100)
}

// far is the address of a server that is two milliseconds away, there and back.
func far(b *testing.B, dsn string) string {
	b.Helper()
	dsn, p := stacktest.Proxied(b, dsn)
	if err := p.Add("far", faultproxy.Fault{Kind: faultproxy.Latency, Delay: time.Millisecond}); err != nil {
		b.Fatal(err)
	}
	return dsn
}

// A transaction whose position is noted, against pgx's own, at 2 ms round trip.
func BenchmarkTransaction(b *testing.B) {
	d := stacktest.Postgres(b)
	dsn := far(b, d.URL)
	raw := pool(b, dsn)
	router := run(b, db.Config{Primary: dsn}, nil)
	ctx := client(b)
	var id atomic.Int64
	const sql = "INSERT INTO t VALUES ($1)"
	compare(b, "transaction with token / without, 2 ms round trip", 40,
		func() error {
			return pgx.BeginFunc(ctx, raw, func(tx pgx.Tx) error {
				_, err := tx.Exec(ctx, sql, id.Add(1))
				return err
			})
		},
		func() error {
			return router.InTx(ctx, func(ctx context.Context, tx pgx.Tx) error {
				_, err := tx.Exec(ctx, sql, id.Add(1))
				return err
			})
		}, 20)
}

// A single statement whose position is noted, against pgx's own, at 2 ms round trip.
func BenchmarkWrite(b *testing.B) {
	d := stacktest.Postgres(b)
	dsn := far(b, d.URL)
	raw := pool(b, dsn)
	router := run(b, db.Config{Primary: dsn}, nil)
	ctx := client(b)
	var id atomic.Int64
	const sql = "INSERT INTO t VALUES ($1)"
	compare(b, "single write with token / without, 2 ms round trip", 40,
		func() error { _, err := raw.Exec(ctx, sql, id.Add(1)); return err },
		func() error { _, err := router.Write(ctx).Exec(ctx, sql, id.Add(1)); return err }, 40)
}

// Twenty callers on ten connections, half of their queries slower than the 15 ms that
// each may take: useful queries, against pgx's default of closing the connection.
func BenchmarkTimeouts(b *testing.B) {
	d := stacktest.Postgres(b)
	const limit = 15 * time.Millisecond
	router := run(b, db.Config{Primary: d.URL, PrimaryPool: db.Pool{MaxConns: 10, QueryTimeout: limit}}, nil)
	config, err := pgxpool.ParseConfig(d.URL)
	if err != nil {
		b.Fatal(err)
	}
	config.MaxConns = 10
	raw, err := pgxpool.NewWithConfig(b.Context(), config)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(raw.Close)
	storm := func(query func(ctx context.Context, sleep float64) error) func() (time.Duration, error) {
		return func() (time.Duration, error) {
			var useful atomic.Int64
			end := time.Now().Add(300 * time.Millisecond)
			var wait sync.WaitGroup
			for range 20 {
				wait.Go(func() {
					for i := 0; time.Now().Before(end); i++ {
						sleep := 0.001
						if i%2 == 1 {
							sleep = 0.2
						}
						ctx, cancel := context.WithTimeout(b.Context(), limit)
						if query(ctx, sleep) == nil {
							useful.Add(1)
						}
						cancel()
					}
				})
			}
			wait.Wait()
			// The more, the longer: the ratio is one of useful queries.
			return time.Duration(useful.Load() + 1), nil
		}
	}
	var result ratio.Result
	for b.Loop() {
		result, err = ratio.Measure(20,
			storm(func(ctx context.Context, sleep float64) error {
				_, err := raw.Exec(ctx, "SELECT pg_sleep($1)", sleep)
				return err
			}),
			storm(func(ctx context.Context, sleep float64) error {
				_, err := router.Read(ctx).Exec(ctx, "SELECT pg_sleep($1)", sleep)
				return err
			}))
		if err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(result.Median, "times-useful")
	fmt.Printf("# useful queries in a storm of timeouts / pgx's default: %s\n", result)
}
