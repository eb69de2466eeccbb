package pgstore_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/loadlinehq/loadline/causal"
	"github.com/loadlinehq/loadline/db"
	"github.com/loadlinehq/loadline/edge"
	"github.com/loadlinehq/loadline/edge/pgstore"
	"github.com/loadlinehq/loadline/internal/stack/stacktest"
)

var (
	quiet  = slog.New(slog.DiscardHandler)
	orders = fstest.MapFS{"00001_orders.sql": {Data: []byte("-- +goose Up\nCREATE TABLE orders (id int GENERATED ALWAYS AS IDENTITY, what text NOT NULL UNIQUE);\n")}}
)

// shop takes orders.
type shop struct {
	t       testing.TB
	router  *db.Router
	store   *pgstore.Store
	handler http.Handler
	runs    atomic.Int64
}

// newShop has the answer of handle to POST /, which is run with a key.
func newShop(t testing.TB, d *stacktest.Database, c pgstore.Config, handle func(s *shop, w http.ResponseWriter, r *http.Request)) *shop {
	t.Helper()
	router, err := db.Open(t.Context(), db.Config{Primary: d.URL, Replicas: d.ReplicaURLs, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(router.Close)
	s := &shop{t: t, router: router}
	c.Logger = quiet
	if s.store, err = pgstore.New(router, c); err != nil {
		t.Fatal(err)
	}
	idempotent, err := edge.Idempotency(edge.IdempotencyConfig{Store: s.store, Principal: func(*http.Request) string { return "" }, MaxAnswer: 1000, Errors: edge.Errors{Log: quiet}})
	if err != nil {
		t.Fatal(err)
	}
	s.handler = idempotent(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.runs.Add(1)
		handle(s, w, r)
	}))
	return s
}

func database(t testing.TB) *stacktest.Database {
	return stacktest.Postgres(t, stacktest.Migrated(orders, pgstore.Migrations))
}

// buy orders what the body says, in a transaction of its own, as it thinks.
func (s *shop) buy(ctx context.Context, what string) (id int, err error) {
	err = s.router.InTx(ctx, func(ctx context.Context, tx pgx.Tx) error {
		return tx.QueryRow(ctx, "insert into orders (what) values ($1) returning id", what).Scan(&id)
	})
	return id, err
}

func bought(s *shop, w http.ResponseWriter, r *http.Request) {
	what, _ := io.ReadAll(r.Body)
	id, err := s.buy(r.Context(), string(what))
	if err != nil {
		edge.Errors{Log: quiet}.Answer(w, r, &edge.Problem{Status: http.StatusUnprocessableEntity, Detail: "there is one"})
		return
	}
	w.Header().Set("Location", fmt.Sprint("/orders/", id))
	w.WriteHeader(http.StatusCreated)
	fmt.Fprintf(w, `{"order":%d}`, id)
}

func (s *shop) post(ctx context.Context, key, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequestWithContext(ctx, http.MethodPost, "/", strings.NewReader(body))
	r.Header.Set("Idempotency-Key", key)
	rec := httptest.NewRecorder()
	s.handler.ServeHTTP(rec, r)
	return rec
}

func (s *shop) count(table string) (n int) {
	s.t.Helper()
	if err := s.router.Write(s.t.Context()).QueryRow(s.t.Context(), "select count(*) from "+table).Scan(&n); err != nil {
		s.t.Fatal(err)
	}
	return n
}

