package postgres_test

import (
	"database/sql"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/pressly/goose/v3"

	"github.com/loadlinehq/loadline/examples/conduit/postgres"
	"github.com/loadlinehq/loadline/internal/stack/stacktest"
)

func TestMigrateAtOnce(t *testing.T) {
	t.Parallel()
	env := stacktest.Postgres(t)
	var applied atomic.Int64
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			names, err := postgres.Migrate(t.Context(), env.URL)
			if err != nil {
				t.Error(err)
			}
			applied.Add(int64(len(names)))
		})
	}
	wg.Wait()
	if applied.Load() != 2 {
		t.Errorf("%d migrations were applied, want 2", applied.Load())
	}
}

func TestMigrationsAreReversible(t *testing.T) {
	t.Parallel()
	env := stacktest.Postgres(t)
	db, err := sql.Open("pgx", env.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	provider, err := goose.NewProvider(goose.DialectPostgres, db, postgres.Migrations)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := provider.Up(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := provider.DownTo(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
	}
	var left int
	err = db.QueryRowContext(t.Context(), `
		SELECT (SELECT count(*) FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
				WHERE n.nspname = 'public' AND c.relname NOT LIKE 'goose%')
			+ (SELECT count(*) FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
				WHERE n.nspname = 'public')`).Scan(&left)
	if err != nil || left != 0 {
		t.Errorf("%d objects are left, %v", left, err)
	}
}
