package postgres_test

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/loadlinehq/loadline/examples/conduit"
	"github.com/loadlinehq/loadline/examples/conduit/postgres"
	"github.com/loadlinehq/loadline/examples/conduit/postgres/sqlc"
)

var all = conduit.Window{Limit: 100}

func TestListArticles(t *testing.T) {
	t.Parallel()
	f, ctx := newFixture(t), t.Context()
	jake, jane := f.user(t, "jake"), f.user(t, "jane")
	for i := range 10 {
		author, tags := jake, []string{"every"}
		if i%2 == 1 {
			author = jane
		}
		if i%3 == 0 {
			tags = append(tags, "third")
		}
		slug := f.article(t, author, fmt.Sprint(i), tags...).Slug
		if i%5 == 0 {
			if _, err := f.Favorite(ctx, jane, slug); err != nil {
				t.Fatal(err)
			}
		}
	}

	for _, test := range []struct {
		name   string
		filter conduit.ArticleFilter
		window conduit.Window
		want   []string
		total  int
	}{
		{"all", conduit.ArticleFilter{}, all, []string{"9", "8", "7", "6", "5", "4", "3", "2", "1", "0"}, 10},
		{"page", conduit.ArticleFilter{}, conduit.Window{Limit: 3, Offset: 2}, []string{"7", "6", "5"}, 10},
		{"last page", conduit.ArticleFilter{}, conduit.Window{Limit: 3, Offset: 9}, []string{"0"}, 10},
		{"beyond", conduit.ArticleFilter{}, conduit.Window{Limit: 3, Offset: 10}, nil, 10},
		{"tag", conduit.ArticleFilter{Tag: "third"}, all, []string{"9", "6", "3", "0"}, 4},
		{"tag in another case", conduit.ArticleFilter{Tag: "Third"}, all, nil, 0},
		{"author", conduit.ArticleFilter{Author: "Jane"}, all, []string{"9", "7", "5", "3", "1"}, 5},
		{"author's page", conduit.ArticleFilter{Author: "jane"}, conduit.Window{Limit: 2, Offset: 1}, []string{"7", "5"}, 5},
		{"favourites", conduit.ArticleFilter{FavoritedBy: "jane"}, all, []string{"5", "0"}, 2},
		{"no favourites", conduit.ArticleFilter{FavoritedBy: "jake"}, all, nil, 0},
		{"author and tag", conduit.ArticleFilter{Author: "jake", Tag: "third"}, all, []string{"6", "0"}, 2},
		{"author and tag, page", conduit.ArticleFilter{Author: "jake", Tag: "third"}, conduit.Window{Limit: 1, Offset: 1}, []string{"0"}, 2},
		{"favourites by author", conduit.ArticleFilter{FavoritedBy: "jane", Author: "jane"}, all, []string{"5"}, 1},
		{"favourites with tag", conduit.ArticleFilter{FavoritedBy: "jane", Tag: "third"}, all, []string{"0"}, 1},
		{"all three", conduit.ArticleFilter{FavoritedBy: "jane", Author: "jake", Tag: "every"}, all, []string{"0"}, 1},
		{"none fits all three", conduit.ArticleFilter{FavoritedBy: "jane", Author: "jane", Tag: "third"}, all, nil, 0},
		{"unknown tag", conduit.ArticleFilter{Tag: "none"}, all, nil, 0},
		{"unknown author", conduit.ArticleFilter{Author: "nobody", Tag: "every"}, all, nil, 0},
		{"unknown fan", conduit.ArticleFilter{FavoritedBy: "nobody"}, all, nil, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			page, err := f.ListArticles(ctx, test.filter, test.window)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, titles(page)); diff != "" || page.Total != test.total {
				t.Errorf("total %d, want %d; titles: %s", page.Total, test.total, diff)
			}
		})
	}

	page, err := f.ListArticles(ctx, conduit.ArticleFilter{Tag: "third"}, conduit.Window{Limit: 1})
	if err != nil {
		t.Fatal(err)
	}
	got := page.Articles[0]
	if got.Body != "" || got.Author.Username != "jane" || !slices.Equal(got.TagList, []string{"every", "third"}) {
		t.Errorf("an article of a list is %+v", got)
	}
}

