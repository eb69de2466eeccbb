package postgres

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/loadlinehq/loadline/examples/conduit"
	"github.com/loadlinehq/loadline/examples/conduit/postgres/sqlc"
)

// Recorder takes note of what has happened, in the transaction in which it happens: an
// outbox, or Immediately.
type Recorder interface {
	Record(ctx context.Context, tx sqlc.DBTX, happened any) error
}

// Immediately has the effects of what happens in the same transaction, while the client
// waits: the form that events are compared with.
type Immediately struct{}

// Record implements Recorder.
func (Immediately) Record(ctx context.Context, tx sqlc.DBTX, happened any) error {
	var err error
	switch h := happened.(type) {
	case conduit.ArticlePublished:
		_, err = ArticlePublished(ctx, tx, h, time.Now())
	case conduit.CommentWritten:
		_, err = CommentWritten(ctx, tx, h)
	case conduit.CommentDeleted: // nothing follows, but for who is looking
	case conduit.ArticleFavorited:
		_, err = ArticleFavorited(ctx, tx, h)
	default:
		err = fmt.Errorf("postgres: %T has no effect", happened)
	}
	return err
}

// publishes reports whether others hear of what is recorded.
func (s *Store) publishes() bool {
	_, alone := s.recorder.(Immediately)
	return !alone
}

// ArticlePublished tells followers, whose ids it returns, and counts tags.
func ArticlePublished(ctx context.Context, tx sqlc.DBTX, p conduit.ArticlePublished, at time.Time) (told []int64, err error) {
	q := sqlc.New(tx)
	if told, err = q.NotifyFollowers(ctx, p.ArticleID); err != nil {
		return nil, fmt.Errorf("postgres: notify followers: %w", err)
	}
	if len(p.Tags) == 0 {
		return told, nil
	}
	if err := q.CountTags(ctx, sqlc.CountTagsParams{Day: date(at), Tags: p.Tags}); err != nil {
		return nil, fmt.Errorf("postgres: count tags: %w", err)
	}
	return told, nil
}

// CommentWritten tells the article's author. It returns who was told: nobody of his own comment.
func CommentWritten(ctx context.Context, tx sqlc.DBTX, c conduit.CommentWritten) (told []int64, err error) {
	if told, err = sqlc.New(tx).NotifyOfComment(ctx, c.CommentID); err != nil {
		return nil, fmt.Errorf("postgres: notify of comment: %w", err)
	}
	return told, nil
}

// ArticleFavorited tells the article's author. It returns who was told: nobody twice.
func ArticleFavorited(ctx context.Context, tx sqlc.DBTX, f conduit.ArticleFavorited) (told []int64, err error) {
	if told, err = sqlc.New(tx).NotifyOfFavorite(ctx, sqlc.NotifyOfFavoriteParams{ArticleID: f.ArticleID, UserID: f.UserID}); err != nil {
		return nil, fmt.Errorf("postgres: notify of favourite: %w", err)
	}
	return told, nil
}

// ArticlesViewed counts views. Articles that are gone are passed over.
func ArticlesViewed(ctx context.Context, tx sqlc.DBTX, views map[int64]int64) error {
	params := sqlc.AddViewsParams{ArticleIDs: slices.Sorted(maps.Keys(views))}
	for _, id := range params.ArticleIDs {
		params.Views = append(params.Views, views[id])
	}
	if err := sqlc.New(tx).AddViews(ctx, params); err != nil {
		return fmt.Errorf("postgres: add views: %w", err)
	}
	return nil
}
