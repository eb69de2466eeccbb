package db_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/loadlinehq/loadline/causal"
	"github.com/loadlinehq/loadline/db"
	"github.com/loadlinehq/loadline/tenancy"
)

// pair is a row of t.
type pair struct{ id, n int }

func batchArgs(rows []pair) []any {
	ids, ns := make([]int, len(rows)), make([]int, len(rows))
	for i, r := range rows {
		ids[i], ns[i] = r.id, r.n
	}
	return []any{ids, ns}
}

const batchSQL = "INSERT INTO t SELECT * FROM unnest($1::int[], $2::int[])"

func batcher(t testing.TB, router *db.Router, change func(*db.BatcherConfig[pair])) *db.Batcher[pair] {
	t.Helper()
	c := db.BatcherConfig[pair]{SQL: batchSQL, Args: batchArgs}
	if change != nil {
		change(&c)
	}
	b, err := db.NewBatcher(router, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return b
}

func rowsOf(t *testing.T, router *db.Router, where string) (n int) {
	t.Helper()
	ctx := context.Background()
	if err := router.Read(ctx, db.Strong()).QueryRow(ctx, "SELECT count(*) FROM t WHERE "+where).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// Rows of many go together, and each caller sees its own when it is told so.
func TestBatcher(t *testing.T) {
	t.Parallel()
	router := open(t, nil)
	var statements atomic.Int64
	b := batcher(t, router, func(c *db.BatcherConfig[pair]) {
		c.Args = func(rows []pair) []any { statements.Add(1); return batchArgs(rows) }
	})
	const callers, each = 64, 5
	var calling sync.WaitGroup
	for c := range callers {
		calling.Go(func() {
			for i := range each {
				ctx, id := client(t), c*each+i
				if err := b.Do(ctx, pair{id, 7}); err != nil {
					t.Error(err)
					return
				}
				var n int
				if err := router.Read(ctx).QueryRow(ctx, "SELECT n FROM t WHERE id = $1", id).Scan(&n); err != nil || n != 7 {
					t.Errorf("row %d: %d, %v", id, n, err)
				}
			}
		})
	}
	calling.Wait()
	if n := statements.Load(); n >= callers*each {
		t.Errorf("%d rows took %d statements", callers*each, n)
	}
	if n := rowsOf(t, router, "true"); n != callers*each {
		t.Errorf("%d rows, want %d", n, callers*each)
	}
}

// Bad rows fail with their own errors, and nobody else's.
func TestBatcherBadRows(t *testing.T) {
	t.Parallel()
	router := open(t, nil)
	ctx := t.Context()
	if _, err := router.Write(ctx).Exec(ctx, "INSERT INTO t VALUES (17), (40); ALTER TABLE t ADD CHECK (n <> 13)"); err != nil {
		t.Fatal(err)
	}
	b := batcher(t, router, func(c *db.BatcherConfig[pair]) { c.Delay, c.AtOnce = 100*time.Millisecond, 1 })
	var calling sync.WaitGroup
	for i := range 100 {
		calling.Go(func() {
			row, want := pair{i, 1}, ""
			switch i {
			case 17, 40:
				want = "23505"
			case 50:
				row.n, want = 13, "23514"
			}
			err := b.Do(ctx, row)
			pg, _ := errors.AsType[*pgconn.PgError](err)
			if got := ""; err != nil {
				if pg != nil {
					got = pg.Code
				}
				if got != want {
					t.Errorf("row %d: %v", i, err)
				}
			} else if want != "" {
				t.Errorf("row %d is taken", i)
			}
		})
	}
	// Two of one key: one is the first.
	var taken atomic.Int64
	for range 2 {
		calling.Go(func() {
			if b.Do(ctx, pair{1000, 1}) == nil {
				taken.Add(1)
			}
		})
	}
	calling.Wait()
	if n := rowsOf(t, router, "n = 1"); n != 98 || taken.Load() != 1 {
		t.Errorf("%d rows, want 98; of two alike %d were taken", n, taken.Load())
	}
}

// Who gives up before his row is sent has written nothing; afterwards he cannot know. What waits is bounded, and written at the end.
func TestBatcherBounds(t *testing.T) {
	t.Parallel()
	router := open(t, nil)
	b, err := db.NewBatcher(router, db.BatcherConfig[pair]{SQL: batchSQL, Args: batchArgs, AtOnce: 1, Queue: 4, Timeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	locked, unlock := make(chan bool), make(chan bool)
	var working sync.WaitGroup
	working.Go(func() {
		err := router.InTx(t.Context(), func(ctx context.Context, tx pgx.Tx) error {
			_, err := tx.Exec(ctx, "LOCK TABLE t")
			locked <- true
			<-unlock
			return err
		})
		if err != nil {
			t.Error(err)
		}
	})
	<-locked
	do := func(id int, wait time.Duration) error {
		ctx, cancel := context.WithTimeout(context.Background(), wait)
		defer cancel()
		return b.Do(ctx, pair{id, 1})
	}
	sent := make(chan error)
	first, giveUp := context.WithCancel(context.Background())
	go func() { sent <- b.Do(first, pair{1, 1}) }()
	for limit := time.Now().Add(20 * time.Second); time.Now().Before(limit); time.Sleep(10 * time.Millisecond) {
		var waiting int
		if err := router.Read(t.Context(), db.Strong()).QueryRow(t.Context(), "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 't'::regclass").Scan(&waiting); err != nil {
			t.Fatal(err)
		}
		if waiting > 0 {
			break
		}
	}
	if err := do(2, 50*time.Millisecond); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, db.ErrOutcomeUnknown) {
		t.Errorf("not sent: %v", err)
	}
	waits := make(chan error, 2)
	for id := 3; id < 5; id++ {
		go func() { waits <- do(id, time.Minute) }()
	}
	for n := 0; ; n++ { // who gives up has a place until its turn
		err := do(5, 100*time.Millisecond)
		if errors.Is(err, db.ErrPoolSaturated) {
			break
		}
		if n == 10 || !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("too many: %v", err)
		}
	}
	giveUp()
	if err := <-sent; !errors.Is(err, db.ErrOutcomeUnknown) {
		t.Errorf("sent: %v", err)
	}
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := b.Close(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("closed while a statement runs: %v", err)
	}
	if err := do(6, time.Second); !errors.Is(err, db.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	unlock <- true
	working.Wait()
	if err := b.Close(t.Context()); err != nil {
		t.Error(err)
	}
	for range 2 {
		if err := <-waits; err != nil {
			t.Error(err)
		}
	}
	if n := rowsOf(t, router, "id IN (1, 3, 4)"); n != 3 || rowsOf(t, router, "true") != 3 {
		t.Errorf("%d of 3 rows, %d in all", n, rowsOf(t, router, "true"))
	}
}

// The rows of a statement are of one tenant, whose context it has; a transaction's are its own.
func TestBatcherTenantsAndTransactions(t *testing.T) {
	t.Parallel()
	router := open(t, nil)
	b := batcher(t, router, func(c *db.BatcherConfig[pair]) {
		c.Delay = 50 * time.Millisecond
		c.Args = func(rows []pair) []any {
			for _, r := range rows {
				if r.n != rows[0].n {
					panic("tenants are mixed")
				}
			}
			return batchArgs(rows)
		}
	})
	var calling sync.WaitGroup
	for i := range 60 {
		calling.Go(func() {
			ctx, err := tenancy.With(t.Context(), fmt.Sprint("tenant", i%3))
			if err == nil {
				err = b.Do(ctx, pair{i, i % 3})
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	calling.Wait()
	if n := rowsOf(t, router, "true"); n != 60 {
		t.Errorf("%d rows", n)
	}
	undone := errors.New("undone")
	err := router.InTx(t.Context(), func(ctx context.Context, tx pgx.Tx) error {
		if err := b.Do(ctx, pair{100, 1}); err != nil {
			return err
		}
		var n int
		if err := tx.QueryRow(ctx, "SELECT n FROM t WHERE id = 100").Scan(&n); err != nil {
			return err
		}
		return undone
	})
	if !errors.Is(err, undone) || rowsOf(t, router, "id = 100") != 0 {
		t.Error(err)
	}
}

// A panic of the application's is an error, and results come by what rows are known by.
func TestBatcherScan(t *testing.T) {
	t.Parallel()
	router := open(t, nil)
	type row struct {
		id, twice int
	}
	b, err := db.NewBatcher(router, db.BatcherConfig[*row]{
		SQL: "INSERT INTO t SELECT id, 2 * id FROM unnest($1::int[]) AS id RETURNING id, n",
		Args: func(rows []*row) []any {
			ids := make([]int, len(rows))
			for i, r := range rows {
				ids[i] = r.id
			}
			return []any{ids}
		},
		Scan: func(returned pgx.Rows, rows []*row) error {
			by := make(map[int]*row, len(rows))
			for _, r := range rows {
				by[r.id] = r
			}
			var id, n int
			_, err := pgx.ForEachRow(returned, []any{&id, &n}, func() error { by[id].twice = n; return nil })
			return err
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close(context.Background())
	var calling sync.WaitGroup
	for i := range 50 {
		calling.Go(func() {
			r := &row{id: i}
			if err := b.Do(t.Context(), r); err != nil || r.twice != 2*i {
				t.Errorf("%d: %d, %v", i, r.twice, err)
			}
		})
	}
	calling.Wait()
	if err := b.Do(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "nil pointer") {
		t.Errorf("a panic: %v", err)
	}
	if _, err := db.NewBatcher(router, db.BatcherConfig[int]{MaxRows: -1}); err == nil || strings.Count(err.Error(), "BatcherConfig.") != 3 {
		t.Error(err)
	}
}

// Rows of 64 callers, by a batcher and each by itself.
func BenchmarkBatcher(b *testing.B) {
	router := open(b, nil)
	batched := batcher(b, router, nil)
	var id atomic.Int64
	all := func(do func(ctx context.Context, row pair) error) func() error {
		return func() error {
			var calling sync.WaitGroup
			failed := make(chan error, 64)
			for range 64 {
				calling.Go(func() {
					for range 20 {
						ctx := causal.WithSession(b.Context(), causal.NewSession(causal.Token{}))
						if err := do(ctx, pair{int(id.Add(1)), 1}); err != nil {
							failed <- err
							return
						}
					}
				})
			}
			calling.Wait()
			select {
			case err := <-failed:
				return err
			default:
				return nil
			}
		}
	}
	compare(b, "1,280 rows of 64 callers, each by itself / by a batcher", 20, all(batched.Do), all(func(ctx context.Context, row pair) error {
		_, err := router.Write(ctx).Exec(ctx, "INSERT INTO t VALUES ($1, $2)", row.id, row.n)
		return err
	}), 1)
}
