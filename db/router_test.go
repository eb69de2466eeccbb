package db_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/loadlinehq/loadline/causal"
	"github.com/loadlinehq/loadline/db"
	"github.com/loadlinehq/loadline/internal/stack/stacktest"
)

// open returns a running router on a database of its own, with a table t.
func open(t testing.TB, change func(*db.Config)) *db.Router {
	t.Helper()
	d := stacktest.Postgres(t)
	return run(t, db.Config{Primary: d.URL, Replicas: d.ReplicaURLs}, change)
}

func run(t testing.TB, config db.Config, change func(*db.Config)) *db.Router {
	t.Helper()
	config.Logger = slog.New(slog.NewTextHandler(testWriter{t}, nil))
	if change != nil {
		change(&config)
	}
	router, err := db.Open(t.Context(), config)
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
	if _, err := router.Write(t.Context()).Exec(t.Context(), "CREATE TABLE IF NOT EXISTS t (id int PRIMARY KEY, n int NOT NULL DEFAULT 0)"); err != nil {
		t.Fatal(err)
	}
	for _, replica := range config.Replicas {
		conn, err := pgx.Connect(t.Context(), replica)
		if err != nil {
			t.Fatal(err)
		}
		within(t, 10*time.Second, func() error {
			_, err := conn.Exec(t.Context(), "SELECT FROM t")
			return err
		})
		_ = conn.Close(t.Context())
	}
	return router
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Logf("%s", strings.TrimSpace(string(b)))
	return len(b), nil
}

// client is a context with a session of its own.
func client(t testing.TB) context.Context {
	return causal.WithSession(t.Context(), causal.NewSession(causal.Token{}))
}

const onReplica = "SELECT pg_is_in_recovery()"

func TestReadsSeeWrites(t *testing.T) {
	t.Parallel()
	router := open(t, nil)
	replicas := 0
	for i := range 200 {
		ctx := client(t)
		var err error
		switch i % 4 {
		case 0:
			_, err = router.Write(ctx).Exec(ctx, "INSERT INTO t VALUES ($1)", i)
		case 1:
			_, err = router.Write(ctx).Exec(ctx, "INSERT INTO t VALUES ("+strconv.Itoa(i)+") -- text")
		case 2:
			var id int
			err = router.Write(ctx).QueryRow(ctx, "INSERT INTO t VALUES ($1) RETURNING id", i).Scan(&id)
			if err == nil && id != i {
				t.Fatalf("id %d, want %d", id, i)
			}
		case 3:
			err = router.InTx(ctx, func(ctx context.Context, tx pgx.Tx) error {
				_, err := tx.Exec(ctx, "INSERT INTO t VALUES ($1)", i)
				return err
			})
		}
		if err != nil {
			t.Fatal(err)
		}
		var found, replica bool
		if err := router.Read(ctx).QueryRow(ctx, "SELECT EXISTS (SELECT FROM t WHERE id = $1), pg_is_in_recovery()", i).Scan(&found, &replica); err != nil {
			t.Fatal(err)
		}
		if !found {
			t.Errorf("write %d is not seen (replica: %t)", i, replica)
		}
		if replica {
			replicas++
		}
	}
	if replicas < 10 { // the share is measured by TestReadYourWrites, with nothing beside it
		t.Errorf("%d of 200 reads after a write were on a replica, hardly any", replicas)
	}
}

func TestWhereReadsGo(t *testing.T) {
	t.Parallel()
	router := open(t, nil)
	unknown := causal.WithSession(t.Context(), causal.NewSession(causal.Unknown()))
	for _, test := range []struct {
		name    string
		ctx     context.Context
		options []db.Option
		replica bool
	}{
		{"new session", client(t), nil, true},
		{"no session", t.Context(), nil, false},
		{"unknown session", unknown, nil, false},
		{"strong", client(t), []db.Option{db.Strong()}, false},
		{"any", unknown, []db.Option{db.Any()}, true},
		{"stale", t.Context(), []db.Option{db.MaxStaleness(10 * time.Second)}, true},
		{"hardly stale", t.Context(), []db.Option{db.MaxStaleness(time.Nanosecond)}, false},
	} {
		var replica bool
		if err := router.Read(test.ctx, test.options...).QueryRow(test.ctx, onReplica).Scan(&replica); err != nil {
			t.Errorf("%s: %v", test.name, err)
		}
		if replica != test.replica {
			t.Errorf("%s: on a replica: %t, want %t", test.name, replica, test.replica)
		}
	}
}

