package caching_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/loadlinehq/loadline/examples/conduit"
)

// An article that is deleted between the listing of a page and its summaries leaves no gap: the page is as it was before, or
// as it is after.
func TestPageHasNoGap(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 1)
	i := f.instances[0]
	author, err := f.database.CreateUser(t.Context(), conduit.Registration{Username: "author", Email: "author@example.com"}, "hash")
	if err != nil {
		t.Fatal(err)
	}
	var newest conduit.Article
	for n := range 4 {
		if newest, err = f.database.CreateArticle(t.Context(), author.ID, conduit.Draft{Title: fmt.Sprint("Article ", n), Description: "d", Body: "b"}); err != nil {
			t.Fatal(err)
		}
	}
	page := func() conduit.ArticlePage {
		t.Helper()
		got, err := i.ListArticles(t.Context(), conduit.ArticleFilter{}, conduit.Window{Limit: 3})
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	waitFor(t, "the replicas have them", func() bool { return page().Total == 4 })
	conn, err := pgx.Connect(t.Context(), f.set.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(t.Context(), "DELETE FROM articles WHERE id = $1", newest.ID); err != nil { // and the listing is told later
		t.Fatal(err)
	}
	waitFor(t, "the page is another", func() bool {
		if err := i.ForgetSummary(t.Context(), newest.ID); err != nil {
			t.Fatal(err)
		}
		got := page()
		if len(got.Articles) != 3 {
			t.Fatalf("the page has %d articles, of %d", len(got.Articles), got.Total)
		}
		return got.Articles[0].ID != newest.ID
	})
}
