package inbox_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/loadlinehq/loadline/events"
	"github.com/loadlinehq/loadline/events/natsjs"
	"github.com/loadlinehq/loadline/inbox"
	"github.com/loadlinehq/loadline/internal/migrate"
	"github.com/loadlinehq/loadline/internal/stack"
	"github.com/loadlinehq/loadline/internal/stack/stacktest"
	"github.com/loadlinehq/loadline/outbox"
)

type moved struct {
	Account string `json:"account"`
}

var accountMoved = events.Define("account.moved", events.V1, events.KeyedBy(func(m moved) string { return m.Account }))

// The whole way, on real servers: writers, two relays, the broker, two members of a group,
// each with its effect in a transaction. The database and the broker are killed and paused,
// relays lose their connections, members come and go, every tenth handler fails, some lose
// their connection after the effect, others die after its commit. In the end each committed event has had its
// effect once, in the order of its key. It takes ten seconds, and with LOADLINE_SLOW sixty.
func TestLedger(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts servers; skipped by -short")
	}
	length := 8 * time.Second
	if os.Getenv("LOADLINE_SLOW") != "" {
		length = time.Minute
	}
	s := stacktest.Own(t, stack.Config{})
	url := s.DatabaseURL()
	if _, err := migrate.Up(t.Context(), url, migrate.Set{Name: "outbox", Files: outbox.Migrations}, migrate.Set{Name: "inbox", Files: inbox.Migrations}); err != nil {
		t.Fatal(err)
	}
	db, err := pgxpool.New(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	const accounts = 8
	if _, err := db.Exec(t.Context(), `CREATE TABLE account (name text PRIMARY KEY, moves bigint NOT NULL DEFAULT 0);
		CREATE TABLE effect (at bigint GENERATED ALWAYS AS IDENTITY, account text, move bigint);
		INSERT INTO account SELECT 'account-' || n FROM generate_series(1, 8) n`); err != nil {
		t.Fatal(err)
	}
	nats := natsURL(t, s)

	writing, stopWriting := context.WithTimeout(t.Context(), length)
	defer stopWriting()
	working, stopWorking := context.WithCancel(context.Background())
	var writers, workers sync.WaitGroup
	for range 4 {
		writers.Go(func() { write(writing, db, accounts) })
	}
	for range 2 {
		workers.Go(func() { relay(working, url, nats) })
		workers.Go(func() { member(working, pool{db}, nats) })
	}
	faults := chaos(writing, t, s, db)
	writers.Wait()
	t.Log(faults)

	// All that is committed, and nothing else, is what the accounts say.
	state := func() (committed, effects, wrong int64, err error) {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		err = db.QueryRow(ctx, `SELECT (SELECT sum(moves) FROM account), (SELECT count(*) FROM effect),
			(SELECT count(*) FROM (SELECT move, row_number() OVER (PARTITION BY account ORDER BY at) AS turn FROM effect) e WHERE move <> turn)`).Scan(&committed, &effects, &wrong)
		return committed, effects, wrong, err
	}
	for limit := time.Now().Add(90 * time.Second); ; time.Sleep(200 * time.Millisecond) {
		committed, effects, wrong, err := state()
		if err == nil && effects >= committed {
			break
		}
		if time.Now().After(limit) {
			t.Fatalf("%d committed, %d effects, %d out of turn, %v", committed, effects, wrong, err)
		}
	}
	time.Sleep(2 * time.Second) // for what should not come
	committed, effects, wrong, err := state()
	t.Logf("%d committed, %d effects, %d out of turn", committed, effects, wrong)
	if err != nil || committed < 20 || effects != committed || wrong != 0 {
		t.Errorf("%d committed, %d effects, %d out of turn or twice, %v", committed, effects, wrong, err)
	}
	stopWorking()
	workers.Wait()
}

func natsURL(t *testing.T, s *stack.Stack) string {
	t.Helper()
	for _, variable := range s.Env() {
		if url, ok := strings.CutPrefix(variable, "NATS_URL="); ok {
			return url
		}
	}
	t.Fatal("the stack has no NATS_URL")
	return ""
}

var quiet = slog.New(slog.DiscardHandler)