// A write among reads fails on every server, and says where it is.
func TestReadOnly(t *testing.T) {
	t.Parallel()
	router := open(t, nil)
	ctx := client(t)
	insert := "INSERT INTO t VALUES ($1)"
	for name, do := range map[string]func() error{
		"exec on a replica":   func() error { _, err := router.Read(ctx).Exec(ctx, insert, 1); return err },
		"exec on the primary": func() error { _, err := router.Read(ctx, db.Strong()).Exec(ctx, insert, 1); return err },
		"query row": func() error {
			var id int
			return router.Read(ctx).QueryRow(ctx, insert+" RETURNING id", 1).Scan(&id)
		},
		"query": func() error {
			rows, err := router.Read(ctx, db.Strong()).Query(ctx, insert+" RETURNING id", 1)
			if err == nil {
				rows.Close()
				err = rows.Err()
			}
			return err
		},
		"batch": func() error {
			b := new(pgx.Batch)
			b.Queue(insert, 1)
			return router.Read(ctx).SendBatch(ctx, b).Close()
		},
		"copy": func() error {
			_, err := router.Read(ctx).CopyFrom(ctx, pgx.Identifier{"t"}, []string{"id"}, pgx.CopyFromRows([][]any{{1}}))
			return err
		},
		"transaction": func() error {
			return router.ReadTx(ctx, func(ctx context.Context, tx pgx.Tx) error {
				_, err := tx.Exec(ctx, insert, 1)
				return err
			})
		},
		"write in a read": func() error {
			return router.ReadTx(ctx, func(ctx context.Context, _ pgx.Tx) error {
				return router.InTx(ctx, func(context.Context, pgx.Tx) error { return nil })
			})
		},
	} {
		err := do()
		readOnly, ok := errors.AsType[*db.ReadOnlyError](err)
		if !ok || !errors.Is(err, db.ErrReadOnly) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !strings.HasPrefix(readOnly.Caller, "db/router_test.go:") {
			t.Errorf("%s: caller %q", name, readOnly.Caller)
		}
		if readOnly.HTTPStatus() != http.StatusInternalServerError {
			t.Errorf("%s: status %d", name, readOnly.HTTPStatus())
		}
	}
}

// What fails leaves the connection usable, and is no write that a session has seen.
func TestFailedWrites(t *testing.T) {
	t.Parallel()
	router := open(t, func(c *db.Config) { c.PrimaryPool.MaxConns = 1 })
	ctx := t.Context()
	if _, err := router.Write(ctx).Exec(ctx, "INSERT INTO t VALUES (1)"); err != nil {
		t.Fatal(err)
	}
	if _, err := router.Write(ctx).Exec(ctx, "CREATE TABLE late (id int UNIQUE DEFERRABLE INITIALLY DEFERRED); INSERT INTO late VALUES (1)"); err != nil {
		t.Fatal(err)
	}
	var pid int
	if err := router.Read(ctx, db.Strong()).QueryRow(ctx, "SELECT pg_backend_pid()").Scan(&pid); err != nil {
		t.Fatal(err)
	}
	failure := errors.New("no")
	for name, test := range map[string]struct {
		do   func(context.Context) error
		want func(error) bool
	}{
		"exec": {func(ctx context.Context) error {
			_, err := router.Write(ctx).Exec(ctx, "INSERT INTO t VALUES ($1)", 1)
			return err
		}, code("23505")},
		"text": {func(ctx context.Context) error {
			_, err := router.Write(ctx).Exec(ctx, "INSERT INTO t VALUES (1)")
			return err
		}, code("23505")},
		"second of text": {func(ctx context.Context) error {
			_, err := router.Write(ctx).Exec(ctx, "INSERT INTO t VALUES (2); INSERT INTO t VALUES (1)")
			return err
		}, code("23505")},
		"syntax": {func(ctx context.Context) error {
			_, err := router.Write(ctx).Exec(ctx, "INSERT INTO ($1)", 1)
			return err
		}, code("42601")},
		"at the commit": {func(ctx context.Context) error {
			_, err := router.Write(ctx).Exec(ctx, "INSERT INTO late VALUES ($1)", 1)
			return err
		}, code("23505")},
		"in a text": {func(ctx context.Context) error {
			_, err := router.Write(ctx).Exec(ctx, "INSERT INTO late VALUES (1)")
			return err
		}, code("23505")},
		"row": {func(ctx context.Context) error {
			var id int
			return router.Write(ctx).QueryRow(ctx, "INSERT INTO t VALUES ($1) RETURNING id", 1).Scan(&id)
		}, code("23505")},
		"f fails": {func(ctx context.Context) error {
			return router.InTx(ctx, func(context.Context, pgx.Tx) error { return failure })
		}, is(failure)},
		"swallowed": {func(ctx context.Context) error {
			return router.InTx(ctx, func(ctx context.Context, tx pgx.Tx) error {
				_, _ = tx.Exec(ctx, "INSERT INTO t VALUES ($1)", 1)
				return nil
			})
		}, is(db.ErrRolledBack)},
		"joined fails": {func(ctx context.Context) error {
			return router.InTx(ctx, func(ctx context.Context, _ pgx.Tx) error {
				_ = router.InTx(ctx, func(context.Context, pgx.Tx) error { return failure })
				return nil
			})
		}, is(failure)},
		"deferred in tx": {func(ctx context.Context) error {
			return router.InTx(ctx, func(ctx context.Context, tx pgx.Tx) error {
				_, err := tx.Exec(ctx, "INSERT INTO late VALUES ($1)", 1)
				return err
			})
		}, code("23505")},
		"commit by hand": {func(ctx context.Context) error {
			return router.InTx(ctx, func(ctx context.Context, tx pgx.Tx) error { return tx.Commit(ctx) })
		}, func(err error) bool { return err != nil }},
		"batch": {func(ctx context.Context) error {
			b := new(pgx.Batch)
			b.Queue("INSERT INTO t VALUES ($1)", 3)
			b.Queue("INSERT INTO t VALUES ($1)", 1)
			return router.Write(ctx).SendBatch(ctx, b).Close()
		}, code("23505")},
		"statement limit": {func(ctx context.Context) error {
			return router.InTx(ctx, func(ctx context.Context, tx pgx.Tx) error {
				_, err := tx.Exec(ctx, "SET LOCAL statement_timeout = 10; SELECT pg_sleep(1)")
				return err
			})
		}, code("57014")},
	} {
		ctx := client(t)
		if err := test.do(ctx); !test.want(err) {
			t.Errorf("%s: %v", name, err)
		}
		if token := causal.FromContext(ctx).Token(); !token.IsZero() {
			t.Errorf("%s: the session has seen %v", name, token)
		}
		var again, rows int
		if err := router.Read(ctx, db.Strong()).QueryRow(ctx, "SELECT pg_backend_pid(), count(*) FROM t").Scan(&again, &rows); err != nil || again != pid {
			t.Errorf("%s: the connection is another: %v", name, err)
		}
		if rows != 1 {
			t.Errorf("%s: %d rows", name, rows)
		}
	}
}

