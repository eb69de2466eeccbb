package postgres

import (
	"context"

	"github.com/loadlinehq/loadline/examples/conduit"
	"github.com/loadlinehq/loadline/examples/conduit/postgres/sqlc"
)

// Comments returns the newest comments of an article, as many as MaxComments and
// MaxCommentsBytes allow, the newest first. It returns ErrArticleNotFound.
func (s *Store) Comments(ctx context.Context, slug string) ([]conduit.Comment, error) {
	q := s.read(ctx)
	articleID, err := q.ArticleIDBySlug(ctx, slug)
	if err != nil {
		return nil, domainError("comments", err, conduit.ErrArticleNotFound)
	}
	rows, err := q.ListComments(ctx, sqlc.ListCommentsParams{
		ArticleID: articleID, PageLimit: conduit.MaxComments, MaxBytes: conduit.MaxCommentsBytes,
	})
	if err != nil {
		return nil, domainError("comments", err, nil)
	}
	comments := make([]conduit.Comment, len(rows))
	for i, row := range rows {
		comments[i] = comment(row)
	}
	return comments, nil
}

// Comment returns one comment, or ErrCommentNotFound.
func (s *Store) Comment(ctx context.Context, id int64) (conduit.Comment, error) {
	row, err := s.read(ctx).CommentByID(ctx, id)
	if err != nil {
		return conduit.Comment{}, domainError("comment", err, conduit.ErrCommentNotFound)
	}
	return comment(sqlc.ListCommentsRow(row)), nil
}

// CreateComment adds a comment to an article. It returns ErrArticleNotFound or
// ErrNoViewer.
func (s *Store) CreateComment(ctx context.Context, author int64, slug, body string) (conduit.Comment, error) {
	var created conduit.Comment
	err := s.db.InTx(ctx, func(ctx context.Context) error {
		row, err := s.write(ctx).CreateComment(ctx, sqlc.CreateCommentParams{AuthorID: author, Slug: slug, Body: body})
		if err != nil {
			return err
		}
		created = comment(sqlc.ListCommentsRow{
			ID: row.ID, Body: row.Body, CreatedAt: row.CreatedAt, UpdatedAt: row.UpdatedAt,
			AuthorID: row.AuthorID, AuthorUsername: row.AuthorUsername, AuthorBio: row.AuthorBio, AuthorImage: row.AuthorImage,
		})
		if err := s.changed(ctx, conduit.CommentsChanged{ArticleID: row.ArticleID}); err != nil {
			return err
		}
		return s.record(ctx, conduit.CommentWritten{CommentID: row.ID, ArticleID: row.ArticleID})
	})
	return created, domainError("create comment", err, conduit.ErrArticleNotFound)
}

// DeleteComment deletes a comment of the author's. It returns
// ErrArticleNotFound, ErrCommentNotFound or ErrCommentForbidden.
func (s *Store) DeleteComment(ctx context.Context, author int64, slug string, id int64) error {
	in := s.changing
	if s.publishes() {
		in = s.db.InTx
	}
	err := in(ctx, func(ctx context.Context) error {
		found, err := s.write(ctx).DeleteComment(ctx, sqlc.DeleteCommentParams{Slug: slug, ID: id, AuthorID: author})
		switch {
		case err != nil:
			return err
		case found.ArticleID == 0:
			return conduit.ErrArticleNotFound
		case found.AuthorID == 0:
			return conduit.ErrCommentNotFound
		case found.AuthorID != author:
			return conduit.ErrCommentForbidden
		case !found.Deleted: // somebody was quicker
			return conduit.ErrCommentNotFound
		}
		if err := s.changed(ctx, conduit.CommentsChanged{ArticleID: found.ArticleID}); err != nil {
			return err
		}
		return s.record(ctx, conduit.CommentDeleted{CommentID: id, ArticleID: found.ArticleID})
	})
	return domainError("delete comment", err, nil)
}

func comment(row sqlc.ListCommentsRow) conduit.Comment {
	return conduit.Comment{
		ID:        row.ID,
		Body:      row.Body,
		CreatedAt: row.CreatedAt,
		UpdatedAt: row.UpdatedAt,
		Author: conduit.Profile{
			ID:       row.AuthorID,
			Username: row.AuthorUsername,
			Bio:      row.AuthorBio,
			Image:    row.AuthorImage,
		},
	}
}
