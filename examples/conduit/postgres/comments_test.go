package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/loadlinehq/loadline/examples/conduit"
	"github.com/loadlinehq/loadline/examples/conduit/postgres"
	"github.com/loadlinehq/loadline/examples/conduit/postgres/sqlc"
)

func TestComments(t *testing.T) {
	t.Parallel()
	f, ctx := newFixture(t), t.Context()
	jake, jane := f.user(t, "jake"), f.user(t, "jane")
	slug, other := f.article(t, jake, "One").Slug, f.article(t, jake, "Two").Slug

	first, err := f.CreateComment(ctx, jane, slug, "first")
	if err != nil || first.Body != "first" || first.Author.Username != "jane" {
		t.Fatalf("CreateComment: %v, %v", first, err)
	}
	second, err := f.CreateComment(ctx, jake, slug, "second")
	if err != nil {
		t.Fatal(err)
	}
	got, err := f.Comments(ctx, slug)
	if diff := cmp.Diff([]conduit.Comment{second, first}, got); err != nil || diff != "" {
		t.Errorf("Comments: %v %s", err, diff)
	}
	if got, err = f.Comments(ctx, other); err != nil || len(got) > 0 {
		t.Errorf("Comments of another article: %v, %v", got, err)
	}

	wantErr(t, "another's comment", f.DeleteComment(ctx, jake, slug, first.ID), conduit.ErrCommentForbidden)
	wantErr(t, "another article's comment", f.DeleteComment(ctx, jane, other, first.ID), conduit.ErrCommentNotFound)
	wantErr(t, "unknown article", f.DeleteComment(ctx, jane, "nothing", first.ID), conduit.ErrArticleNotFound)
	if err := f.DeleteComment(ctx, jane, slug, first.ID); err != nil {
		t.Error(err)
	}
	wantErr(t, "twice", f.DeleteComment(ctx, jane, slug, first.ID), conduit.ErrCommentNotFound)
	_, err = f.Comments(ctx, "nothing")
	wantErr(t, "comments of nothing", err, conduit.ErrArticleNotFound)
	_, err = f.CreateComment(ctx, jane, "nothing", "body")
	wantErr(t, "comment on nothing", err, conduit.ErrArticleNotFound)
	_, err = f.CreateComment(ctx, 999, slug, "body")
	wantErr(t, "a deleted author", err, conduit.ErrNoViewer)

	f.exec(t, `INSERT INTO comments (article_id, author_id, body)
		SELECT a.id, $1, 'many' FROM articles AS a, generate_series(1, 600) WHERE a.slug = $2`, jane, slug)
	if got, err = f.Comments(ctx, slug); err != nil || len(got) != conduit.MaxComments {
		t.Errorf("%d of many comments, %v", len(got), err)
	}
}

// recorded keeps what was recorded.
type recorded []any

func (r *recorded) Record(_ context.Context, _ sqlc.DBTX, happened any) error {
	*r = append(*r, happened)
	return nil
}

// A comment and its end are recorded for who looks at the article, and not what has not been done.
func TestCommentsAreRecorded(t *testing.T) {
	t.Parallel()
	f, ctx := newFixture(t), t.Context()
	jake := f.user(t, "jake")
	article := f.article(t, jake, "One")
	var got recorded
	store := postgres.NewStore(f.db, &got)
	written, err := store.CreateComment(ctx, jake, article.Slug, "first")
	if err != nil {
		t.Fatal(err)
	}
	if found, err := store.Comment(ctx, written.ID); err != nil || cmp.Diff(written, found) != "" {
		t.Errorf("Comment: %v, %v", found, err)
	}
	for _, want := range []error{nil, conduit.ErrCommentNotFound} {
		wantErr(t, "deletion", store.DeleteComment(ctx, jake, article.Slug, written.ID), want)
	}
	_, err = store.Comment(ctx, written.ID)
	wantErr(t, "a comment that is gone", err, conduit.ErrCommentNotFound)
	want := recorded{conduit.CommentWritten{CommentID: written.ID, ArticleID: article.ID}, conduit.CommentDeleted{CommentID: written.ID, ArticleID: article.ID}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestOneDeletionSucceeds: of many at once, the others find nothing any more.
func TestOneDeletionSucceeds(t *testing.T) {
	t.Parallel()
	f, ctx := newFixture(t), t.Context()
	jake := f.user(t, "jake")
	for i := range 10 {
		slug, other := f.article(t, jake, fmt.Sprint(i)).Slug, f.article(t, jake, "other").Slug
		comment, err := f.CreateComment(ctx, jake, slug, "body")
		if err != nil {
			t.Fatal(err)
		}
		for what, remove := range map[string]func() error{
			"comment": func() error { return f.DeleteComment(ctx, jake, slug, comment.ID) },
			"article": func() error { return f.DeleteArticle(ctx, jake, other) },
		} {
			var deleted atomic.Int64
			var wg sync.WaitGroup
			for range 6 {
				wg.Go(func() {
					err := remove()
					if refusal, ok := errors.AsType[*conduit.Error](err); ok && refusal.Kind == conduit.NotFound {
						return
					}
					if err != nil {
						t.Error(err)
					}
					deleted.Add(1)
				})
			}
			wg.Wait()
			if deleted.Load() != 1 {
				t.Errorf("%d deletions of the %s succeeded, want 1", deleted.Load(), what)
			}
		}
	}
}
