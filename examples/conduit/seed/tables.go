package seed

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"

	"github.com/jackc/pgx/v5"
)

// content writes everything, what is referred to first.
func (w *writer) content(ctx context.Context, source Source) error {
	if err := w.users(ctx, source.Users()); err != nil {
		return err
	}
	if err := w.articles(ctx, source.Articles()); err != nil {
		return err
	}
	if err := w.comments(ctx, source.Comments()); err != nil {
		return err
	}
	if err := w.favorites(ctx, source.Favorites()); err != nil {
		return err
	}
	return w.follows(ctx, source.Follows())
}

func (w *writer) users(ctx context.Context, rows iter.Seq2[User, error]) error {
	return table[User]{
		name:    "users",
		columns: []string{"id", "username", "email", "password_hash", "created_at", "updated_at"},
		values: func(u User) []any {
			return []any{u.ID, u.Username, u.Email, passwordHash, u.CreatedAt, u.CreatedAt}
		},
	}.copyRows(ctx, w, rows)
}

// tagging is a row of article_tags.
type tagging struct {
	articleID int64
	position  int
	tag       string
}

// articles writes each batch with its tags, so that the articles are made only
// once and no more than a batch of their tags is kept.
func (w *writer) articles(ctx context.Context, rows iter.Seq2[Article, error]) error {
	var batch []tagging
	ids := map[string]int64{} // of the tags; there are few
	return table[Article]{
		name:    "articles",
		columns: []string{"id", "slug", "title", "description", "body", "author_id", "created_at", "updated_at"},
		values: func(a Article) []any {
			for i, tag := range a.Tags {
				batch = append(batch, tagging{a.ID, i, tag})
			}
			return []any{a.ID, a.Slug, a.Title, a.Description, a.Body, a.AuthorID, a.CreatedAt, a.UpdatedAt}
		},
		then: func() error {
			if err := w.tags(ctx, ids, batch); err != nil {
				return fmt.Errorf("tags: %w", err)
			}
			err := w.articleTags(ctx, ids, batch)
			batch = batch[:0]
			return err
		},
	}.copyRows(ctx, w, rows)
}

// An update that changes nothing makes RETURNING include the tags which are
// there already: those that articles since deleted have left.
const addTags = `
INSERT INTO tags (name)
SELECT unnest($1::text[])
ON CONFLICT (name) DO UPDATE SET name = excluded.name
RETURNING id, name`

// tags writes the tags that have no id yet.
func (w *writer) tags(ctx context.Context, ids map[string]int64, batch []tagging) error {
	unknown := map[string]bool{}
	for _, t := range batch {
		if _, ok := ids[t.tag]; !ok {
			unknown[t.tag] = true
		}
	}
	if len(unknown) == 0 {
		return nil
	}
	rows, err := w.tx.Query(ctx, addTags, slices.Sorted(maps.Keys(unknown)))
	if err != nil {
		return err
	}
	var id int64
	var name string
	added, err := pgx.ForEachRow(rows, []any{&id, &name}, func() error {
		ids[name] = id
		return nil
	})
	if err != nil {
		return err
	}
	w.count("tags", added.RowsAffected())
	return nil
}

func (w *writer) articleTags(ctx context.Context, ids map[string]int64, batch []tagging) error {
	rows := func(yield func(tagging, error) bool) {
		for _, t := range batch {
			if !yield(t, nil) {
				return
			}
		}
	}
	return table[tagging]{
		name:    "article_tags",
		columns: []string{"article_id", "position", "tag_id"},
		values:  func(t tagging) []any { return []any{t.articleID, t.position, ids[t.tag]} },
	}.copyRows(ctx, w, rows)
}

func (w *writer) comments(ctx context.Context, rows iter.Seq2[Comment, error]) error {
	return table[Comment]{
		name:    "comments",
		columns: []string{"id", "article_id", "author_id", "body", "created_at", "updated_at"},
		values: func(c Comment) []any {
			return []any{c.ID, c.ArticleID, c.AuthorID, c.Body, c.CreatedAt, c.CreatedAt}
		},
	}.copyRows(ctx, w, rows)
}

func (w *writer) favorites(ctx context.Context, rows iter.Seq2[Favorite, error]) error {
	return table[Favorite]{
		name:    "favorites",
		columns: []string{"user_id", "article_id", "created_at"},
		values:  func(f Favorite) []any { return []any{f.UserID, f.ArticleID, f.CreatedAt} },
	}.copyRows(ctx, w, rows)
}

func (w *writer) follows(ctx context.Context, rows iter.Seq2[Follow, error]) error {
	return table[Follow]{
		name:    "follows",
		columns: []string{"follower_id", "followee_id", "created_at"},
		values:  func(f Follow) []any { return []any{f.FollowerID, f.FolloweeID, f.CreatedAt} },
	}.copyRows(ctx, w, rows)
}
