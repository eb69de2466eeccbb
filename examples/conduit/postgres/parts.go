package postgres

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"

	"github.com/loadlinehq/loadline/examples/conduit"
	"github.com/loadlinehq/loadline/examples/conduit/postgres/sqlc"
)

// Listing is a page of a list by its articles' ids, and which users the filter has named: 0 for
// one who does not exist, or was not asked for.
type Listing struct {
	IDs             []int64
	Total           int
	AuthorID, FanID int64
}

// ListArticleIDs is ListArticles without the articles.
func (s *Store) ListArticleIDs(ctx context.Context, f conduit.ArticleFilter, w conduit.Window) (Listing, error) {
	q := s.read(ctx)
	sc, err := resolve(ctx, q, f)
	l := Listing{Total: sc.total, AuthorID: sc.authorID, FanID: sc.fanID}
	if errors.Is(err, pgx.ErrNoRows) {
		return l, nil // nothing fits a name that does not exist
	}
	if err != nil {
		return Listing{}, domainError("list articles", err, nil)
	}
	if w.Offset >= sc.total {
		return l, nil
	}
	limit, offset := int32(w.Limit), int32(w.Offset)
	switch {
	case f.FavoritedBy != "":
		l.IDs, err = q.ArticleIDsFavoritedBy(ctx, sqlc.ArticleIDsFavoritedByParams{
			UserID: sc.fanID, AuthorID: sc.authorID, TagID: sc.tagID, PageLimit: limit, PageOffset: offset,
		})
	case f.Author != "":
		l.IDs, err = q.ArticleIDsByAuthor(ctx, sqlc.ArticleIDsByAuthorParams{
			AuthorID: sc.authorID, TagID: sc.tagID, PageLimit: limit, PageOffset: offset,
		})
	case f.Tag != "":
		l.IDs, err = q.ArticleIDsByTag(ctx, sqlc.ArticleIDsByTagParams{TagID: sc.tagID, PageLimit: limit, PageOffset: offset})
	default:
		l.IDs, err = q.ArticleIDs(ctx, sqlc.ArticleIDsParams{PageLimit: limit, PageOffset: offset})
	}
	return l, domainError("list articles", err, nil)
}

// FeedIDs is Feed without the articles.
func (s *Store) FeedIDs(ctx context.Context, viewer int64, w conduit.Window) (Listing, error) {
	q := s.read(ctx)
	total, err := q.CountFeed(ctx, viewer)
	if err != nil || int64(w.Offset) >= total {
		return Listing{Total: int(total)}, domainError("feed", err, nil)
	}
	ids, err := q.FeedIDs(ctx, sqlc.FeedIDsParams{
		FollowerID: viewer, PageLimit: int32(w.Limit), PageOffset: int32(w.Offset), PageDepth: int32(w.Limit + w.Offset),
	})
	return Listing{IDs: ids, Total: int(total)}, domainError("feed", err, nil)
}

// ArticlePart is Article with no more of its author than the id.
func (s *Store) ArticlePart(ctx context.Context, slug string) (conduit.Article, error) {
	row, err := s.read(ctx).ArticlePart(ctx, slug)
	a := summaryPart(sqlc.SummaryPartsRow{
		ID: row.ID, Slug: row.Slug, Title: row.Title, Description: row.Description, FavoritesCount: row.FavoritesCount,
		CreatedAt: row.CreatedAt, UpdatedAt: row.UpdatedAt, AuthorID: row.AuthorID, TagList: row.TagList,
	})
	a.Body = row.Body
	return a, domainError("article", err, conduit.ErrArticleNotFound)
}

// SummaryParts returns those of the articles that exist, by id, as lists show them, with no more of their
// authors than the ids.
func (s *Store) SummaryParts(ctx context.Context, ids []int64) (map[int64]conduit.Article, error) {
	rows, err := s.read(ctx).SummaryParts(ctx, ids)
	if err != nil {
		return nil, domainError("articles", err, nil)
	}
	articles := make(map[int64]conduit.Article, len(rows))
	for _, row := range rows {
		articles[row.ID] = summaryPart(row)
	}
	return articles, nil
}

// ProfileParts returns those of the users who exist, by id.
func (s *Store) ProfileParts(ctx context.Context, ids []int64) (map[int64]conduit.Profile, error) {
	rows, err := s.read(ctx).ProfileParts(ctx, ids)
	if err != nil {
		return nil, domainError("profiles", err, nil)
	}
	profiles := make(map[int64]conduit.Profile, len(rows))
	for _, row := range rows {
		profiles[row.ID] = conduit.Profile(row)
	}
	return profiles, nil
}

// CommentParts is Comments of an article by its id, with no more of their authors than the ids.
func (s *Store) CommentParts(ctx context.Context, article int64) ([]conduit.Comment, error) {
	rows, err := s.read(ctx).CommentParts(ctx, sqlc.CommentPartsParams{
		ArticleID: article, PageLimit: conduit.MaxComments, MaxBytes: conduit.MaxCommentsBytes,
	})
	if err != nil {
		return nil, domainError("comments", err, nil)
	}
	comments := make([]conduit.Comment, len(rows))
	for i, row := range rows {
		comments[i] = conduit.Comment{
			ID: row.ID, Body: row.Body, CreatedAt: row.CreatedAt, UpdatedAt: row.UpdatedAt, Author: conduit.Profile{ID: row.AuthorID},
		}
	}
	return comments, nil
}

func summaryPart(row sqlc.SummaryPartsRow) conduit.Article {
	return conduit.Article{
		ID: row.ID, Slug: row.Slug, Title: row.Title, Description: row.Description, TagList: row.TagList,
		FavoritesCount: int(row.FavoritesCount), CreatedAt: row.CreatedAt, UpdatedAt: row.UpdatedAt, Author: conduit.Profile{ID: row.AuthorID},
	}
}
