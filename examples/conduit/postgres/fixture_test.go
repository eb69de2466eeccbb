package postgres_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"

	"github.com/loadlinehq/loadline/examples/conduit"
	"github.com/loadlinehq/loadline/examples/conduit/postgres"
	"github.com/loadlinehq/loadline/internal/stack/stacktest"
)

// fixture is a store on a database of its own.
type fixture struct {
	*postgres.Store
	db  postgres.DB
	url string
}

func newFixture(t *testing.T) fixture {
	t.Helper()
	env := stacktest.Postgres(t, stacktest.Migrated(postgres.Migrations))
	db, err := postgres.Open(t.Context(), postgres.Config{URL: env.URL, MaxConns: 8})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	return fixture{postgres.NewStore(db, postgres.Immediately{}), db, env.URL}
}

// newReplicatedFixture is a fixture that reads from replicas.
func newReplicatedFixture(t *testing.T) fixture {
	t.Helper()
	env := stacktest.Postgres(t, stacktest.Migrated(postgres.Migrations))
	db, err := postgres.OpenReplicated(t.Context(), postgres.Config{URL: env.URL, Replicas: env.ReplicaURLs, MaxConns: 8}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- db.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		db.Close()
	})
	return fixture{postgres.NewStore(db, postgres.Immediately{}), db, env.URL}
}

// user registers a user and returns its id.
func (f fixture) user(t *testing.T, name string) int64 {
	t.Helper()
	user, err := f.CreateUser(t.Context(), conduit.Registration{Username: name, Email: name + "@example.com"}, "hash")
	if err != nil {
		t.Fatal(err)
	}
	return user.ID
}

// article publishes an article and returns it.
func (f fixture) article(t *testing.T, author int64, title string, tags ...string) conduit.Article {
	t.Helper()
	article, err := f.CreateArticle(t.Context(), author, conduit.Draft{Title: title, Description: "d", Body: "b", TagList: tags})
	if err != nil {
		t.Fatal(err)
	}
	return article
}

// exec runs a statement past the store.
func (f fixture) exec(t *testing.T, statement string, args ...any) {
	t.Helper()
	if _, err := f.db.Write(t.Context()).Exec(t.Context(), statement, args...); err != nil {
		t.Fatal(err)
	}
}

func wantErr(t *testing.T, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}
