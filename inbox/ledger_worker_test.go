package inbox_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/loadlinehq/loadline/events"
	"github.com/loadlinehq/loadline/events/natsjs"
	"github.com/loadlinehq/loadline/inbox"
	"github.com/loadlinehq/loadline/outbox"
)

// What the workers of TestLedger are.
const (
	roleWriter = "writer"
	roleRelay  = "relay"
	roleMember = "member"
)

// Where a worker kills itself when it is told to.
const (
	writerBeforeCommit = "writer dies before its commit"
	writerAfterCommit  = "writer dies after its commit"
	relayPublished     = "relay dies between publish and commit"
	memberBeforeCommit = "member dies before its commit"
	memberAfterCommit  = "member dies after its commit"
)

// What the handler of a member does by itself: the one at each tenth call, the other at each twentieth.
const (
	handlerFails  = "handler fails"
	handlerCutOff = "handler loses its connection"
)

// What a worker says, a line each.
const (
	saysDies      = "dies"      // and where
	saysDid       = "did"       // and what
	saysCommitted = "committed" // and the event's id
	saysLeads     = "leads"     // and the lease's epoch, and when
	saysPublishes = "publishes" // likewise, of the lease that it takes for its own
	saysLost      = "lost"      // the lease
)

// leaseTTL is that of the relays. Their statements may take a second.
const leaseTTL = 1500 * time.Millisecond

// worker is a process of TestLedger: it says on its standard output what it does, and is told on its
// standard input where to die. When that ends it ends, in order.
type worker struct {
	db, nats string
	told     atomic.Pointer[string]
}

// workLedger reports false, at once, when this process is no worker.
func workLedger() bool {
	if len(os.Args) != 5 || os.Args[1] != "ledger-worker" {
		return false
	}
	w := &worker{db: os.Args[3], nats: os.Args[4]}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	go func() {
		for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
			point := lines.Text()
			w.told.Store(&point)
		}
		stop()
	}()
	err := map[string]func(context.Context) error{roleWriter: w.write, roleRelay: w.relay, roleMember: w.member}[os.Args[2]](ctx)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	return true
}

// say is one write, so that lines stay whole, and are with the parent when this process dies.
func say(what ...any) { _, _ = os.Stdout.WriteString(fmt.Sprintln(what...)) }

// at is a point at which the worker dies if it was told to.
func (w *worker) at(point string) {
	if told := w.told.Load(); told != nil && *told == point && w.told.CompareAndSwap(told, nil) {
		say(saysDies, point)
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
}

func (w *worker) write(ctx context.Context) error {
	db, err := pgxpool.New(ctx, w.db)
	if err != nil {
		return err
	}
	defer db.Close()
	var writers sync.WaitGroup
	for range 2 {
		writers.Go(func() {
			for ctx.Err() == nil {
				pause := 20 * time.Millisecond
				if w.move(ctx, db) != nil {
					pause *= 3
				}
				time.Sleep(pause)
			}
		})
	}
	writers.Wait()
	return nil
}

// move moves an account, and tells of it: the account's row is locked first, for the order.
func (w *worker) move(ctx context.Context, db *pgxpool.Pool) error {
	var id string
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
		if _, err := tx.Exec(ctx, "INSERT INTO written (id, account, move) VALUES ($1, $2, $3)", m.ID, name, move); err != nil {
			return err
		}
		w.at(writerBeforeCommit)
		if rand.IntN(10) == 0 {
			return errors.New("undo")
		}
		id = m.ID
		return nil
	})
	if err == nil {
		say(saysCommitted, id)
		w.at(writerAfterCommit)
	}
	return err
}

// ledgerBroker knows IDs for so short a time that what is published twice arrives twice.
func ledgerBroker(ctx context.Context, nats string) (*natsjs.Driver, error) {
	return natsjs.Open(ctx, natsjs.Config{URL: nats, MaxBytes: 64 << 20, DeadLetterMaxBytes: 16 << 20, Duplicates: 100 * time.Millisecond, Logger: quiet})
}

