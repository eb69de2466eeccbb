package postgres_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/loadlinehq/loadline/examples/conduit"
	"github.com/loadlinehq/loadline/examples/conduit/postgres"
	"github.com/loadlinehq/loadline/internal/ratio"
	"github.com/loadlinehq/loadline/internal/stack/stacktest"
)

// What the counters save: the first page of 100,000 articles with its total, as it
// is, against the same page with a total that is counted, as most implementations
// of the API have it.
func BenchmarkFirstPage(b *testing.B) {
	env := stacktest.Postgres(b, stacktest.Migrated(postgres.Migrations))
	db, err := postgres.Open(b.Context(), postgres.Config{URL: env.URL})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(db.Close)
	for _, statement := range []string{
		`INSERT INTO users (username, email, password_hash)
		SELECT 'user-' || n, 'user-' || n || '@example.com', 'none' FROM generate_series(1, 1000) AS n`,
		`INSERT INTO articles (slug, title, description, body, author_id)
		SELECT 'article-' || n, 'Article ' || n, 'description', repeat('body ', 150), 1 + n % 1000 FROM generate_series(1, 100000) AS n`,
		`VACUUM ANALYZE`,
	} {
		if _, err := db.Write(b.Context()).Exec(b.Context(), statement); err != nil {
			b.Fatal(err)
		}
	}
	store := postgres.NewStore(db, postgres.Immediately{})
	const requests = 20
	page := func(counting bool) func() (time.Duration, error) {
		return func() (time.Duration, error) {
			began := time.Now()
			for range requests {
				page, err := store.ListArticles(b.Context(), conduit.ArticleFilter{}, conduit.Window{Limit: 20})
				if err != nil {
					return 0, err
				}
				total := page.Total
				if counting {
					if err := db.Read(b.Context()).QueryRow(b.Context(), "SELECT count(*) FROM articles").Scan(&total); err != nil {
						return 0, err
					}
				}
				if total != 100_000 || len(page.Articles) != 20 {
					return 0, fmt.Errorf("got %d articles of %d", len(page.Articles), total)
				}
			}
			return time.Since(began), nil
		}
	}
	var result ratio.Result
	for b.Loop() {
		if result, err = ratio.Measure(30, page(false), page(true)); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(result.Median, "times-counter")
	fmt.Printf("# first page of 100,000 articles, total counted / kept: %s\n", result)
}