// An argument that cannot be sent has changed nothing, and that is known.
func TestNoEncoding(t *testing.T) {
	t.Parallel()
	router := open(t, nil)
	_, err := router.Write(t.Context()).Exec(t.Context(), "INSERT INTO t VALUES ($1)", make(chan int))
	if err == nil || errors.Is(err, db.ErrOutcomeUnknown) {
		t.Error(err)
	}
}

func code(want string) func(error) bool {
	return func(err error) bool {
		pg, ok := errors.AsType[*pgconn.PgError](err)
		return ok && pg.Code == want
	}
}

func is(want error) func(error) bool { return func(err error) bool { return errors.Is(err, want) } }

// A row that the caller cannot read has been written all the same.
func TestUnreadableRow(t *testing.T) {
	t.Parallel()
	router := open(t, nil)
	ctx := client(t)
	var wrong time.Time
	if err := router.Write(ctx).QueryRow(ctx, "INSERT INTO t VALUES ($1) RETURNING 'text'", 1).Scan(&wrong); err == nil {
		t.Fatal("a text is a time")
	}
	var found bool
	if err := router.Read(ctx).QueryRow(ctx, "SELECT EXISTS (SELECT FROM t WHERE id = 1)").Scan(&found); err != nil || !found {
		t.Errorf("seen: %t, %v", found, err)
	}
	if causal.FromContext(ctx).Token().IsZero() {
		t.Error("the session has seen nothing")
	}
}

func TestBatchesAndCopies(t *testing.T) {
	t.Parallel()
	router := open(t, nil)
	ctx := client(t)
	b := new(pgx.Batch)
	b.Queue("INSERT INTO t VALUES ($1)", 1)
	var id int
	b.Queue("INSERT INTO t VALUES ($1) RETURNING id", 2).QueryRow(func(row pgx.Row) error { return row.Scan(&id) })
	results := router.Write(ctx).SendBatch(ctx, b)
	if tag, err := results.Exec(); err != nil || tag.String() != "INSERT 0 1" {
		t.Error(tag, err)
	}
	if err := results.Close(); err != nil || id != 2 {
		t.Error(err, id)
	}
	if err := results.Close(); err != nil {
		t.Error("second close:", err)
	}
	n, err := router.Write(ctx).CopyFrom(ctx, pgx.Identifier{"t"}, []string{"id"}, pgx.CopyFromRows([][]any{{3}, {4}}))
	if n != 2 || err != nil {
		t.Error(n, err)
	}
	ids := func() *pgx.Batch {
		b := new(pgx.Batch)
		b.Queue("SELECT id FROM t ORDER BY id")
		return b
	}
	read := router.Read(ctx).SendBatch(ctx, ids())
	rows, _ := read.Query()
	got, err := pgx.CollectRows(rows, pgx.RowTo[int])
	if err != nil || len(got) != 4 {
		t.Error(got, err)
	}
	if err := read.Close(); err != nil {
		t.Error(err)
	}
}

