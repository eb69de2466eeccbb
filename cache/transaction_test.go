package cache_test

import (
	"context"
	"errors"
	"testing"
	"testing/fstest"

	"github.com/jackc/pgx/v5"

	"github.com/loadlinehq/loadline/cache"
	"github.com/loadlinehq/loadline/causal"
	"github.com/loadlinehq/loadline/db"
	"github.com/loadlinehq/loadline/internal/stack/stacktest"
)

// What a transaction reads is nobody else's: it may be rolled back, or be of an old snapshot. What it invalidates is
// invalidated when it has been committed.
func TestReadInTransaction(t *testing.T) {
	t.Parallel()
	files := fstest.MapFS{"00001_item.sql": {Data: []byte("-- +goose Up\nCREATE TABLE item (id int PRIMARY KEY, version bigint NOT NULL);\nINSERT INTO item VALUES (1, 1), (2, 1);\n")}}
	d := stacktest.Postgres(t, stacktest.Migrated(files))
	router, err := db.Open(t.Context(), db.Config{Primary: d.URL})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(router.Close)
	store := open(t, cache.StoreConfig{})
	items, err := cache.New(store, cache.Config[int, int64]{Name: "item", Class: cache.Hot()})
	if err != nil {
		t.Fatal(err)
	}
	load := func(ctx context.Context) (version int64, err error) {
		err = router.Read(ctx).QueryRow(ctx, "select version from item where id = 1").Scan(&version)
		return version, err
	}
	many := func(ctx context.Context, _ []int) (map[int]int64, error) {
		version, err := load(ctx)
		return map[int]int64{1: version}, err
	}
	want := func(ctx context.Context, who string, want int64) {
		t.Helper()
		got, err := items.Get(ctx, 1, load)
		if err != nil || got != want {
			t.Errorf("%s gets %d, %v, and not %d", who, got, err, want)
		}
		all, err := items.GetMany(ctx, []int{1}, many)
		if err != nil || all[1] != want {
			t.Errorf("%s gets %v, %v of many, and not %d", who, all, err, want)
		}
	}
	write := func(ctx context.Context, version int64) {
		t.Helper()
		if _, err := router.Write(ctx).Exec(ctx, "update item set version = $1 where id = 1", version); err != nil {
			t.Fatal(err)
		}
		if err := store.Invalidate(ctx, items.Key(ctx, 1)); err != nil {
			t.Fatal(err)
		}
	}
	undone := errors.New("undone")
	session := func() context.Context {
		return causal.WithSession(t.Context(), causal.NewSession(causal.Token{}))
	}

	// Of what nobody has cached yet.
	if err := router.InTx(t.Context(), func(ctx context.Context, _ pgx.Tx) error {
		write(ctx, 2)
		want(ctx, "the transaction", 2)
		return undone
	}); !errors.Is(err, undone) {
		t.Fatal(err)
	}
	want(t.Context(), "a reader after a rollback", 1)

	// Of what is cached.
	if err := router.InTx(session(), func(ctx context.Context, _ pgx.Tx) error {
		write(ctx, 3)
		want(ctx, "the transaction", 3)
		want(t.Context(), "a reader before the commit", 1)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	want(t.Context(), "a reader after the commit", 3)

	if err := router.ReadTx(t.Context(), func(ctx context.Context, _ pgx.Tx) error {
		want(ctx, "the snapshot", 3)
		write(t.Context(), 4)
		want(ctx, "the snapshot after a write", 3)
		want(t.Context(), "a reader beside the snapshot", 4)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	want(t.Context(), "a reader after the snapshot", 4)
	if _, err := items.Get(t.Context(), 2, func(ctx context.Context) (n int64, err error) {
		err = router.InTx(ctx, func(ctx context.Context, _ pgx.Tx) error {
			_, err := items.Get(ctx, 1, func(context.Context) (int64, error) { panic("a bug") })
			return err
		})
		return 0, err
	}); err == nil {
		t.Error("a load's panic in a transaction is no error")
	}
}

// A session is given what is cached after its transaction when all that the transaction has written was spoken for.
func TestSessionOfTransaction(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	store := f.process()
	c := articles(t, store, cache.Hot())
	whole := func(ctx context.Context) error { return store.Invalidate(ctx, c.Key(ctx, "a")) }
	nothing := func(ctx context.Context) error { return store.Invalidate(ctx) }
	part := func(ctx context.Context) error { return c.Invalidate(ctx, "a") }
	var s source
	loads := func() int64 { get(t, c, &s, "a"); return s.loads.Load() }
	for name, test := range map[string]struct {
		parts int
		calls []func(context.Context) error
		told  bool
	}{
		"one write":                        {1, []func(context.Context) error{whole}, true},
		"statements of its own":            {0, []func(context.Context) error{whole}, true},
		"two writes":                       {2, []func(context.Context) error{whole, nothing}, true},
		"one of two writes":                {2, []func(context.Context) error{whole}, false},
		"one write, said twice":            {1, []func(context.Context) error{whole, whole}, false},
		"a part of a write":                {1, []func(context.Context) error{part}, false},
		"a part, and all":                  {2, []func(context.Context) error{part, whole}, false},
		"nobody knows whether it has been": {-1, []func(context.Context) error{whole}, false},
	} {
		session := causal.NewSession(causal.Token{})
		outer := causal.WithSession(t.Context(), session)
		ctx, transaction := causal.WithTransaction(outer)
		before := loads()
		for i := range max(test.parts, len(test.calls)) {
			if i < test.parts {
				transaction.Part()
			}
			if i < len(test.calls) {
				if err := test.calls[i](ctx); err != nil {
					t.Error(err)
				}
			}
		}
		if loads() != before {
			t.Errorf("%s: invalidated before the commit", name)
		}
		session.Add(at(2000))
		if test.parts < 0 {
			transaction.Unknown(outer)
		} else {
			transaction.Committed(outer)
		}
		f.until("it is invalidated", func() bool { return loads() > before })
		if m, _ := session.Token().Mark(system); (m.Number != 0) != test.told {
			t.Errorf("%s: the session's mark is %+v", name, m)
		}
	}
	// What comes after the end is done at once.
	ctx, transaction := causal.WithTransaction(t.Context())
	transaction.RolledBack()
	before := loads()
	if err := whole(ctx); err != nil {
		t.Fatal(err)
	}
	f.until("it is invalidated", func() bool { return loads() > before })
}