func (w *worker) relay(ctx context.Context) error {
	again(ctx, func(ctx context.Context) error {
		driver, err := ledgerBroker(ctx, w.nats)
		if err != nil {
			return err
		}
		defer driver.Close()
		epoch := new(atomic.Int64)
		r, err := outbox.NewRelay(outbox.RelayConfig{
			DSN: w.db, Driver: publishing{driver, w, epoch}, Name: strconv.Itoa(os.Getpid()), Logger: slog.New(leading{quiet.Handler(), epoch}),
			Poll: 50 * time.Millisecond, PublishTimeout: 500 * time.Millisecond, StatementTimeout: time.Second, LeaseTTL: leaseTTL,
		})
		if err != nil {
			return err
		}
		return r.Run(ctx)
	})
	return nil
}

// publishing says when the relay publishes, and with which lease.
type publishing struct {
	events.Driver
	w     *worker
	epoch *atomic.Int64
}

func (p publishing) Publish(ctx context.Context, all []events.Raw) []error {
	// Who is paused just here does not publish: the time for it is over.
	if deadline, _ := ctx.Deadline(); time.Now().Before(deadline) {
		say(saysPublishes, p.epoch.Load(), time.Now().UnixNano())
	}
	errs := p.Driver.Publish(ctx, all)
	if errors.Join(errs...) == nil {
		p.w.at(relayPublished)
	}
	return errs
}

// leading says when the relay gets a lease, and loses it: its log tells.
type leading struct {
	slog.Handler
	epoch *atomic.Int64
}

func (leading) Enabled(context.Context, slog.Level) bool { return true }

func (l leading) Handle(_ context.Context, r slog.Record) error {
	switch r.Message {
	case "outbox: this relay has the lease":
		r.Attrs(func(a slog.Attr) bool {
			if a.Key == "epoch" {
				l.epoch.Store(a.Value.Int64())
				say(saysLeads, a.Value, time.Now().UnixNano())
			}
			return true
		})
	case "outbox: the relay connects again", "outbox: another relay has the lease; this one stands by":
		say(saysLost)
	}
	return nil
}

func (w *worker) member(ctx context.Context) error {
	db, err := pgxpool.New(ctx, w.db)
	if err != nil {
		return err
	}
	defer db.Close()
	in, err := inbox.New(inbox.Config{DB: pool{db}, Logger: quiet})
	if err != nil {
		return err
	}
	var calls atomic.Int64
	again(ctx, func(ctx context.Context) error {
		driver, err := ledgerBroker(ctx, w.nats)
		if err != nil {
			return err
		}
		defer driver.Close()
		c, err := events.NewConsumer(driver, events.ConsumerConfig{
			Logger: quiet, MaxDeliveries: 100, AckWait: time.Second, DrainTimeout: 100 * time.Millisecond, HandlerTimeout: 5 * time.Second,
			RetryDelay: func(int) time.Duration { return 20 * time.Millisecond },
		})
		if err != nil {
			return err
		}
		events.Handle(c, accountMoved, func(ctx context.Context, e events.Event[moved]) error {
			first := false
			handle := inbox.Handle(in, func(ctx context.Context, tx pgx.Tx, e events.Event[moved]) error {
				first = true
				if _, err := tx.Exec(ctx, "INSERT INTO effect (id, account, move) VALUES ($1, $2, $3)", e.ID, e.Key, e.KeyVersion); err != nil {
					return err
				}
				w.at(memberBeforeCommit)
				switch n := calls.Add(1); {
				case n%10 == 1:
					say(saysDid, handlerFails)
					return errors.New("every tenth")
				case n%20 == 2:
					say(saysDid, handlerCutOff)
					_, err := tx.Exec(ctx, "SELECT pg_terminate_backend(pg_backend_pid())")
					return err
				}
				return nil
			})
			err := handle(ctx, e)
			if err == nil && first {
				w.at(memberAfterCommit)
			}
			return err
		})
		return c.Run(ctx)
	})
	return nil
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
