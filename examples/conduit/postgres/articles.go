package postgres

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"

	"github.com/loadlinehq/loadline/examples/conduit"
	"github.com/loadlinehq/loadline/examples/conduit/postgres/sqlc"
)

// errNoSlug means that all slugs of a title were taken, random ones included.
var errNoSlug = errors.New("no slug of the title is free")

// Article returns an article or ErrArticleNotFound.
func (s *Store) Article(ctx context.Context, slug string) (conduit.Article, error) {
	row, err := s.read(ctx).ArticleBySlug(ctx, slug)
	return article(row), domainError("article", err, conduit.ErrArticleNotFound)
}

// CreateArticle publishes an article. It returns ErrNoViewer.
func (s *Store) CreateArticle(ctx context.Context, author int64, d conduit.Draft) (conduit.Article, error) {
	var created conduit.Article
	err := s.db.InTx(ctx, func(ctx context.Context) error {
		q := s.write(ctx)
		// Before the article: whoever waits for one of our new tags then
		// holds nothing that we still need.
		if err := addTags(ctx, q, d.TagList); err != nil {
			return err
		}
		id, err := insertArticle(ctx, q, author, d)
		if err != nil {
			return err
		}
		if len(d.TagList) > 0 {
			if err := q.SetArticleTags(ctx, sqlc.SetArticleTagsParams{ArticleID: id, Names: d.TagList}); err != nil {
				return err
			}
		}
		if created, err = articleByID(ctx, q, id); err != nil {
			return err
		}
		if err := s.changed(ctx, conduit.ArticleChanged{ID: id, AuthorID: author, Slug: created.Slug, Tags: d.TagList}); err != nil {
			return err
		}
		return s.record(ctx, conduit.ArticlePublished{ArticleID: id, AuthorID: author, Tags: d.TagList})
	})
	return created, domainError("create article", err, nil)
}

func insertArticle(ctx context.Context, q *sqlc.Queries, author int64, d conduit.Draft) (id int64, err error) {
	for slug := range conduit.Slugs(d.Title) {
		id, err := q.CreateArticle(ctx, sqlc.CreateArticleParams{
			Slug:        slug,
			Title:       d.Title,
			Description: d.Description,
			Body:        d.Body,
			AuthorID:    author,
		})
		if !errors.Is(err, pgx.ErrNoRows) {
			return id, err
		}
	}
	return 0, errNoSlug
}

// UpdateArticle changes an article of the author's. A new title gives it a new
// slug. It returns ErrArticleNotFound or ErrArticleForbidden.
func (s *Store) UpdateArticle(ctx context.Context, author int64, slug string, c conduit.ArticleChange) (conduit.Article, error) {
	var updated conduit.Article
	err := s.db.InTx(ctx, func(ctx context.Context) error {
		q := s.write(ctx)
		if err := addTags(ctx, q, c.TagList); err != nil {
			return err
		}
		locked, err := q.LockArticle(ctx, slug)
		if err != nil {
			return err
		}
		if locked.AuthorID != author {
			return conduit.ErrArticleForbidden
		}
		change := conduit.ArticleChanged{ID: locked.ID, AuthorID: author, OldSlug: slug}
		if c.TagList != nil && s.changes != nil {
			if change.OldTags, err = q.TagsOfArticle(ctx, locked.ID); err != nil {
				return err
			}
			change.Tags = c.TagList
		}
		err = q.UpdateArticle(ctx, sqlc.UpdateArticleParams{ID: locked.ID, Description: c.Description, Body: c.Body})
		if err != nil {
			return err
		}
		if c.Title != nil && *c.Title != locked.Title {
			if err := s.rename(ctx, locked.ID, *c.Title); err != nil {
				return err
			}
		}
		if c.TagList != nil {
			if err := replaceTags(ctx, q, locked.ID, c.TagList); err != nil {
				return err
			}
		}
		if updated, err = articleByID(ctx, q, locked.ID); err != nil {
			return err
		}
		change.Slug = updated.Slug
		return s.changed(ctx, change)
	})
	return updated, domainError("update article", err, conduit.ErrArticleNotFound)
}

// rename gives an article a title and a slug that is free. Each attempt is in a
// savepoint, since a violation would end the transaction.
func (s *Store) rename(ctx context.Context, id int64, title string) error {
	q, tx := s.write(ctx), s.db.Write(ctx)
	if _, err := tx.Exec(ctx, "SAVEPOINT rename"); err != nil {
		return err
	}
	for slug := range conduit.Slugs(title) {
		renamed, err := q.RenameArticle(ctx, sqlc.RenameArticleParams{ID: id, Title: title, Slug: slug})
		switch {
		case err == nil && renamed == 1:
			return nil
		case err == nil:
			// Somebody has the slug.
		case slugTaken(err):
			// Somebody took it at the same time.
			if _, err := tx.Exec(ctx, "ROLLBACK TO SAVEPOINT rename"); err != nil {
				return err
			}
		default:
			return err
		}
	}
	return errNoSlug
}