func TestFeed(t *testing.T) {
	t.Parallel()
	f, ctx := newFixture(t), t.Context()
	reader := f.user(t, "reader")
	for i := range 3 {
		f.user(t, fmt.Sprint("author", i))
	}
	for i := range 12 {
		author, err := f.Profile(ctx, fmt.Sprint("author", i%3))
		if err != nil {
			t.Fatal(err)
		}
		f.article(t, author.ID, fmt.Sprint(i))
	}
	want := func(what string, window conduit.Window, total int, want ...string) {
		t.Helper()
		page, err := f.Feed(ctx, reader, window)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, titles(page)); diff != "" || page.Total != total {
			t.Errorf("%s: total %d, want %d; titles: %s", what, page.Total, total, diff)
		}
	}

	want("follows nobody", all, 0)
	for _, name := range []string{"author0", "author2"} {
		if _, err := f.Follow(ctx, reader, name); err != nil {
			t.Fatal(err)
		}
	}
	want("follows two", all, 8, "11", "9", "8", "6", "5", "3", "2", "0")
	want("page", conduit.Window{Limit: 3, Offset: 2}, 8, "8", "6", "5")
	want("last page", conduit.Window{Limit: 3, Offset: 6}, 8, "2", "0")
	want("beyond", conduit.Window{Limit: 3, Offset: 8}, 8)
	if _, err := f.Unfollow(ctx, reader, "author2"); err != nil {
		t.Fatal(err)
	}
	want("follows one", all, 4, "9", "6", "3", "0")
	f.article(t, reader, "mine")
	want("one's own article", all, 4, "9", "6", "3", "0")
	if _, err := f.Follow(ctx, reader, "reader"); err != nil {
		t.Fatal(err)
	}
	want("follows oneself", all, 5, "mine", "9", "6", "3", "0")
}

func TestTags(t *testing.T) {
	t.Parallel()
	f, ctx := newFixture(t), t.Context()
	jake := f.user(t, "jake")
	if tags, err := f.Tags(ctx); err != nil || tags == nil || len(tags) > 0 {
		t.Errorf("no tags are %#v, %v", tags, err)
	}
	f.article(t, jake, "1", "b", "rare")
	f.article(t, jake, "2", "b", "a")
	f.article(t, jake, "3", "a", "gone")
	if err := f.DeleteArticle(ctx, jake, "3"); err != nil {
		t.Fatal(err)
	}
	tags, err := f.Tags(ctx)
	if want := []string{"b", "a", "rare"}; err != nil || !slices.Equal(tags, want) {
		t.Errorf("the tags are %v, %v, want %v", tags, err, want)
	}
}

// TestRoundTrips: a longer page does not cost more of them.
func TestRoundTrips(t *testing.T) {
	t.Parallel()
	f, ctx := newFixture(t), t.Context()
	jake := f.user(t, "jake")
	f.exec(t, `INSERT INTO articles (slug, title, description, body, author_id)
		SELECT 's' || i, 't', 'd', 'b', $1 FROM generate_series(1, 60) AS i`, jake)
	f.exec(t, `INSERT INTO comments (article_id, author_id, body) SELECT id, $1, 'c' FROM articles, generate_series(1, 60)`, jake)
	if _, err := f.Follow(ctx, jake, "jake"); err != nil {
		t.Fatal(err)
	}

	counted := &counter{DB: f.db}
	store := postgres.NewStore(counted, postgres.Immediately{})
	for _, test := range []struct {
		name string
		want int
		call func(limit int) error
	}{
		{"list", 2, func(limit int) error {
			_, err := store.ListArticles(ctx, conduit.ArticleFilter{}, conduit.Window{Limit: limit})
			return err
		}},
		{"list by author", 2, func(limit int) error {
			_, err := store.ListArticles(ctx, conduit.ArticleFilter{Author: "jake"}, conduit.Window{Limit: limit})
			return err
		}},
		{"feed", 2, func(limit int) error {
			_, err := store.Feed(ctx, jake, conduit.Window{Limit: limit})
			return err
		}},
		{"page beyond the end", 1, func(limit int) error {
			_, err := store.Feed(ctx, jake, conduit.Window{Limit: limit, Offset: 1 << 30})
			return err
		}},
		{"article", 1, func(int) error {
			_, err := store.Article(ctx, "s1")
			return err
		}},
		{"comments", 2, func(int) error {
			_, err := store.Comments(ctx, "s1")
			return err
		}},
		{"marks", 1, func(limit int) error {
			_, err := store.Marks(ctx, jake, make([]int64, limit), make([]int64, limit))
			return err
		}},
	} {
		for _, limit := range []int{1, 50} {
			counted.statements = 0
			if err := test.call(limit); err != nil || counted.statements != test.want {
				t.Errorf("%s of %d: %d statements, want %d; %v", test.name, limit, counted.statements, test.want, err)
			}
		}
	}
}

// counter counts the statements that go through a DB.
type counter struct {
	postgres.DB
	statements int
}

func (c *counter) Read(ctx context.Context) sqlc.DBTX { return counted{c.DB.Read(ctx), c} }

type counted struct {
	sqlc.DBTX
	counter *counter
}

func (c counted) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	c.counter.statements++
	return c.DBTX.Exec(ctx, sql, args...)
}

func (c counted) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	c.counter.statements++
	return c.DBTX.Query(ctx, sql, args...)
}

func (c counted) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	c.counter.statements++
	return c.DBTX.QueryRow(ctx, sql, args...)
}

func titles(page conduit.ArticlePage) []string {
	var titles []string
	for _, article := range page.Articles {
		titles = append(titles, article.Title)
	}
	return titles
}