// Within a transaction reads and writes through the router join it.
func TestJoin(t *testing.T) {
	t.Parallel()
	router := open(t, nil)
	ctx := client(t)
	err := router.InTx(ctx, func(ctx context.Context, tx pgx.Tx) error {
		if _, err := router.Write(ctx).Exec(ctx, "INSERT INTO t VALUES ($1)", 1); err != nil {
			return err
		}
		if err := router.InTx(ctx, func(ctx context.Context, inner pgx.Tx) error {
			_, err := inner.Exec(ctx, "UPDATE t SET n = 7 WHERE id = $1", 1)
			return err
		}); err != nil {
			return err
		}
		part, err := tx.Begin(ctx)
		if err != nil {
			return err
		}
		if _, err := part.Exec(ctx, "INSERT INTO t VALUES (1)"); err == nil {
			t.Error("no violation")
		}
		if err := part.Rollback(ctx); err != nil {
			return err
		}
		var n int
		if err := router.Read(ctx).QueryRow(ctx, "SELECT n FROM t WHERE id = $1", 1).Scan(&n); err != nil || n != 7 {
			t.Errorf("n = %d, %v", n, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var first, second int
	err = router.ReadTx(ctx, func(ctx context.Context, tx pgx.Tx) error {
		if err := tx.QueryRow(ctx, "SELECT n FROM t").Scan(&first); err != nil {
			return err
		}
		other := client(t)
		if _, err := router.Write(other).Exec(other, "UPDATE t SET n = 8"); err != nil {
			return err
		}
		return router.Read(ctx).QueryRow(ctx, "SELECT n FROM t").Scan(&second)
	})
	if err != nil || first != 7 || second != 7 {
		t.Errorf("one snapshot: %d, %d, %v", first, second, err)
	}
}

// The queue is bounded in length and time, and says so.
func TestSaturated(t *testing.T) {
	t.Parallel()
	router := open(t, func(c *db.Config) {
		c.PrimaryPool = db.Pool{MaxConns: 1, Queue: 1, QueueWait: 50 * time.Millisecond}
	})
	ctx := t.Context()
	rows, err := router.Read(ctx, db.Strong()).Query(ctx, "SELECT generate_series(1, 10)")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var wait sync.WaitGroup
	errs := make(chan error, 2)
	for range 2 {
		wait.Go(func() { _, err := router.Write(ctx).Exec(ctx, "SELECT 1"); errs <- err })
	}
	wait.Wait()
	for range 2 {
		err := <-errs
		status, ok := errors.AsType[interface {
			error
			HTTPStatus() int
			RetryAfter() time.Duration
		}](err)
		if !errors.Is(err, db.ErrPoolSaturated) || !ok || status.HTTPStatus() != 503 || status.RetryAfter() <= 0 {
			t.Errorf("%v", err)
		}
		if !db.Retryable(err) {
			t.Errorf("not retryable: %v", err)
		}
	}
}

func TestOpenFails(t *testing.T) {
	t.Parallel()
	one, other := stacktest.Postgres(t), "postgres://app@127.0.0.1:1/none?sslmode=disable"
	for _, test := range []struct {
		config db.Config
		want   string
	}{
		{db.Config{}, "Config.Primary is empty"},
		{db.Config{Primary: one.URL, FallbackShare: 2, PollInterval: time.Hour}, "PollInterval"},
		{db.Config{Primary: other}, "127.0.0.1:1"},
		{db.Config{Primary: one.ReplicaURLs[0]}, "none of 1 servers is a primary"},
		{db.Config{Primary: strings.Replace(one.URL, "127.0.0.1", "127.0.0.1,localhost", 1)}, "two servers"},
	} {
		test.config.Logger = slog.New(slog.DiscardHandler)
		router, err := db.Open(t.Context(), test.config)
		if err == nil {
			router.Close()
			t.Errorf("no error: %s", test.want)
			continue
		}
		if !strings.Contains(err.Error(), test.want) {
			t.Errorf("want %q: %v", test.want, err)
		}
	}
}
