package migrate_test

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	"github.com/jackc/pgx/v5"

	"github.com/loadlinehq/loadline/inbox"
	"github.com/loadlinehq/loadline/internal/migrate"
	"github.com/loadlinehq/loadline/internal/stack/stacktest"
)

func sets() []migrate.Set {
	return []migrate.Set{
		{Name: "inbox", Files: inbox.Migrations},
		{Name: "other", Files: fstest.MapFS{"00001_t.sql": {Data: []byte("-- +goose Up\nCREATE TABLE loadline.other ();\n-- +goose Down\nDROP TABLE loadline.other;\n")}}},
	}
}

// Packages have versions of their own, and processes take turns.
func TestUp(t *testing.T) {
	t.Parallel()
	url := stacktest.Postgres(t).URL
	var mu sync.Mutex
	var all []string
	var wait sync.WaitGroup
	for range 3 {
		wait.Go(func() {
			applied, err := migrate.Up(t.Context(), url, sets()...)
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			all = append(all, applied...)
			mu.Unlock()
		})
	}
	wait.Wait()
	slices.Sort(all)
	if want := []string{"inbox/00001_inbox.sql", "inbox/00002_floors.sql", "other/00001_t.sql"}; !slices.Equal(all, want) {
		t.Errorf("applied %v, want each once: %v", all, want)
	}
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if _, err := conn.Exec(t.Context(), "SELECT FROM loadline.inbox, loadline.other, loadline.migrations_inbox"); err != nil {
		t.Error(err)
	}
}

// What is printed, another tool can run.
func TestPrint(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	if err := migrate.Print(&out, sets()...); err != nil {
		t.Fatal(err)
	}
	if text := out.String(); strings.Contains(text, "goose") || strings.Contains(text, "DROP") {
		t.Errorf("%s", text)
	}
	conn, err := pgx.Connect(t.Context(), stacktest.Postgres(t).URL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if _, err := conn.Exec(t.Context(), out.String()+"; SELECT FROM loadline.inbox, loadline.other"); err != nil {
		t.Error(err)
	}
	broken := migrate.Set{Name: "broken", Files: fstest.MapFS{"1.sql": {Data: []byte("SELECT 1")}}}
	if err := migrate.Print(&out, broken); err == nil {
		t.Error("a file without directions was printed")
	}
}