// DeleteArticle deletes an article of the author's, with its comments and
// favourites. It returns ErrArticleNotFound or ErrArticleForbidden.
func (s *Store) DeleteArticle(ctx context.Context, author int64, slug string) error {
	err := s.changing(ctx, func(ctx context.Context) error {
		q := s.write(ctx)
		gone := conduit.ArticleChanged{AuthorID: author, OldSlug: slug}
		if s.changes != nil {
			// Locked, its tags are what they will have been.
			locked, err := q.LockArticle(ctx, slug)
			if err != nil {
				return err
			}
			if locked.AuthorID != author {
				return conduit.ErrArticleForbidden
			}
			gone.ID = locked.ID
			if gone.OldTags, err = q.TagsOfArticle(ctx, locked.ID); err != nil {
				return err
			}
		}
		found, err := q.DeleteArticle(ctx, sqlc.DeleteArticleParams{Slug: slug, AuthorID: author})
		switch {
		case err != nil:
			return err
		case found.AuthorID != author:
			return conduit.ErrArticleForbidden
		case !found.Deleted: // somebody was quicker
			return conduit.ErrArticleNotFound
		}
		return s.changed(ctx, gone)
	})
	return domainError("delete article", err, conduit.ErrArticleNotFound)
}

// Favorite adds the article to the viewer's favourites, once or again. It
// returns ErrArticleNotFound or ErrNoViewer.
func (s *Store) Favorite(ctx context.Context, viewer int64, slug string) (conduit.Article, error) {
	var favorite conduit.Article
	err := s.db.InTx(ctx, func(ctx context.Context) error {
		q := s.write(ctx)
		found, err := q.Favorite(ctx, sqlc.FavoriteParams{Slug: slug, UserID: viewer})
		if err != nil {
			return err
		}
		if found.Added {
			if err := s.record(ctx, conduit.ArticleFavorited{ArticleID: found.ID, UserID: viewer}); err != nil {
				return err
			}
		}
		if favorite, err = articleByID(ctx, q, found.ID); err != nil {
			return err
		}
		// By its slug of now: it may have got another while the statement waited for it.
		return s.changed(ctx, conduit.FavoriteChanged{ArticleID: found.ID, Slug: favorite.Slug, UserID: viewer})
	})
	return favorite, domainError("favorite", err, conduit.ErrArticleNotFound)
}

// Unfavorite removes the article from the viewer's favourites. It returns
// ErrArticleNotFound.
func (s *Store) Unfavorite(ctx context.Context, viewer int64, slug string) (conduit.Article, error) {
	var article conduit.Article
	err := s.changing(ctx, func(ctx context.Context) error {
		q := s.write(ctx)
		id, err := q.Unfavorite(ctx, sqlc.UnfavoriteParams{Slug: slug, UserID: viewer})
		if err != nil {
			return err
		}
		if article, err = articleByID(ctx, q, id); err != nil {
			return err
		}
		return s.changed(ctx, conduit.FavoriteChanged{ArticleID: id, Slug: article.Slug, UserID: viewer})
	})
	return article, domainError("unfavorite", err, conduit.ErrArticleNotFound)
}

func articleByID(ctx context.Context, q *sqlc.Queries, id int64) (conduit.Article, error) {
	row, err := q.ArticleByID(ctx, id)
	return article(sqlc.ArticleBySlugRow(row)), err
}

func article(row sqlc.ArticleBySlugRow) conduit.Article {
	a := summary(row.ArticleSummary)
	a.Body = row.Body
	return a
}

func summary(row sqlc.ArticleSummary) conduit.Article {
	return conduit.Article{
		ID:             row.ID,
		Slug:           row.Slug,
		Title:          row.Title,
		Description:    row.Description,
		TagList:        row.TagList,
		FavoritesCount: int(row.FavoritesCount),
		CreatedAt:      row.CreatedAt,
		UpdatedAt:      row.UpdatedAt,
		Author: conduit.Profile{
			ID:       row.AuthorID,
			Username: row.AuthorUsername,
			Bio:      row.AuthorBio,
			Image:    row.AuthorImage,
		},
	}
}