// write moves accounts, and tells of it: the account's row is locked first, for the order.
func write(ctx context.Context, db *pgxpool.Pool, accounts int) {
	for ctx.Err() == nil {
		err := pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
			name := fmt.Sprint("account-", 1+rand.IntN(accounts))
			var move int64
			if err := tx.QueryRow(ctx, "UPDATE account SET moves = moves + 1 WHERE name = $1 RETURNING moves", name).Scan(&move); err != nil {
				return err
			}
			m, err := accountMoved.New(moved{name}, events.KeyVersion(move))
			if err != nil {
				return err
			}
			if err := outbox.Add(ctx, tx, m); err != nil {
				return err
			}
			if rand.IntN(10) == 0 {
				return errors.New("undo")
			}
			return nil
		})
		pause := 20 * time.Millisecond
		if err != nil {
			pause *= 3
		}
		time.Sleep(pause)
	}
}

// again runs f anew until ctx is done.
func again(ctx context.Context, f func(ctx context.Context) error) {
	for ctx.Err() == nil {
		_ = f(ctx)
		select {
		case <-ctx.Done():
		case <-time.After(50 * time.Millisecond):
		}
	}
}

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

// member handles events for a while, and then another takes its place.
func member(ctx context.Context, db pool, nats string) {
	again(ctx, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, time.Second+rand.N(3*time.Second))
		defer cancel()
		driver, err := broker(ctx, nats)
		if err != nil {
			return err
		}
		defer driver.Close()
		in, err := inbox.New(inbox.Config{DB: db, Logger: quiet})
		if err != nil {
			return err
		}
		c, err := events.NewConsumer(driver, events.ConsumerConfig{
			Logger: quiet, MaxDeliveries: 15, AckWait: time.Second, DrainTimeout: 100 * time.Millisecond, HandlerTimeout: 5 * time.Second,
			RetryDelay: func(int) time.Duration { return 20 * time.Millisecond },
		})
		if err != nil {
			return err
		}
		handle := inbox.Handle(in, func(ctx context.Context, tx pgx.Tx, e events.Event[moved]) error {
			if rand.IntN(10) == 0 {
				return errors.New("every tenth")
			}
			if _, err := tx.Exec(ctx, "INSERT INTO effect (account, move) VALUES ($1, $2)", e.Key, e.KeyVersion); err != nil {
				return err
			}
			if rand.IntN(20) == 0 {
				_, err := tx.Exec(ctx, "SELECT pg_terminate_backend(pg_backend_pid())")
				return err
			}
			return nil
		})
		events.Handle(c, accountMoved, func(ctx context.Context, e events.Event[moved]) error {
			if err := handle(ctx, e); err != nil {
				return err
			}
			if rand.IntN(20) == 0 {
				return errors.New("dies after its commit, before it is acknowledged")
			}
			return nil
		})
		return c.Run(ctx)
	})
}

// chaos breaks things until ctx is done, and mends them.
func chaos(ctx context.Context, t *testing.T, s *stack.Stack, db *pgxpool.Pool) map[string]int {
	counts := make(map[string]int)
	for ctx.Err() == nil {
		time.Sleep(300 * time.Millisecond)
		kind := rand.IntN(10)
		switch {
		case kind < 4: // the relay's connection
			counts["relay cut off"]++
			_, _ = db.Exec(ctx, "SELECT pg_terminate_backend(pid) FROM loadline.outbox_relay")
			continue
		case kind < 6:
			breakAndMend(t, s, stack.Fault{Service: "nats", Kind: stack.FaultPause}, counts)
		case kind < 8:
			breakAndMend(t, s, stack.Fault{Service: "nats", Kind: stack.FaultKill}, counts)
		case kind < 9:
			breakAndMend(t, s, stack.Fault{Service: "primary", Kind: stack.FaultPause}, counts)
		default:
			breakAndMend(t, s, stack.Fault{Service: "primary", Kind: stack.FaultKill}, counts)
		}
	}
	return counts
}

func breakAndMend(t *testing.T, s *stack.Stack, f stack.Fault, counts map[string]int) {
	t.Helper()
	active, err := s.AddFault(t.Context(), f)
	if err != nil {
		t.Errorf("%s: %v", f, err)
		return
	}
	time.Sleep(200*time.Millisecond + rand.N(800*time.Millisecond))
	if err := s.RemoveFault(t.Context(), active.ID); err != nil {
		t.Errorf("undo %s: %v", f, err)
	}
	counts[fmt.Sprint(f.Service, " ", f.Kind)]++
}
