package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/loadlinehq/loadline/examples/conduit"
)

// wrongCounters names the counters that differ from what they count.
func wrongCounters(t *testing.T, f fixture) []string {
	t.Helper()
	rows, err := f.db.Read(t.Context()).Query(t.Context(), `
		SELECT format('users %s: %s, not %s', u.id, u.articles_count, n)
		FROM users AS u, LATERAL (SELECT count(*) AS n FROM articles WHERE author_id = u.id) AS c
		WHERE u.articles_count <> n
		UNION ALL
		SELECT format('tags %s: %s, not %s', t.id, t.articles_count, n)
		FROM tags AS t, LATERAL (SELECT count(*) AS n FROM article_tags WHERE tag_id = t.id) AS c
		WHERE t.articles_count <> n
		UNION ALL
		SELECT format('articles %s: %s, not %s', a.id, a.favorites_count, n)
		FROM articles AS a, LATERAL (SELECT count(*) AS n FROM favorites WHERE article_id = a.id) AS c
		WHERE a.favorites_count <> n
		UNION ALL
		SELECT format('article_totals %s: %s, not %s', s.slot, s.articles_count, n)
		FROM article_totals AS s, LATERAL (SELECT count(*) AS n FROM articles WHERE author_id % 16 = s.slot) AS c
		WHERE s.articles_count <> n`)
	if err != nil {
		t.Fatal(err)
	}
	wrong, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return wrong
}

func (f fixture) wantExact(t *testing.T, after string) {
	t.Helper()
	if wrong := wrongCounters(t, f); len(wrong) > 0 {
		t.Errorf("after %s: %d counters are wrong: %v", after, len(wrong), wrong[:min(5, len(wrong))])
	}
}

// TestCountersUnderConcurrency lets many writers loose on few rows. No write
// may fail but by a refusal of the domain, a deadlock least of all, and every
// counter must be right in the end.
func TestCountersUnderConcurrency(t *testing.T) {
	t.Parallel()
	f, ctx := newFixture(t), t.Context()
	const users, tags, writers, writes = 6, 8, 8, 150
	ids := make([]int64, users)
	for i := range ids {
		ids[i] = f.user(t, fmt.Sprint("user", i))
	}
	var slugs shelf

	write := func(r *rand.Rand) error {
		user, slug := ids[r.IntN(users)], slugs.pick(r)
		change := conduit.ArticleChange{}
		var err error
		switch r.IntN(10) {
		case 0, 1, 2:
			var article conduit.Article
			article, err = f.CreateArticle(ctx, user, conduit.Draft{
				Title: fmt.Sprint("title ", r.IntN(5)), Description: "d", Body: "b", TagList: randomTags(r, tags),
			})
			slugs.put(article.Slug)
		case 3:
			err = f.DeleteArticle(ctx, user, slug)
		case 4, 5:
			change.Title = new(fmt.Sprint("title ", r.IntN(5)))
			fallthrough
		case 6:
			change.TagList = randomTags(r, tags)
			var article conduit.Article
			if article, err = f.UpdateArticle(ctx, user, slug, change); err == nil {
				slugs.put(article.Slug)
			}
		case 7, 8:
			_, err = f.Favorite(ctx, user, slug)
		case 9:
			_, err = f.Unfavorite(ctx, user, slug)
		}
		if _, refused := errors.AsType[*conduit.Error](err); refused {
			return nil
		}
		return err
	}

	var wg sync.WaitGroup
	for seed := range writers {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(seed)))
			for range writes {
				if err := write(r); err != nil {
					t.Errorf("writer %d: %v", seed, err)
				}
			}
		})
	}
	wg.Wait()
	f.wantExact(t, "concurrent writes")

	var articles, favorites int
	if err := f.db.Read(ctx).QueryRow(ctx, "SELECT (SELECT count(*) FROM articles), (SELECT count(*) FROM favorites)").Scan(&articles, &favorites); err != nil {
		t.Fatal(err)
	}
	if articles < 20 || favorites < 20 {
		t.Errorf("only %d articles and %d favourites are left: the test has lost its meaning", articles, favorites)
	}

	// What only an operator does.
	for _, statement := range []string{
		"DELETE FROM articles WHERE id % 3 = 0",
		"DELETE FROM favorites WHERE article_id % 2 = 0",
		"DELETE FROM tags WHERE id % 4 = 0",
		"DELETE FROM users WHERE id % 2 = 0",
		"TRUNCATE favorites",
		"TRUNCATE articles CASCADE",
	} {
		f.exec(t, statement)
		f.wantExact(t, statement)
	}
}

