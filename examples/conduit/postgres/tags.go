package postgres

import (
	"context"

	"github.com/loadlinehq/loadline/examples/conduit"
	"github.com/loadlinehq/loadline/examples/conduit/postgres/sqlc"
)

// Tags returns the tags in use, the most used first, at most MaxTagsListed.
func (s *Store) Tags(ctx context.Context) ([]string, error) {
	names, err := s.read(ctx).ListTags(ctx, conduit.MaxTagsListed)
	return names, domainError("tags", err, nil)
}

// addTags makes sure that the tags exist.
func addTags(ctx context.Context, q *sqlc.Queries, names []string) error {
	if len(names) == 0 {
		return nil
	}
	return q.AddTags(ctx, names)
}

// replaceTags gives the article these tags, which exist, instead of its own.
func replaceTags(ctx context.Context, q *sqlc.Queries, articleID int64, names []string) error {
	// The two statements below lock the rows of their tags one after the
	// other, in no common order.
	if err := q.LockTags(ctx, sqlc.LockTagsParams{ArticleID: articleID, Names: names}); err != nil {
		return err
	}
	if err := q.ClearArticleTags(ctx, articleID); err != nil {
		return err
	}
	return q.SetArticleTags(ctx, sqlc.SetArticleTagsParams{ArticleID: articleID, Names: names})
}