// The record is in the transaction of the effect: the handler's own InTx joins it.
func TestEffectAndAnswer(t *testing.T) {
	t.Parallel()
	s := newShop(t, database(t), pgstore.Config{}, bought)
	first, again := s.post(t.Context(), "k", "tea"), s.post(t.Context(), "k", "tea")
	if first.Code != http.StatusCreated || again.Code != http.StatusCreated || first.Body.String() != again.Body.String() ||
		again.Header().Get("Location") != first.Header().Get("Location") || again.Header().Get(edge.ReplayedHeader) != "true" {
		t.Errorf("%d %s, then %d %s %v", first.Code, first.Body, again.Code, again.Body, again.Header())
	}
	if rec := s.post(t.Context(), "k", "coffee"); rec.Code != http.StatusUnprocessableEntity || !strings.Contains(rec.Body.String(), "reused") {
		t.Errorf("%d %s", rec.Code, rec.Body)
	}
	if s.runs.Load() != 1 || s.count("orders") != 1 || s.count("loadline.idempotency") != 1 {
		t.Errorf("%d runs", s.runs.Load())
	}
	// The handler's transaction fails and it says so: that is its answer, and nothing is kept.
	for range 2 {
		if rec := s.post(t.Context(), "l", "tea"); rec.Code != http.StatusUnprocessableEntity || !strings.Contains(rec.Body.String(), "there is one") {
			t.Errorf("%d %s", rec.Code, rec.Body)
		}
	}
	if s.runs.Load() != 3 || s.count("loadline.idempotency") != 1 {
		t.Errorf("%d runs, %d answers", s.runs.Load(), s.count("loadline.idempotency"))
	}
}

// Who fails has done nothing, and may be asked again.
func TestFailureUndoes(t *testing.T) {
	t.Parallel()
	fail := "5xx"
	s := newShop(t, database(t), pgstore.Config{}, func(s *shop, w http.ResponseWriter, r *http.Request) {
		what, _ := io.ReadAll(r.Body)
		id, err := s.buy(r.Context(), string(what))
		if err != nil {
			t.Error(err)
		}
		switch fail {
		case "5xx":
			w.WriteHeader(http.StatusBadGateway)
			return
		case "panic":
			panic("a bug")
		case "swallowed":
			_ = s.router.InTx(r.Context(), func(context.Context, pgx.Tx) error { return errors.New("nobody looks") })
		}
		fmt.Fprint(w, id)
	})
	s.handler = edge.Recover(edge.Errors{Log: quiet})(s.handler)
	for _, fail = range []string{"5xx", "panic", "swallowed"} {
		if rec := s.post(t.Context(), "k", "tea"); rec.Code < 500 || s.count("orders") != 0 || s.count("loadline.idempotency") != 0 {
			t.Errorf("%s: %d, and %d orders", fail, rec.Code, s.count("orders"))
		}
	}
	fail = ""
	if rec := s.post(t.Context(), "k", "tea"); rec.Code != http.StatusOK || s.count("orders") != 1 {
		t.Errorf("%d", rec.Code)
	}
}

// A repetition does not wait for the first one, and does not hold a connection.
func TestInFlight(t *testing.T) {
	t.Parallel()
	began, end := make(chan struct{}), make(chan struct{})
	s := newShop(t, database(t), pgstore.Config{}, func(s *shop, w http.ResponseWriter, r *http.Request) {
		close(began)
		<-end
		bought(s, w, r)
	})
	var first *httptest.ResponseRecorder
	var wait sync.WaitGroup
	wait.Go(func() { first = s.post(t.Context(), "k", "tea") })
	<-began
	for range 50 {
		if rec := s.post(t.Context(), "k", "tea"); rec.Code != http.StatusConflict || rec.Header().Get("Retry-After") != "1" {
			t.Errorf("%d %v", rec.Code, rec.Header())
		}
	}
	if rec := s.post(t.Context(), "k", "coffee"); rec.Code != http.StatusConflict { // nobody knows yet what the first is
		t.Errorf("%d", rec.Code)
	}
	close(end)
	wait.Wait()
	if again := s.post(t.Context(), "k", "tea"); first.Code != http.StatusCreated || again.Body.String() != first.Body.String() {
		t.Errorf("%d %s, %d %s", first.Code, first.Body, again.Code, again.Body)
	}
}

// The answer is sent when its effect is committed, with the token; and so is a replay.
func TestTokenOfCommit(t *testing.T) {
	t.Parallel()
	s := newShop(t, database(t), pgstore.Config{}, bought)
	sees := func(ctx context.Context) bool {
		var n int
		if err := s.router.Read(ctx).QueryRow(ctx, "select count(*) from orders").Scan(&n); err != nil {
			t.Error(err)
		}
		return n == 1
	}
	for _, who := range []string{"the first", "a repetition"} {
		session := causal.NewSession(causal.Token{})
		ctx := causal.WithSession(t.Context(), session)
		if rec := s.post(ctx, "k", "tea"); rec.Code != http.StatusCreated {
			t.Errorf("%s: %d", who, rec.Code)
		}
		if session.Token().IsZero() || !sees(ctx) {
			t.Errorf("%s has not seen the effect: %v", who, session.Token())
		}
	}
}

