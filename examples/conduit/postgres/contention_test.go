package postgres_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/loadlinehq/loadline/examples/conduit"
)

// Writes that wait for one row must not take the pool from everybody else for as
// long as somebody holds that row.
func TestLockedRowDoesNotTakeThePool(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	author := f.user(t, "author")
	slug := f.article(t, author, "Popular").Slug
	viewers := make([]int64, 8) // as many as the pool has connections but one, and more
	for i := range viewers {
		viewers[i] = f.user(t, "viewer"+string(rune('a'+i)))
	}
	locked, release := make(chan struct{}), make(chan struct{})
	var work sync.WaitGroup
	work.Go(func() {
		_ = f.db.InTx(t.Context(), func(ctx context.Context) error {
			_, err := f.db.Write(ctx).Exec(ctx, "SELECT FROM articles FOR UPDATE")
			close(locked)
			<-release
			return err
		})
	})
	<-locked
	defer work.Wait()
	defer close(release)
	began := time.Now()
	failures := make(chan error, len(viewers))
	for _, viewer := range viewers {
		work.Go(func() {
			_, err := f.Favorite(t.Context(), viewer, slug)
			failures <- err
		})
	}
	// The first to give up: from then on the pool has room, though the row has not
	// been released.
	if err := <-failures; !errors.Is(err, conduit.ErrUnavailable) {
		t.Fatalf("a favourite on a locked article: %v, want %v", err, conduit.ErrUnavailable)
	}
	if _, err := f.Tags(t.Context()); err != nil {
		t.Fatal(err)
	}
	// Less than the timeout of a statement.
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("a read of something else had to wait for %s", took)
	}
}

// An edit that waited for another is the later one, also by its time.
func TestUpdatedAtFollowsTheOrderOfCommits(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	author := f.user(t, "author")
	slug := f.article(t, author, "Edited").Slug
	edit := func(ctx context.Context, body string) time.Time {
		t.Helper()
		article, err := f.UpdateArticle(ctx, author, slug, conduit.ArticleChange{Body: &body})
		if err != nil {
			t.Fatal(err)
		}
		return article.UpdatedAt
	}
	var early, late time.Time
	err := f.db.InTx(t.Context(), func(ctx context.Context) error {
		if _, err := f.db.Write(ctx).Exec(ctx, "SELECT 1"); err != nil { // now() is now
			return err
		}
		early = edit(t.Context(), "committed first")
		late = edit(ctx, "committed second")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if !late.After(early) {
		t.Errorf("the second edit is of %s, the first of %s", late, early)
	}
}

// The comments of an article are bounded in bytes, not only in number; the newest
// is always there.
func TestCommentsAreBounded(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	author := f.user(t, "author")
	slug := f.article(t, author, "Discussed").Slug
	f.exec(t, `INSERT INTO comments (article_id, author_id, body)
		SELECT a.id, a.author_id, repeat('ä', 30000) FROM articles AS a, generate_series(1, 100)`)
	newest, err := f.CreateComment(t.Context(), author, slug, "newest")
	if err != nil {
		t.Fatal(err)
	}
	comments, err := f.Comments(t.Context(), slug)
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, comment := range comments {
		all.WriteString(comment.Body)
	}
	if all.Len() < conduit.MaxCommentsBytes || all.Len() > conduit.MaxCommentsBytes+60_000 || comments[0].ID != newest.ID {
		t.Errorf("got %d comments of %d bytes, the first is %d", len(comments), all.Len(), comments[0].ID)
	}
}

// A foreign key without an index makes every deletion of what it names a scan.
func TestForeignKeysHaveIndexes(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	rows, err := f.db.Read(t.Context()).Query(t.Context(), `
		SELECT k.conrelid::regclass || ' ' || k.conname FROM pg_constraint AS k
		WHERE k.contype = 'f' AND NOT EXISTS (
			SELECT FROM pg_index AS i
			WHERE i.indrelid = k.conrelid AND i.indkey[0] = k.conkey[1] AND i.indpred IS NULL)`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var key string
		if err := rows.Scan(&key); err != nil {
			t.Fatal(err)
		}
		t.Errorf("%s has no index", key)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
}
