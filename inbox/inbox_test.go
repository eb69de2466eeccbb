package inbox_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/loadlinehq/loadline/db"
	"github.com/loadlinehq/loadline/events"
	"github.com/loadlinehq/loadline/inbox"
	"github.com/loadlinehq/loadline/internal/stack/faultproxy"
	"github.com/loadlinehq/loadline/internal/stack/stacktest"
)

var counted = events.Define[int]("number.counted", events.V1)

// pool opens transactions as an application without db.Router does.
type pool struct{ *pgxpool.Pool }

func (p pool) InTx(ctx context.Context, f func(context.Context, pgx.Tx) error) error {
	return pgx.BeginFunc(ctx, p.Pool, func(tx pgx.Tx) error { return f(ctx, tx) })
}

func open(t testing.TB, options ...stacktest.Option) pool {
	t.Helper()
	d := stacktest.Postgres(t, options...)
	p, err := pgxpool.New(t.Context(), d.URL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return pool{p}
}

func migrated(t testing.TB) (pool, *inbox.Inbox) {
	t.Helper()
	p := open(t, stacktest.Migrated(inbox.Migrations))
	if _, err := p.Exec(t.Context(), "CREATE TABLE effect (n int NOT NULL)"); err != nil {
		t.Fatal(err)
	}
	in, err := inbox.New(inbox.Config{DB: p, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if err := in.Maintain(t.Context(), time.Now()); err != nil {
		t.Fatal(err)
	}
	return p, in
}

func event(t testing.TB, n int) events.Event[int] {
	t.Helper()
	m, err := counted.New(n)
	if err != nil {
		t.Fatal(err)
	}
	return events.Event[int]{Message: m, Payload: n, Attempt: 1}
}

func effects(t testing.TB, p pool) (all []int) {
	t.Helper()
	rows, err := p.Query(t.Context(), "SELECT n FROM effect ORDER BY n")
	if err != nil {
		t.Fatal(err)
	}
	all, err = pgx.CollectRows(rows, pgx.RowTo[int])
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func insert(ctx context.Context, tx pgx.Tx, n int) error {
	_, err := tx.Exec(ctx, "INSERT INTO effect VALUES ($1)", n)
	return err
}

func TestOnce(t *testing.T) {
	t.Parallel()
	p, in := migrated(t)
	fail := true
	handle := inbox.Handle(in, func(ctx context.Context, tx pgx.Tx, e events.Event[int]) error {
		if err := insert(ctx, tx, e.Payload); err != nil {
			return err
		}
		if fail {
			return errors.New("after the effect")
		}
		return nil
	})
	e := event(t, 1)
	if err := handle(t.Context(), e); err == nil || len(effects(t, p)) != 0 {
		t.Errorf("a failure left %v, %v", effects(t, p), err)
	}
	fail = false
	for range 3 {
		if err := handle(t.Context(), e); err != nil {
			t.Error(err)
		}
	}
	// All at once, on several members.
	e = event(t, 2)
	var wait sync.WaitGroup
	for range 8 {
		wait.Go(func() {
			if err := handle(t.Context(), e); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	if got := effects(t, p); !slices.Equal(got, []int{1, 2}) {
		t.Errorf("effects %v", got)
	}
	// Another group has its own.
	other, err := inbox.New(inbox.Config{DB: p, Group: "others"})
	if err != nil {
		t.Fatal(err)
	}
	handle = inbox.Handle(other, func(ctx context.Context, tx pgx.Tx, e events.Event[int]) error { return insert(ctx, tx, e.Payload) })
	if err := handle(t.Context(), e); err != nil || len(effects(t, p)) != 3 {
		t.Errorf("%v, %v", effects(t, p), err)
	}
}

func TestBatch(t *testing.T) {
	t.Parallel()
	p, in := migrated(t)
	handle := inbox.HandleBatch(in, func(ctx context.Context, tx pgx.Tx, all []events.Event[int]) error {
		for _, e := range all {
			if err := insert(ctx, tx, e.Payload); err != nil {
				return err
			}
		}
		return nil
	})
	a, b, c := event(t, 1), event(t, 2), event(t, 3)
	for _, batch := range [][]events.Event[int]{{a, b, a}, {b, c}, {a, b, c}, {}} {
		if err := handle(t.Context(), batch); err != nil {
			t.Error(err)
		}
	}
	if got := effects(t, p); !slices.Equal(got, []int{1, 2, 3}) {
		t.Errorf("effects %v", got)
	}
}

func TestStatement(t *testing.T) {
	t.Parallel()
	p, in := migrated(t)
	e := event(t, 7)
	for i := range 3 {
		tag, err := in.Once(t.Context(), p, &e.Message, "INSERT INTO effect SELECT $4 FROM first", e.Payload)
		if err != nil || tag.RowsAffected() != int64(1-min(i, 1)) {
			t.Errorf("time %d: %v, %v", i+1, tag, err)
		}
	}
	if got := effects(t, p); !slices.Equal(got, []int{7}) {
		t.Errorf("effects %v", got)
	}
}

// A db.Router's handles join the transaction, and its session has seen it.
func TestRouter(t *testing.T) {
	t.Parallel()
	d := stacktest.Postgres(t, stacktest.Migrated(inbox.Migrations))
	router, err := db.Open(t.Context(), db.Config{Primary: d.URL, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer router.Close()
	in, err := inbox.New(inbox.Config{DB: router})
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	if _, err := router.Write(ctx).Exec(ctx, "CREATE TABLE effect (n int)"); err != nil {
		t.Fatal(err)
	}
	handle := inbox.Handle(in, func(ctx context.Context, _ pgx.Tx, e events.Event[int]) error {
		_, err := router.Write(ctx).Exec(ctx, "INSERT INTO effect VALUES ($1)", e.Payload)
		return err
	})
	e := event(t, 1)
	for range 2 {
		if err := handle(ctx, e); err != nil {
			t.Error(err)
		}
	}
	var n int
	if err := router.Read(ctx).QueryRow(ctx, "SELECT count(*) FROM effect").Scan(&n); err != nil || n != 1 {
		t.Errorf("%d, %v", n, err)
	}
}

// Any number of deliveries, in any order, of which some fail, and some lose their connection
// before or after the effect: each effect is there once.
func TestNoDoubleEffect(t *testing.T) {
	t.Parallel()
	p, in := migrated(t)
	const count = 60
	var all []events.Event[int]
	for n := range count {
		all = append(all, event(t, n))
	}
	handle := inbox.Handle(in, func(ctx context.Context, tx pgx.Tx, e events.Event[int]) error {
		kill := func() {
			_, _ = tx.Exec(ctx, "SELECT pg_terminate_backend(pg_backend_pid())")
		}
		switch rand.IntN(6) {
		case 0:
			return errors.New("before")
		case 1:
			kill()
		}
		if err := insert(ctx, tx, e.Payload); err != nil {
			return err
		}
		switch rand.IntN(6) {
		case 0:
			return errors.New("after")
		case 1:
			kill()
		}
		return nil
	})
	var wait sync.WaitGroup
	for range 4 {
		wait.Go(func() {
			order := slices.Clone(all)
			rand.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
			for _, e := range order {
				for handle(t.Context(), e) != nil { // as long as it takes
				}
			}
		})
	}
	wait.Wait()
	got := effects(t, p)
	for n := range count {
		if i, found := slices.BinarySearch(got, n); !found || i+1 < len(got) && got[i+1] == n {
			t.Errorf("effect %d is not there once: %v", n, got)
			break
		}
	}
}

func TestPartitions(t *testing.T) {
	t.Parallel()
	p, in := migrated(t)
	ctx := t.Context()
	handle := inbox.Handle(in, func(ctx context.Context, tx pgx.Tx, e events.Event[int]) error { return insert(ctx, tx, e.Payload) })
	have := func() (names []string) {
		t.Helper()
		rows, err := p.Query(ctx, "SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid WHERE inhparent = 'loadline.inbox'::regclass ORDER BY 1")
		if err != nil {
			t.Fatal(err)
		}
		names, err = pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			t.Fatal(err)
		}
		return names
	}
	now := time.Now()
	day := func(n int) string { return now.UTC().AddDate(0, 0, n).Format("inbox_20060102") }
	want := []string{day(0), day(1), day(2), day(3), day(4), "inbox_other"}
	if got := have(); !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}

	// An event of a day that has none yet is remembered when it gets one.
	early := event(t, 1)
	early.Time = now.Add(5 * 24 * time.Hour)
	if err := handle(ctx, early); err != nil {
		t.Fatal(err)
	}
	if err := in.Maintain(ctx, now.Add(24*time.Hour)); err != nil {
		t.Fatal(err)
	}
	if err := handle(ctx, early); err != nil {
		t.Fatal(err)
	}
	var other int
	if err := p.QueryRow(ctx, "SELECT count(*) FROM loadline.inbox_other").Scan(&other); err != nil || other != 0 {
		t.Errorf("%d rows are left in the other partition, %v", other, err)
	}
	if got := effects(t, p); len(got) != 1 {
		t.Errorf("effects %v", got)
	}

	// Days that are over go, with the events of them that no broker has any more.
	if err := in.Maintain(ctx, now.Add(inbox.DefaultRetention+2*24*time.Hour)); err != nil {
		t.Fatal(err)
	}
	if got := have(); slices.Contains(got, day(0)) || slices.Contains(got, day(1)) || !slices.Contains(got, day(2)) || !slices.Contains(got, day(13)) {
		t.Errorf("after nine days: %v", got)
	}
	// One process at a time.
	err := p.InTx(ctx, func(ctx context.Context, tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock(hashtextextended('loadline.inbox', 0))"); err != nil {
			return err
		}
		return in.Maintain(ctx, now.Add(30*24*time.Hour))
	})
	if err != nil || slices.Contains(have(), day(30)) {
		t.Errorf("two at once: %v, %v", have(), err)
	}
}

// A database that cannot be reached is not the event's fault; what happens in the handler
// may be.
func TestAway(t *testing.T) {
	t.Parallel()
	p, _ := migrated(t)
	c := p.Config().Copy()
	url, proxy := stacktest.Proxied(t, c.ConnString())
	proxied, err := pgxpool.New(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer proxied.Close()
	in, err := inbox.New(inbox.Config{DB: pool{proxied}})
	if err != nil {
		t.Fatal(err)
	}
	fail := errors.New("the handler's own")
	handle := inbox.Handle(in, func(context.Context, pgx.Tx, events.Event[int]) error { return fail })
	many := inbox.HandleBatch(in, func(context.Context, pgx.Tx, []events.Event[int]) error { return fail })
	is503 := func(err error) bool {
		status, ok := errors.AsType[interface {
			error
			HTTPStatus() int
		}](err)
		return ok && status.HTTPStatus() == 503
	}
	e := event(t, 1)
	if err := handle(t.Context(), e); !errors.Is(err, fail) || is503(err) {
		t.Errorf("a handler that fails: %v", err)
	}
	for _, kind := range []faultproxy.Kind{faultproxy.Refuse, faultproxy.Reset} {
		if err := proxy.Add("away", faultproxy.Fault{Kind: kind}); err != nil {
			t.Fatal(err)
		}
		if kind == faultproxy.Refuse {
			proxied.Reset()
		}
		if err := handle(t.Context(), e); err == nil || errors.Is(err, fail) || !is503(err) {
			t.Errorf("%s: %v", kind, err)
		}
		if err := proxy.Remove("away"); err != nil {
			t.Fatal(err)
		}
	}
	if err := proxy.Add("away", faultproxy.Fault{Kind: faultproxy.Refuse}); err != nil {
		t.Fatal(err)
	}
	proxied.Reset()
	if err := many(t.Context(), []events.Event[int]{e}); !is503(err) {
		t.Errorf("a batch: %v", err)
	}
}

// Partitions are made while handlers insert rows for the day, into the partition for all others
// so far, and a long transaction that has one keeps no other day from getting its own.
func TestPartitionsUnderLoad(t *testing.T) {
	t.Parallel()
	p := open(t, stacktest.Migrated(inbox.Migrations))
	if _, err := p.Exec(t.Context(), "CREATE TABLE effect (n int NOT NULL)"); err != nil {
		t.Fatal(err)
	}
	in, err := inbox.New(inbox.Config{DB: p, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	handle := inbox.Handle(in, func(ctx context.Context, tx pgx.Tx, e events.Event[int]) error { return insert(ctx, tx, e.Payload) })
	partitions := func() (n int) {
		t.Helper()
		if err := p.QueryRow(t.Context(), "SELECT count(*) FROM pg_inherits WHERE inhparent = 'loadline.inbox'::regclass").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	// A transaction that stays open with a row of today.
	long, err := p.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	e := event(t, -1)
	if _, err := in.Insert(t.Context(), long, &e.Message); err != nil {
		t.Fatal(err)
	}
	if err := in.Maintain(t.Context(), time.Now()); err == nil || !strings.Contains(err.Error(), "lock") {
		t.Errorf("today's partition was made under a lock: %v", err)
	}
	if err := long.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}

	ctx, stop := context.WithCancel(t.Context())
	var handlers sync.WaitGroup
	for worker := range 4 {
		handlers.Go(func() {
			for n := worker; ctx.Err() == nil; n += 4 {
				// Who waits for the lock meanwhile finds that its row belongs elsewhere now, and
				// is tried again as any handler that fails.
				e := event(t, n)
				err := handle(ctx, e)
				if pg, ok := errors.AsType[*pgconn.PgError](err); ok && pg.Code == "23514" {
					err = handle(ctx, e)
				}
				if err != nil && ctx.Err() == nil {
					t.Error(err)
				}
			}
		})
	}
	for limit := time.Now().Add(20 * time.Second); partitions() != 6; time.Sleep(50 * time.Millisecond) {
		if err := in.Maintain(ctx, time.Now()); err != nil && time.Now().After(limit) {
			t.Fatal(err)
		}
	}
	stop()
	handlers.Wait()
	var other int
	if err := p.QueryRow(t.Context(), "SELECT count(*) FROM loadline.inbox_other").Scan(&other); err != nil || other != 0 {
		t.Errorf("%d rows are left in the other partition, %v", other, err)
	}
	if first, err := in.Insert(t.Context(), p, &e.Message); err != nil || first {
		t.Errorf("what was handled before is not remembered: %v, %v", first, err)
	}
}

func TestMistakes(t *testing.T) {
	t.Parallel()
	_, err := inbox.New(inbox.Config{Retention: time.Hour})
	for _, want := range []string{"DB", "Retention"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	p := open(t)
	in, err := inbox.New(inbox.Config{DB: p})
	if err != nil {
		t.Fatal(err)
	}
	e := event(t, 1)
	nothing := func(context.Context, pgx.Tx, events.Event[int]) error { return nil }
	_, once := in.Once(t.Context(), p, &e.Message, "SELECT FROM first")
	for name, err := range map[string]error{
		"handle":   inbox.Handle(in, nothing)(t.Context(), e),
		"batch":    inbox.HandleBatch(in, func(context.Context, pgx.Tx, []events.Event[int]) error { return nil })(t.Context(), []events.Event[int]{e}),
		"once":     once,
		"maintain": in.Maintain(t.Context(), time.Now()),
	} {
		if err == nil || !strings.Contains(err.Error(), "loadline migrate") {
			t.Errorf("%s without tables: %v", name, err)
		}
	}
}

func Example() {
	var router inbox.DB // a *db.Router, say
	in, err := inbox.New(inbox.Config{DB: router})
	if err != nil {
		fmt.Println(err)
		return
	}
	handler := inbox.Handle(in, func(ctx context.Context, tx pgx.Tx, e events.Event[int]) error {
		_, err := tx.Exec(ctx, "UPDATE total SET n = n + $1", e.Payload)
		return err
	})
	_ = handler // for events.Handle
	// Output: inbox: Config.DB is missing: it opens the transactions, as a db.Router does
}
