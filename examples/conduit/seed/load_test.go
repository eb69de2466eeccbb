package seed_test

import (
	"context"
	"errors"
	"iter"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/loadlinehq/loadline/examples/conduit"
	"github.com/loadlinehq/loadline/examples/conduit/auth"
	"github.com/loadlinehq/loadline/examples/conduit/postgres"
	"github.com/loadlinehq/loadline/examples/conduit/seed"
	"github.com/loadlinehq/loadline/internal/stack/stacktest"
)

func database(t *testing.T) (url string) {
	t.Helper()
	return stacktest.Postgres(t, stacktest.Migrated(postgres.Migrations)).URL
}

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

// number returns the one number that a query answers.
func number(t *testing.T, conn *pgx.Conn, query string) (n int) {
	t.Helper()
	if err := conn.QueryRow(t.Context(), query).Scan(&n); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return n
}

func TestLoad(t *testing.T) {
	t.Parallel()
	t.Run("generated", func(t *testing.T) {
		t.Parallel()
		testLoad(t, open(t, "", 3), times(3))
	})
	t.Run("real and generated", func(t *testing.T) {
		t.Parallel()
		want := times(2)
		want.Users++ // the former user
		testLoad(t, open(t, realDir(t), 2), want)
	})
}

func testLoad(t *testing.T, source seed.Source, want sizes) {
	url := database(t)
	conn := connect(t, url)
	told := map[string]int64{}
	result, err := seed.Load(t.Context(), conn, source, func(table string, rows int64) { told[table] += rows })
	if err != nil {
		t.Fatal(err)
	}

	got := sizes{
		Users:     number(t, conn, `SELECT count(*) FROM users`),
		Articles:  number(t, conn, `SELECT count(*) FROM articles`),
		Comments:  number(t, conn, `SELECT count(*) FROM comments`),
		Favorites: number(t, conn, `SELECT count(*) FROM favorites`),
		Follows:   number(t, conn, `SELECT count(*) FROM follows`),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
	reported := map[string]int64{}
	for _, table := range result.Tables {
		reported[table.Table] = table.Rows
		if rows := number(t, conn, `SELECT count(*) FROM `+table.Table); int64(rows) != table.Rows {
			t.Errorf("%s: reported %d rows, has %d", table.Table, table.Rows, rows)
		}
	}
	if diff := cmp.Diff(reported, told); diff != "" || len(reported) != 7 {
		t.Errorf("the progress differs from the result of 7 tables:\n%s", diff)
	}

	for name, query := range map[string]string{
		"users":  `SELECT count(*) FROM users WHERE articles_count <> (SELECT count(*) FROM articles WHERE author_id = users.id)`,
		"likes":  `SELECT count(*) FROM articles WHERE favorites_count <> (SELECT count(*) FROM favorites WHERE article_id = articles.id)`,
		"tags":   `SELECT count(*) FROM tags WHERE articles_count <> (SELECT count(*) FROM article_tags WHERE tag_id = tags.id)`,
		"totals": `SELECT (SELECT sum(articles_count) FROM article_totals) - (SELECT count(*) FROM articles)`,
	} {
		if off := number(t, conn, query); off != 0 {
			t.Errorf("counters of %s: %d are wrong", name, off)
		}
	}
	for _, table := range []string{"users", "articles", "comments"} {
		next := number(t, conn, `SELECT nextval(pg_get_serial_sequence('`+table+`', 'id'))`)
		if last := number(t, conn, `SELECT max(id) FROM `+table); next != last+1 {
			t.Errorf("the next id of %s is %d after %d", table, next, last)
		}
		if number(t, conn, `SELECT count(*) FROM pg_stats WHERE tablename = '`+table+`'`) == 0 {
			t.Errorf("%s was not analysed", table)
		}
	}

	db, err := postgres.Open(t.Context(), postgres.Config{URL: url, MaxConns: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	store := postgres.NewStore(db, postgres.Immediately{})
	user, err := store.UserByEmail(t.Context(), result.DemoEmail)
	if err != nil {
		t.Fatalf("the user to log in as: %v", err)
	}
	if ok, err := auth.NewHasher().Verify(t.Context(), user.PasswordHash, seed.Password); !ok || err != nil {
		t.Errorf("%s cannot log in: %v, %v", result.DemoEmail, ok, err)
	}
	feed, err := store.Feed(t.Context(), user.ID, conduit.Window{Limit: 20})
	if err != nil || len(feed.Articles) != 20 {
		t.Errorf("%s has a feed of %d articles, error %v", result.DemoEmail, feed.Total, err)
	}
}

func TestLoadOnlyOnce(t *testing.T) {
	t.Parallel()
	url := database(t)
	source := open(t, "", 1)
	errs := make([]error, 3)
	var loads sync.WaitGroup
	for i := range errs {
		conn := connect(t, url)
		loads.Go(func() { _, errs[i] = seed.Load(t.Context(), conn, source, nil) })
	}
	loads.Wait()
	loaded := 0
	for _, err := range errs {
		switch {
		case err == nil:
			loaded++
		case !errors.Is(err, seed.ErrNotEmpty):
			t.Error(err)
		}
	}
	if loaded != 1 {
		t.Errorf("%d of several loads at once went through, want 1", loaded)
	}
	if users := number(t, connect(t, url), `SELECT count(*) FROM users`); users != 3838 {
		t.Errorf("%d users", users)
	}
}

// interrupted is a source that does something before one of its comments.
type interrupted struct {
	seed.Source
	before int64
	do     func() error
}

func (s interrupted) Comments() iter.Seq2[seed.Comment, error] {
	return func(yield func(seed.Comment, error) bool) {
		for comment, err := range s.Source.Comments() {
			if comment.ID == s.before {
				err = s.do()
			}
			if !yield(comment, err) || err != nil {
				return
			}
		}
	}
}

func TestLoadAllOrNothing(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		interrupt func(cancel context.CancelFunc, broken error) error
		want      func(broken error) error
	}{
		"the source fails": {
			func(_ context.CancelFunc, broken error) error { return broken },
			func(broken error) error { return broken },
		},
		"cancelled": {
			func(cancel context.CancelFunc, _ error) error { cancel(); return nil },
			func(error) error { return context.Canceled },
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := database(t)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			broken := errors.New("line 12 is broken")
			source := interrupted{open(t, "", 1), 5000, func() error { return c.interrupt(cancel, broken) }}

			_, err := seed.Load(ctx, connect(t, url), source, nil)
			if !errors.Is(err, c.want(broken)) || !strings.Contains(err.Error(), "comments") {
				t.Errorf("got error %v, want %v", err, c.want(broken))
			}
			conn := connect(t, url)
			if users := number(t, conn, `SELECT count(*) FROM users`); users != 0 {
				t.Errorf("%d users are left", users)
			}
			// Nothing stands in the way of another attempt, such as the lock.
			if _, err := seed.Load(t.Context(), conn, source.Source, nil); err != nil {
				t.Errorf("second attempt: %v", err)
			}
		})
	}
}

func TestLoadNamesTheMissingSchema(t *testing.T) {
	t.Parallel()
	conn := connect(t, stacktest.Postgres(t).URL)
	_, err := seed.Load(t.Context(), conn, open(t, "", 1), nil)
	if err == nil || !strings.Contains(err.Error(), "conduit migrate") {
		t.Errorf("got error %v", err)
	}
}
