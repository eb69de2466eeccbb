package postgres

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"

	"github.com/loadlinehq/loadline/examples/conduit"
	"github.com/loadlinehq/loadline/examples/conduit/postgres/sqlc"
)

// ListArticles returns a page of the articles that fit the filter. It costs a
// round trip for each name in the filter, one for the total unless a counter
// has it, and one for the page.
func (s *Store) ListArticles(ctx context.Context, f conduit.ArticleFilter, w conduit.Window) (conduit.ArticlePage, error) {
	q := s.read(ctx)
	sc, err := resolve(ctx, q, f)
	if errors.Is(err, pgx.ErrNoRows) {
		return conduit.ArticlePage{}, nil // nothing fits a name that does not exist
	}
	if err != nil {
		return conduit.ArticlePage{}, domainError("list articles", err, nil)
	}
	if w.Offset >= sc.total {
		return conduit.ArticlePage{Total: sc.total}, nil
	}

	limit, offset := int32(w.Limit), int32(w.Offset)
	var rows []sqlc.ArticleSummary
	switch {
	case f.FavoritedBy != "":
		rows, err = q.ListArticlesFavoritedBy(ctx, sqlc.ListArticlesFavoritedByParams{
			UserID: sc.fanID, AuthorID: sc.authorID, TagID: sc.tagID, PageLimit: limit, PageOffset: offset,
		})
	case f.Author != "":
		rows, err = q.ListArticlesByAuthor(ctx, sqlc.ListArticlesByAuthorParams{
			AuthorID: sc.authorID, TagID: sc.tagID, PageLimit: limit, PageOffset: offset,
		})
	case f.Tag != "":
		rows, err = q.ListArticlesByTag(ctx, sqlc.ListArticlesByTagParams{
			TagID: sc.tagID, PageLimit: limit, PageOffset: offset,
		})
	default:
		rows, err = q.ListArticles(ctx, sqlc.ListArticlesParams{PageLimit: limit, PageOffset: offset})
	}
	if err != nil {
		return conduit.ArticlePage{}, domainError("list articles", err, nil)
	}
	return page(rows, sc.total), nil
}

// scope is a filter by ids, 0 for a field that does not narrow, and the number
// of articles that fit it.
type scope struct {
	fanID    int64
	authorID int64
	tagID    int64
	total    int
}

// resolve returns pgx.ErrNoRows when a name in the filter does not exist, and then the ids of
// those before it.
func resolve(ctx context.Context, q *sqlc.Queries, f conduit.ArticleFilter) (scope, error) {
	var sc scope
	var tagged, written int
	if f.FavoritedBy != "" {
		fan, err := q.ProfileByUsername(ctx, f.FavoritedBy)
		if err != nil {
			return sc, err
		}
		sc.fanID = fan.ID
	}
	if f.Author != "" {
		author, err := q.ProfileByUsername(ctx, f.Author)
		if err != nil {
			return sc, err
		}
		sc.authorID, written = author.ID, int(author.ArticlesCount)
	}
	if f.Tag != "" {
		tag, err := q.TagByName(ctx, f.Tag)
		if err != nil {
			return sc, err
		}
		sc.tagID, tagged = tag.ID, int(tag.ArticlesCount)
	}

	var total int64
	var err error
	switch {
	case f.FavoritedBy != "":
		total, err = q.CountArticlesFavoritedBy(ctx, sqlc.CountArticlesFavoritedByParams{
			UserID: sc.fanID, AuthorID: sc.authorID, TagID: sc.tagID,
		})
	case f.Author != "" && f.Tag != "":
		total, err = q.CountArticlesByAuthorAndTag(ctx, sqlc.CountArticlesByAuthorAndTagParams{
			AuthorID: sc.authorID, TagID: sc.tagID,
		})
	case f.Author != "":
		total = int64(written)
	case f.Tag != "":
		total = int64(tagged)
	default:
		total, err = q.CountArticles(ctx)
	}
	sc.total = int(total)
	return sc, err
}

// Feed returns a page of the articles by users whom the viewer follows.
func (s *Store) Feed(ctx context.Context, viewer int64, w conduit.Window) (conduit.ArticlePage, error) {
	q := s.read(ctx)
	total, err := q.CountFeed(ctx, viewer)
	if err != nil {
		return conduit.ArticlePage{}, domainError("feed", err, nil)
	}
	if int64(w.Offset) >= total {
		return conduit.ArticlePage{Total: int(total)}, nil
	}
	rows, err := q.ListFeed(ctx, sqlc.ListFeedParams{
		FollowerID: viewer,
		PageLimit:  int32(w.Limit),
		PageOffset: int32(w.Offset),
		PageDepth:  int32(w.Limit + w.Offset),
	})
	if err != nil {
		return conduit.ArticlePage{}, domainError("feed", err, nil)
	}
	return page(rows, int(total)), nil
}

func page(rows []sqlc.ArticleSummary, total int) conduit.ArticlePage {
	p := conduit.ArticlePage{Articles: make([]conduit.Article, len(rows)), Total: total}
	for i, row := range rows {
		p.Articles[i] = summary(row)
	}
	return p
}
