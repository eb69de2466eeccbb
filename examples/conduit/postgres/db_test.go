package postgres_test

import (
	"context"
	"errors"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/loadlinehq/loadline/causal"
	"github.com/loadlinehq/loadline/db"
	"github.com/loadlinehq/loadline/examples/conduit"
	"github.com/loadlinehq/loadline/examples/conduit/postgres"
	"github.com/loadlinehq/loadline/examples/conduit/postgres/sqlc"
)

// Both forms of the database keep transactions, and a session sees what it wrote.
func TestTransactions(t *testing.T) {
	t.Parallel()
	t.Run("primary", func(t *testing.T) { testTransactions(t, newFixture(t)) })
	t.Run("replicated", func(t *testing.T) { testTransactions(t, newReplicatedFixture(t)) })
}

func testTransactions(t *testing.T, f fixture) {
	ctx := causal.WithSession(t.Context(), causal.NewSession(causal.Token{}))
	jake := f.user(t, "jake")
	f.article(t, jake, "Taken")
	errUndo := errors.New("undo")

	// The store joins a transaction, and an attempt at a taken slug does not
	// end it.
	var slug string
	work := func(result error) error {
		return f.db.InTx(ctx, func(ctx context.Context) error {
			article, err := f.CreateArticle(ctx, jake, conduit.Draft{Title: "Mine", Description: "d", Body: "b"})
			if err != nil {
				return err
			}
			if article, err = f.UpdateArticle(ctx, jake, article.Slug, conduit.ArticleChange{Title: new("Taken")}); err != nil {
				return err
			}
			if _, err = f.Article(ctx, article.Slug); err != nil {
				return err
			}
			slug = article.Slug
			return result
		})
	}
	wantErr(t, "a transaction rolled back", work(errUndo), errUndo)
	_, err := f.Article(ctx, slug)
	wantErr(t, "after the rollback", err, conduit.ErrArticleNotFound)
	if err := work(nil); err != nil {
		t.Error(err)
	}
	if _, err := f.Article(ctx, slug); err != nil {
		t.Errorf("after the commit: %v", err)
	}
}

func TestUnavailable(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ctx, cancel := context.WithTimeout(t.Context(), 0)
	defer cancel()
	_, err := f.Article(ctx, "slug")
	wantErr(t, "after the deadline", err, conduit.ErrUnavailable)

	// The server ends the connection, as it does when it shuts down.
	err = f.db.InTx(t.Context(), func(ctx context.Context) error {
		var pid int
		if err := f.db.Read(ctx).QueryRow(ctx, "SELECT pg_backend_pid()").Scan(&pid); err != nil {
			return err
		}
		admin, err := pgx.Connect(ctx, f.url)
		if err != nil {
			return err
		}
		defer admin.Close(ctx)
		if _, err := admin.Exec(ctx, "SELECT pg_terminate_backend($1)", pid); err != nil {
			return err
		}
		_, err = f.Article(ctx, "slug")
		return err
	})
	wantErr(t, "after the connection's end", err, conduit.ErrUnavailable)
	_, err = f.Article(t.Context(), "slug")
	wantErr(t, "on a new connection", err, conduit.ErrArticleNotFound)
}

// broken is a database that fails.
type broken struct{ err error }

func (b broken) Read(context.Context) sqlc.DBTX                          { panic("not used") }
func (b broken) Write(context.Context) sqlc.DBTX                         { panic("not used") }
func (b broken) InTx(context.Context, func(context.Context) error) error { return b.err }

// What the router says in its way, the domain says in its own.
func TestRouterErrors(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		err, want error // want nil: neither
	}{
		{db.ErrPoolSaturated, conduit.ErrUnavailable},
		{db.ErrNoEligibleNode, conduit.ErrUnavailable},
		{db.ErrClosed, conduit.ErrUnavailable},
		{&db.OutcomeUnknownError{Err: errors.New("broken")}, conduit.ErrOutcomeUnknown},
		{&db.ReadOnlyError{}, nil},
		{db.ErrRolledBack, nil},
	} {
		_, err := postgres.NewStore(broken{test.err}, postgres.Immediately{}).CreateArticle(t.Context(), 1, conduit.Draft{})
		for _, known := range []error{conduit.ErrUnavailable, conduit.ErrOutcomeUnknown} {
			if errors.Is(err, known) != (known == test.want) {
				t.Errorf("%v became %v", test.err, err)
			}
		}
	}
}