// TestDeletionMeetsUnfavorite: both lock the article and the favourite, and
// would deadlock if they did so in different orders.
func TestDeletionMeetsUnfavorite(t *testing.T) {
	t.Parallel()
	f, ctx := newFixture(t), t.Context()
	fans := make([]int64, 6)
	for i := range fans {
		fans[i] = f.user(t, fmt.Sprint("fan", i))
	}
	for i := range 25 {
		slug := f.article(t, fans[0], fmt.Sprint(i)).Slug
		f.exec(t, "INSERT INTO favorites SELECT u.id, a.id FROM users AS u, articles AS a WHERE a.slug = $1", slug)
		var wg sync.WaitGroup
		for _, fan := range fans {
			wg.Go(func() {
				if _, err := f.Unfavorite(ctx, fan, slug); err != nil && !errors.Is(err, conduit.ErrArticleNotFound) {
					t.Error(err)
				}
			})
		}
		wg.Go(func() {
			if err := f.DeleteArticle(ctx, fans[0], slug); err != nil {
				t.Error(err)
			}
		})
		wg.Wait()
	}
	f.wantExact(t, "deletions")
}

// TestCountersAfterCopy loads rows as the content loader does.
func TestCountersAfterCopy(t *testing.T) {
	t.Parallel()
	f, ctx := newFixture(t), t.Context()
	for i := range 20 {
		f.user(t, fmt.Sprint("user", i))
	}
	f.exec(t, "INSERT INTO tags (name) SELECT 'tag' || i FROM generate_series(1, 10) AS i")
	conn, err := pgx.Connect(ctx, f.url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	load := func(table string, columns []string, rows int, row func(i int) []any) {
		t.Helper()
		n, err := conn.CopyFrom(ctx, pgx.Identifier{table}, columns, pgx.CopyFromSlice(rows, func(i int) ([]any, error) {
			return row(i), nil
		}))
		if err != nil || int(n) != rows {
			t.Fatalf("COPY %s: %d rows, %v", table, n, err)
		}
		f.wantExact(t, "COPY "+table)
	}
	load("articles", []string{"id", "slug", "title", "description", "body", "author_id"}, 500, func(i int) []any {
		return []any{i + 1, fmt.Sprint("slug", i), "t", "d", "b", 1 + i*i%20}
	})
	load("article_tags", []string{"article_id", "position", "tag_id"}, 1000, func(i int) []any {
		return []any{1 + i/2, i % 2, 1 + (i/2+i%2*3)%10}
	})
	load("favorites", []string{"user_id", "article_id"}, 2000, func(i int) []any {
		return []any{1 + i%20, 1 + i/20*3}
	})
}

// TestWrongCountersAreFound breaks what the other tests rely on.
func TestWrongCountersAreFound(t *testing.T) {
	t.Parallel()
	for table, want := range map[string]int{"articles": 2, "article_tags": 1, "favorites": 1} {
		t.Run(table, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			jake := f.user(t, "jake")
			f.exec(t, "ALTER TABLE "+table+" DISABLE TRIGGER USER")
			article := f.article(t, jake, "Title", "tag")
			if _, err := f.Favorite(t.Context(), jake, article.Slug); err != nil {
				t.Fatal(err)
			}
			if wrong := wrongCounters(t, f); len(wrong) != want {
				t.Errorf("without the triggers of %s, %d counters are wrong, want %d: %v", table, len(wrong), want, wrong)
			}
		})
	}
}

// TestRowsDoNotMove: what would leave a counter wrong is refused.
func TestRowsDoNotMove(t *testing.T) {
	t.Parallel()
	f, ctx := newFixture(t), t.Context()
	jake, jane := f.user(t, "jake"), f.user(t, "jane")
	f.article(t, jake, "One", "tag", "other")
	if _, err := f.Favorite(ctx, jane, f.article(t, jake, "Two").Slug); err != nil {
		t.Fatal(err)
	}
	for _, statement := range []string{
		"UPDATE articles SET author_id = author_id + 1",
		"UPDATE article_tags SET tag_id = tag_id + 1 WHERE position = 1",
		"UPDATE favorites SET article_id = article_id - 1",
	} {
		if _, err := f.db.Write(ctx).Exec(ctx, statement); err == nil {
			t.Errorf("%s was not refused", statement)
		}
	}
	f.wantExact(t, "updates that were refused")
}

func randomTags(r *rand.Rand, n int) []string {
	tags := map[string]bool{}
	for range r.IntN(4) {
		tags[fmt.Sprint("tag ", r.IntN(n))] = true
	}
	return slices.Collect(maps.Keys(tags))
}

// shelf holds the slugs that the writers have made.
type shelf struct {
	mu    sync.Mutex
	slugs []string
}

func (s *shelf) put(slug string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.slugs = append(s.slugs, slug)
}

func (s *shelf) pick(r *rand.Rand) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.slugs) == 0 {
		return "none"
	}
	return s.slugs[len(s.slugs)-1-r.IntN(min(20, len(s.slugs)))] // the recent ones
}