// Answers end, are deleted, and a key can be used again.
func TestExpiry(t *testing.T) {
	t.Parallel()
	s := newShop(t, database(t), pgstore.Config{TTL: time.Second}, func(s *shop, w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, s.runs.Load()) })
	for i := range 5 {
		s.post(t.Context(), fmt.Sprint("key ", i), "tea")
	}
	time.Sleep(1100 * time.Millisecond)
	if rec := s.post(t.Context(), "key 0", "coffee"); rec.Body.String() != "6" {
		t.Errorf("what has expired is given again: %s", rec.Body)
	}
	if n, err := s.store.Purge(t.Context(), 3); n != 3 || err != nil {
		t.Errorf("%d are deleted, %v", n, err)
	}
	if n, err := s.store.Purge(t.Context(), 3); n != 1 || err != nil || s.count("loadline.idempotency") != 1 {
		t.Errorf("%d are deleted, %v, and there are %d", n, err, s.count("loadline.idempotency"))
	}
	d := database(t)
	other := newShop(t, d, pgstore.Config{TTL: time.Second, Purge: 50 * time.Millisecond}, bought)
	other.post(t.Context(), "k", "tea")
	ctx, cancel := context.WithCancel(t.Context())
	var wait sync.WaitGroup
	wait.Go(func() {
		if err := other.store.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	for limit := time.Now().Add(10 * time.Second); other.count("loadline.idempotency") > 0; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatal("it is not deleted")
		}
	}
	cancel()
	wait.Wait()
}

// A transaction whose snapshot is older than its lock does not see what was committed in between; the key does.
func TestOlderSnapshot(t *testing.T) {
	t.Parallel()
	d := database(t)
	s := newShop(t, d, pgstore.Config{}, bought)
	for _, level := range []string{"repeatable read", "serializable"} {
		var once sync.Once
		stale := &old{router: s.router, level: level, between: func() { once.Do(func() { s.post(t.Context(), level, level) }) }}
		store, err := pgstore.New(stale, pgstore.Config{})
		if err != nil {
			t.Fatal(err)
		}
		idempotent, err := edge.Idempotency(edge.IdempotencyConfig{Store: store, Principal: func(*http.Request) string { return "" }})
		if err != nil {
			t.Fatal(err)
		}
		late := &shop{t: t, handler: idempotent(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot - 218) }))}
		if rec := late.post(t.Context(), level, level); rec.Code != http.StatusCreated || rec.Header().Get(edge.ReplayedHeader) != "true" {
			t.Errorf("%s: %d %v", level, rec.Code, rec.Header())
		}
	}
}

// old has transactions with a snapshot from before something else.
type old struct {
	router  *db.Router
	level   string
	between func()
}

func (o *old) InTx(ctx context.Context, f func(context.Context, pgx.Tx) error) error {
	tx, err := o.router.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.TxIsoLevel(o.level)})
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	if _, err := tx.Exec(ctx, "select count(*) from orders"); err != nil {
		return err
	}
	o.between()
	if err := f(ctx, tx); err != nil {
		return err
	}
	return tx.Commit(ctx)
}

func TestWithoutTable(t *testing.T) {
	t.Parallel()
	s := newShop(t, stacktest.Postgres(t), pgstore.Config{}, bought)
	_, _, err := s.store.Do(t.Context(), edge.Attempt{Key: "k"}, nil)
	if err == nil || !strings.Contains(err.Error(), "pgstore.Migrations") {
		t.Errorf("%v", err)
	}
	if _, err := pgstore.New(nil, pgstore.Config{TTL: 1}); err == nil || !strings.Contains(err.Error(), "TTL") {
		t.Errorf("%v", err)
	}
}
