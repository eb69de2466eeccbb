package postgres_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/loadlinehq/loadline/examples/conduit"
)

func TestArticle(t *testing.T) {
	t.Parallel()
	f, ctx := newFixture(t), t.Context()
	jake, jane := f.user(t, "jake"), f.user(t, "jane")

	created := f.article(t, jake, "A Title", "z", "a")
	want := conduit.Article{
		ID: created.ID, Slug: "a-title", Title: "A Title", Description: "d", Body: "b",
		TagList: []string{"z", "a"}, Author: conduit.Profile{ID: jake, Username: "jake"},
	}
	times := cmpopts.IgnoreFields(conduit.Article{}, "CreatedAt", "UpdatedAt")
	if diff := cmp.Diff(want, created, times); diff != "" {
		t.Error(diff)
	}
	if found, err := f.Article(ctx, "a-title"); err != nil || cmp.Diff(created, found) != "" {
		t.Errorf("Article: %v %s", err, cmp.Diff(created, found))
	}

	updated, err := f.UpdateArticle(ctx, jake, "a-title", conduit.ArticleChange{Body: new("new body")})
	want.Body = "new body"
	if diff := cmp.Diff(want, updated, times); err != nil || diff != "" {
		t.Errorf("change of the body: %v %s", err, diff)
	}
	if !updated.UpdatedAt.After(created.UpdatedAt) || !updated.CreatedAt.Equal(created.CreatedAt) {
		t.Errorf("created at %v, updated at %v", updated.CreatedAt, updated.UpdatedAt)
	}
	updated, err = f.UpdateArticle(ctx, jake, "a-title", conduit.ArticleChange{
		Title: new("Another Title"), Description: new("new d"), TagList: []string{"a", "new", "z"},
	})
	want.Title, want.Slug, want.Description, want.TagList = "Another Title", "another-title", "new d", []string{"a", "new", "z"}
	if diff := cmp.Diff(want, updated, times); err != nil || diff != "" {
		t.Errorf("change of everything else: %v %s", err, diff)
	}
	_, err = f.Article(ctx, "a-title")
	wantErr(t, "the old slug", err, conduit.ErrArticleNotFound)
	if updated, err = f.UpdateArticle(ctx, jake, "another-title", conduit.ArticleChange{TagList: []string{}}); err != nil || len(updated.TagList) > 0 {
		t.Errorf("removal of the tags: %v, %v", updated.TagList, err)
	}

	_, err = f.UpdateArticle(ctx, jane, "another-title", conduit.ArticleChange{Body: new("x")})
	wantErr(t, "another's change", err, conduit.ErrArticleForbidden)
	wantErr(t, "another's deletion", f.DeleteArticle(ctx, jane, "another-title"), conduit.ErrArticleForbidden)
	_, err = f.UpdateArticle(ctx, jake, "nothing", conduit.ArticleChange{})
	wantErr(t, "change of nothing", err, conduit.ErrArticleNotFound)
	wantErr(t, "deletion of nothing", f.DeleteArticle(ctx, jake, "nothing"), conduit.ErrArticleNotFound)
	_, err = f.CreateArticle(ctx, 999, conduit.Draft{Title: "t", Description: "d", Body: "b"})
	wantErr(t, "a deleted author", err, conduit.ErrNoViewer)

	if err := f.DeleteArticle(ctx, jake, "another-title"); err != nil {
		t.Error(err)
	}
	_, err = f.Article(ctx, "another-title")
	wantErr(t, "after the deletion", err, conduit.ErrArticleNotFound)
}

func TestSlugsAreUnique(t *testing.T) {
	t.Parallel()
	f, ctx := newFixture(t), t.Context()
	jake := f.user(t, "jake")
	const n = 12
	slugs := make([]string, n)

	// Created at once with one title, and some with the same new tag.
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			article, err := f.CreateArticle(ctx, jake, conduit.Draft{
				Title: "Same title", Description: "d", Body: "b", TagList: []string{"same", fmt.Sprint("tag ", i/4)},
			})
			if err != nil {
				t.Error(err)
			}
			slugs[i] = article.Slug
		})
	}
	wg.Wait()
	wantUnique(t, slugs, "same-title")

	// Renamed at once to another.
	for i, slug := range slugs {
		wg.Go(func() {
			article, err := f.UpdateArticle(ctx, jake, slug, conduit.ArticleChange{Title: new("Other title")})
			if err != nil {
				t.Error(err)
			}
			slugs[i] = article.Slug
		})
	}
	wg.Wait()
	wantUnique(t, slugs, "other-title")

	// The title it has already is no new title.
	if article, err := f.UpdateArticle(ctx, jake, slugs[0], conduit.ArticleChange{Title: new("Other title")}); err != nil || article.Slug != slugs[0] {
		t.Errorf("the slug became %s, %v", article.Slug, err)
	}
}

// wantUnique wants the plain slug once, and otherwise suffixes to it.
func wantUnique(t *testing.T, slugs []string, plain string) {
	t.Helper()
	sorted := slices.Sorted(slices.Values(slugs))
	if sorted[0] != plain || !strings.HasPrefix(sorted[1], plain+"-") || len(slices.Compact(sorted)) != len(slugs) {
		t.Errorf("the slugs are %q", slugs)
	}
}

func TestFavorite(t *testing.T) {
	t.Parallel()
	f, ctx := newFixture(t), t.Context()
	jake := f.user(t, "jake")
	slug := f.article(t, jake, "Liked").Slug
	fans := make([]int64, 10)
	for i := range fans {
		fans[i] = f.user(t, fmt.Sprint("fan ", i))
	}

	var wg sync.WaitGroup
	for _, fan := range fans {
		for range 3 { // idempotent, also at once
			wg.Go(func() {
				if article, err := f.Favorite(ctx, fan, slug); err != nil || article.FavoritesCount < 1 {
					t.Errorf("Favorite: %v, %v", article.FavoritesCount, err)
				}
			})
		}
	}
	wg.Wait()
	article, err := f.Article(ctx, slug)
	if err != nil || article.FavoritesCount != len(fans) {
		t.Errorf("%d favourites, %v, want %d", article.FavoritesCount, err, len(fans))
	}
	if marks, err := f.Marks(ctx, fans[0], []int64{article.ID, 999}, nil); err != nil || !marks.HasFavorited(article.ID) {
		t.Errorf("Marks: %v, %v", marks, err)
	}
	if marks, err := f.Marks(ctx, jake, []int64{article.ID}, nil); err != nil || marks.HasFavorited(article.ID) {
		t.Errorf("another viewer's marks: %v, %v", marks, err)
	}
	for _, fan := range fans {
		for range 2 {
			wg.Go(func() {
				if _, err := f.Unfavorite(ctx, fan, slug); err != nil {
					t.Error(err)
				}
			})
		}
	}
	wg.Wait()
	if article, err = f.Article(ctx, slug); err != nil || article.FavoritesCount != 0 {
		t.Errorf("%d favourites, %v, want 0", article.FavoritesCount, err)
	}

	_, err = f.Favorite(ctx, jake, "nothing")
	wantErr(t, "favourite nothing", err, conduit.ErrArticleNotFound)
	_, err = f.Unfavorite(ctx, jake, "nothing")
	wantErr(t, "unfavourite nothing", err, conduit.ErrArticleNotFound)
	_, err = f.Favorite(ctx, 999, slug)
	wantErr(t, "a deleted viewer", err, conduit.ErrNoViewer)
}
