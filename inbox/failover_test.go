package inbox_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/url"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/loadlinehq/loadline/db"
	"github.com/loadlinehq/loadline/events"
	"github.com/loadlinehq/loadline/events/natsjs"
	"github.com/loadlinehq/loadline/inbox"
	"github.com/loadlinehq/loadline/internal/migrate"
	"github.com/loadlinehq/loadline/internal/stack"
	"github.com/loadlinehq/loadline/internal/stack/stacktest"
	"github.com/loadlinehq/loadline/outbox"
)

// A primary that does not wait for its standby is lost with transactions and effects of
// which the broker knows. On the new one, what has survived has its effect once, and what
// has not is among the dead letters as such. A second group, which does not follow, lacks
// effects: the test would see it.
func TestFailover(t *testing.T) {
	t.Parallel()
	s := stacktest.Own(t, stack.Config{Replicas: 1, DisableSync: true})
	url1, url2 := serverURLs(t, s)
	if _, err := migrate.Up(t.Context(), url1, migrate.Set{Name: "outbox", Files: outbox.Migrations}, migrate.Set{Name: "inbox", Files: inbox.Migrations}); err != nil {
		t.Fatal(err)
	}
	router, err := db.Open(t.Context(), db.Config{Primary: url1, Replicas: []string{url2}, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	defer router.Close()
	const accounts = 8
	err = router.InTx(t.Context(), func(ctx context.Context, tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `CREATE TABLE account (name text PRIMARY KEY, moves bigint NOT NULL DEFAULT 0);
			CREATE TABLE effect (at bigint GENERATED ALWAYS AS IDENTITY, consumer text, id text, account text, move bigint);
			INSERT INTO account SELECT 'account-' || n FROM generate_series(1, 8) n`)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	either, err := url.Parse(url1)
	if err != nil {
		t.Fatal(err)
	}
	second, err := url.Parse(url2)
	if err != nil {
		t.Fatal(err)
	}
	either.Host += "," + second.Host
	either.RawQuery = "target_session_attrs=read-write"
	natsURL := natsURL(t, s)

	working, stop := context.WithCancel(context.Background())
	var workers sync.WaitGroup
	defer func() { stop(); workers.Wait() }()
	workers.Go(func() { _ = router.Run(working) })
	handling := &gate{}
	workers.Go(func() { relay(working, either.String(), natsURL) })
	for group, follow := range map[string]bool{"follower": true, "stranger": false} {
		workers.Go(func() { groupMember(working, router, natsURL, group, follow, handling) })
	}
	written := make(map[string]bool) // ids that were acknowledged
	write := func(n int) {
		t.Helper()
		for range n {
			id, err := moveOne(t.Context(), router, accounts)
			if err != nil {
				t.Fatal(err)
			}
			written[id] = true
		}
	}
	write(100)
	eventually(t, "both groups handle", func(ctx context.Context) error { return counts(ctx, router, "effect", 200) })
	time.Sleep(2 * time.Second) // Follow notes it

	handling.close()
	write(40)
	eventually(t, "the standby has the transactions", func(ctx context.Context) error {
		var behind bool
		err := router.InTx(ctx, func(ctx context.Context, tx pgx.Tx) error {
			return tx.QueryRow(ctx, "SELECT count(*) = 0 OR bool_or(replay_lsn < pg_current_wal_lsn()) FROM pg_stat_replication").Scan(&behind)
		})
		if err == nil && behind {
			err = errors.New("it lags")
		}
		return err
	})
	fault(t, s, stack.Fault{Service: "replica-1", Kind: stack.FaultStreamCut})
	write(60)
	handling.open()
	eventually(t, "both groups handle what will be lost", func(ctx context.Context) error { return counts(ctx, router, "effect", 400) })
	time.Sleep(1500 * time.Millisecond) // acknowledged, and noted where it is lost, too

	// Handlers with events that will be lost wait for a primary while there is none, and get the new one.
	handling.close()
	write(20)
	time.Sleep(300 * time.Millisecond)
	time.AfterFunc(100*time.Millisecond, handling.open)
	fault(t, s, stack.Fault{Service: "replica-1", Kind: stack.FaultPromote})
	pool, err := pgxpool.New(t.Context(), url2)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	eventually(t, "the router writes to the new primary", func(ctx context.Context) error {
		id, err := moveOne(ctx, router, accounts)
		if err == nil {
			written[id] = true
		}
		return err
	})
	write(20)
	eventually(t, "the relay has published all", func(ctx context.Context) error { return counts(ctx, router, "loadline.outbox", 0) })

	survived, lost := make(map[string]bool), make(map[string]bool)
	for _, id := range texts(t, pool, "SELECT id::text FROM loadline.outbox_sent") {
		survived[id] = true
	}
	for id := range written {
		if !survived[id] {
			lost[id] = true
		}
	}
	if len(lost) < 70 || len(survived) < 150 {
		t.Fatalf("%d transactions have survived, and %d are lost: that is no failover", len(survived), len(lost))
	}
	var of map[string]int
	eventually(t, "each has its effect", func(context.Context) error {
		of = make(map[string]int)
		for _, id := range texts(t, pool, "SELECT id FROM effect WHERE consumer = 'follower'") {
			of[id]++
		}
		if len(of) < len(survived) {
			return fmt.Errorf("%d effects of %d", len(of), len(survived))
		}
		return nil
	})
	var buried map[string]bool
	eventually(t, "the dead letters", func(ctx context.Context) error {
		var err error
		if buried, err = causes(ctx, natsURL, "follower"); err == nil && len(buried) < len(lost) {
			err = fmt.Errorf("%d of %d", len(buried), len(lost))
		}
		return err
	})
	time.Sleep(2 * settle) // the second rewind, and what should not come
	for _, id := range texts(t, pool, "SELECT id FROM effect WHERE consumer = 'follower' EXCEPT ALL SELECT id::text FROM loadline.outbox_sent") {
		t.Errorf("the effect of %s is there twice, or was lost", id)
	}
	if buried, err = causes(t.Context(), natsURL, "follower"); err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(buried, lost) {
		t.Errorf("%d dead letters are not the %d events that were lost", len(buried), len(lost))
	}
	generations := texts(t, pool, "SELECT DISTINCT generation::text || CASE WHEN again_at IS NULL THEN '' ELSE ' and one to come' END FROM loadline.inbox_floor WHERE consumer = 'follower'")
	if !slices.Equal(generations, []string{"2"}) {
		t.Errorf("the group was rewound %v times, not twice", generations)
	}
	missing := len(survived) - len(texts(t, pool, "SELECT DISTINCT id FROM effect WHERE consumer = 'stranger'"))
	if missing <= 0 {
		t.Error("the group that does not follow lacks nothing: this test could not fail")
	}
	t.Logf("%d transactions have survived, %d are lost; the group that does not follow lacks %d effects", len(survived), len(lost), missing)
}

const settle = 2 * time.Second

func broker(ctx context.Context, nats string) (*natsjs.Driver, error) {
	return natsjs.Open(ctx, natsjs.Config{URL: nats, MaxBytes: 64 << 20, DeadLetterMaxBytes: 16 << 20, Logger: quiet})
}

func relay(ctx context.Context, url, nats string) {
	again(ctx, func(ctx context.Context) error {
		driver, err := broker(ctx, nats)
		if err != nil {
			return err
		}
		defer driver.Close()
		r, err := outbox.NewRelay(outbox.RelayConfig{
			DSN: url, Driver: driver, Logger: quiet, Poll: 50 * time.Millisecond, PublishTimeout: time.Second, StatementTimeout: 2 * time.Second, LeaseTTL: 3 * time.Second,
		})
		if err != nil {
			return err
		}
		return r.Run(ctx)
	})
}

// groupMember handles events through the router.
func groupMember(ctx context.Context, router *db.Router, nats, group string, follow bool, handling *gate) {
	again(ctx, func(ctx context.Context) error {
		driver, err := broker(ctx, nats)
		if err != nil {
			return err
		}
		defer driver.Close()
		in, err := inbox.New(inbox.Config{DB: router, Group: group, Settle: settle, Cause: outbox.Cause(router, outbox.DefaultRetention), Logger: quiet})
		if err != nil {
			return err
		}
		c, err := events.NewConsumer(driver, events.ConsumerConfig{
			Group: group, Logger: quiet, MaxDeliveries: 1000, HandlerTimeout: 20 * time.Second,
			RetryDelay: func(int) time.Duration { return 50 * time.Millisecond },
		})
		if err != nil {
			return err
		}
		handle := inbox.Handle(in, func(ctx context.Context, tx pgx.Tx, e events.Event[moved]) error {
			_, err := tx.Exec(ctx, "INSERT INTO effect (consumer, id, account, move) VALUES ($1, $2, $3, $4)", group, e.ID, e.Key, e.KeyVersion)
			return err
		})
		events.Handle(c, accountMoved, func(ctx context.Context, e events.Event[moved]) error {
			handling.pass()
			return handle(ctx, e)
		})
		var following sync.WaitGroup
		defer following.Wait()
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		if follow {
			following.Go(func() { _ = in.Follow(ctx, c) })
		}
		return c.Run(ctx)
	})
}

// moveOne moves an account and tells of it, and returns the event's id.
func moveOne(ctx context.Context, router *db.Router, accounts int) (id string, err error) {
	err = router.InTx(ctx, func(ctx context.Context, tx pgx.Tx) error {
		var name string
		var move int64
		if err := tx.QueryRow(ctx, "UPDATE account SET moves = moves + 1 WHERE name = $1 RETURNING name, moves", fmt.Sprint("account-", 1+rand.IntN(accounts))).Scan(&name, &move); err != nil {
			return err
		}
		m, err := accountMoved.New(moved{name}, events.KeyVersion(move))
		if err != nil {
			return err
		}
		id = m.ID
		return outbox.Add(ctx, tx, m)
	})
	return id, err
}

func serverURLs(t *testing.T, s *stack.Stack) (primary, replica string) {
	t.Helper()
	for _, service := range s.Services() {
		switch service.Name {
		case "primary":
			primary = stack.SuperuserURL(service.Addr)
		case "replica-1":
			replica = stack.SuperuserURL(service.Addr)
		}
	}
	return primary, replica
}

func fault(t *testing.T, s *stack.Stack, f stack.Fault) {
	t.Helper()
	if _, err := s.AddFault(t.Context(), f); err != nil {
		t.Fatalf("%s: %v", f, err)
	}
}

// gate holds those who pass while it is closed.
type gate struct {
	mu     sync.Mutex
	closed chan struct{}
}

func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = make(chan struct{})
}

func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	close(g.closed)
	g.closed = nil
}

func (g *gate) pass() {
	g.mu.Lock()
	closed := g.closed
	g.mu.Unlock()
	if closed != nil {
		<-closed
	}
}

func counts(ctx context.Context, router *db.Router, table string, want int) error {
	return router.InTx(ctx, func(ctx context.Context, tx pgx.Tx) error {
		var n int
		if err := tx.QueryRow(ctx, "SELECT count(*) FROM "+table).Scan(&n); err != nil {
			return err
		}
		if n != want {
			return fmt.Errorf("%s has %d rows, not %d", table, n, want)
		}
		return nil
	})
}

func texts(t *testing.T, pool *pgxpool.Pool, sql string) []string {
	t.Helper()
	rows, err := pool.Query(t.Context(), sql)
	if err != nil {
		t.Fatal(err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func eventually(t *testing.T, what string, f func(ctx context.Context) error) {
	t.Helper()
	var err error
	for limit := time.Now().Add(30 * time.Second); time.Now().Before(limit); time.Sleep(50 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		err = f(ctx)
		cancel()
		if err == nil {
			return
		}
	}
	t.Fatalf("%s: %v", what, err)
}

// causes are the events whose cause was lost, as the dead letters of a group say.
func causes(ctx context.Context, url, group string) (map[string]bool, error) {
	conn, err := nats.Connect(url)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		return nil, err
	}
	stream, err := js.Stream(ctx, natsjs.DefaultDeadLetters)
	if err != nil {
		return nil, err
	}
	ids := make(map[string]bool)
	for seq := stream.CachedInfo().State.FirstSeq; seq <= stream.CachedInfo().State.LastSeq; seq++ {
		m, err := stream.GetMsg(ctx, seq)
		if err != nil {
			return nil, err
		}
		if m.Header.Get(natsjs.HeaderDeadGroup) == group {
			id := m.Header.Get(natsjs.HeaderDeadMessageID)
			if reason := m.Header.Get(natsjs.HeaderDeadReason); reason != string(events.ReasonLostCause) {
				return nil, fmt.Errorf("%s is among the dead letters as %s", id, reason)
			}
			ids[id] = true
		}
	}
	return ids, nil
}
