package outbox_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/loadlinehq/loadline/events"
	"github.com/loadlinehq/loadline/internal/stack/stacktest"
	"github.com/loadlinehq/loadline/outbox"
)

// changed is an event of a key, with the number that its writer has counted.
type changed struct {
	Key string `json:"key"`
	N   int64  `json:"n"`
}

var keyed = events.Define("thing.changed", events.V1, events.KeyedBy(func(c changed) string { return c.Key }))

// event makes the n-th of a key.
func event(t testing.TB, key string, n int64) events.Message {
	t.Helper()
	m, err := keyed.New(changed{key, n}, events.KeyVersion(n))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// migrations are the outbox's, and a table for writers' own work.
var migrations = func() fstest.MapFS {
	all := fstest.MapFS{"00001_thing.sql": {Data: []byte(`-- +goose Up
CREATE TABLE thing (key text PRIMARY KEY, n bigint NOT NULL);
CREATE TABLE work (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, text text NOT NULL);
-- +goose Down
DROP TABLE work;
DROP TABLE thing;
`)}}
	entries, err := outbox.Migrations.(interface {
		Glob(string) ([]string, error)
	}).Glob("*.sql")
	if err != nil {
		panic(err)
	}
	for _, name := range entries {
		data, err := outbox.Migrations.(interface{ ReadFile(string) ([]byte, error) }).ReadFile(name)
		if err != nil {
			panic(err)
		}
		all[name] = &fstest.MapFile{Data: data}
	}
	return all
}()

// database is a test's own, with a pool on it.
type database struct {
	*stacktest.Database
	*pgxpool.Pool
	t testing.TB
}

func open(t testing.TB) *database {
	t.Helper()
	d := stacktest.Postgres(t, stacktest.Migrated(migrations))
	return &database{d, pool(t, d.URL), t}
}

func pool(t testing.TB, url string) *pgxpool.Pool {
	t.Helper()
	c, err := pgxpool.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	c.MaxConns = 32
	p, err := pgxpool.NewWithConfig(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// int asks for a number.
func (d *database) int(sql string, args ...any) int64 {
	d.t.Helper()
	var n int64
	if err := d.QueryRow(context.Background(), sql, args...).Scan(&n); err != nil {
		d.t.Fatalf("%s: %v", sql, err)
	}
	return n
}

func (d *database) exec(sql string, args ...any) {
	d.t.Helper()
	if _, err := d.Exec(context.Background(), sql, args...); err != nil {
		d.t.Fatalf("%s: %v", sql, err)
	}
}

// add adds events in a transaction of their own.
func (d *database) add(messages ...events.Message) {
	d.t.Helper()
	err := pgx.BeginFunc(context.Background(), d.Pool, func(tx pgx.Tx) error { return outbox.Add(context.Background(), tx, messages...) })
	if err != nil {
		d.t.Fatal(err)
	}
}

// broker is a driver that keeps what it gets, and fails as it is told to.
type broker struct {
	mu      sync.Mutex
	got     []events.Raw
	publish func(ctx context.Context, messages []events.Raw) []error // nil: takes all
	calls   int
}

func (b *broker) Publish(ctx context.Context, messages []events.Raw) []error {
	b.mu.Lock()
	f := b.publish
	b.calls++
	b.mu.Unlock()
	if f != nil {
		return f(ctx, messages)
	}
	return b.take(messages...)
}

func (b *broker) take(messages ...events.Raw) []error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.got = append(b.got, messages...)
	return make([]error, len(messages))
}

// does changes what it does.
func (b *broker) does(publish func(ctx context.Context, messages []events.Raw) []error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.publish = publish
}

func (b *broker) all() []events.Raw {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.got)
}

func (b *broker) ids() map[string]bool {
	ids := make(map[string]bool)
	for _, raw := range b.all() {
		ids[raw.ID] = true
	}
	return ids
}

func (*broker) Subscribe(context.Context, events.Subscription, func(events.Delivery)) error {
	return errors.ErrUnsupported
}

func (*broker) Capabilities() events.Capabilities { return events.Capabilities{Name: "test"} }

// all returns the same error for each.
func every(messages []events.Raw, err error) []error {
	errs := make([]error, len(messages))
	for i := range errs {
		errs[i] = err
	}
	return errs
}

// keyOf and versionOf read an envelope's headers.
func keyOf(raw events.Raw) string { return raw.Header["ce-partitionkey"] }

func versionOf(raw events.Raw) int64 {
	n, _ := strconv.ParseInt(raw.Header["ce-keyversion"], 10, 64)
	return n
}

// inversions counts events whose first coming is after that of a later one of their key.
func inversions(got []events.Raw) int {
	count := 0
	seen, highest := make(map[string]bool), make(map[string]int64)
	for _, raw := range got {
		if seen[raw.ID] {
			continue
		}
		seen[raw.ID] = true
		if key := keyOf(raw); versionOf(raw) < highest[key] {
			count++
		} else {
			highest[key] = versionOf(raw)
		}
	}
	return count
}

// quick is a configuration whose waits are short.
func quick(d *database, b events.Driver) outbox.RelayConfig {
	return outbox.RelayConfig{
		Pool: d.Pool, Driver: b, Source: "/test", Poll: 50 * time.Millisecond, RetryDelay: 10 * time.Millisecond,
		StatementTimeout: 2 * time.Second, LeaseTTL: 3 * time.Second, PublishTimeout: time.Second,
		Logger: slog.New(slog.NewTextHandler(testLog{d.t}, nil)),
	}
}

type testLog struct{ t testing.TB }

func (l testLog) Write(b []byte) (int, error) {
	l.t.Log(strings.TrimSpace(string(b)))
	return len(b), nil
}

// relay runs one until the test ends, or stop is called.
func relay(t testing.TB, c outbox.RelayConfig) (r *outbox.Relay, stop func()) {
	t.Helper()
	r, err := outbox.NewRelay(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wait sync.WaitGroup
	wait.Go(func() {
		if err := r.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	stop = func() { cancel(); wait.Wait() }
	t.Cleanup(stop)
	return r, stop
}

// within waits for a condition.
func within(t testing.TB, limit time.Duration, condition func() error) {
	t.Helper()
	end := time.Now().Add(limit)
	for {
		err := condition()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("after %v: %v", limit, err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// published waits until the broker has got so many events, without duplicates.
func published(t testing.TB, b *broker, want int) {
	t.Helper()
	within(t, 20*time.Second, func() error {
		if n := len(b.ids()); n != want {
			return fmt.Errorf("%d events were published, want %d", n, want)
		}
		return nil
	})
}

// empty waits until the outbox is.
func (d *database) empty() {
	d.t.Helper()
	within(d.t, 20*time.Second, func() error {
		if n := d.int("select count(*) from loadline.outbox"); n != 0 {
			return fmt.Errorf("%d rows are in the outbox", n)
		}
		return nil
	})
}
