package live

import (
	"context"
	"errors"
	"time"

	"github.com/loadlinehq/loadline/events"
	"github.com/loadlinehq/loadline/examples/conduit"
	"github.com/loadlinehq/loadline/examples/conduit/mesh"
	"github.com/loadlinehq/loadline/realtime"
	"github.com/loadlinehq/loadline/realtime/fromevents"
)

// MaxCommentBytes is up to which length a comment is told as it is; of a longer one is told that it is there. A hundred of these, which a channel keeps,
// are what a client reads in a moment.
const MaxCommentBytes = 4 << 10

// OfArticle is what an article's channel tells: one of these.
type OfArticle struct {
	Comment *Comment `json:"comment,omitempty"` // that was written
	Deleted int64    `json:"deleted,omitempty"` // the id of one that is gone
	Changed int64    `json:"changed,omitempty"` // the id of one that was written, and is to be read
}

// Comment is one as anybody sees it, in the API's words.
type Comment struct {
	ID        int64     `json:"id"`
	CreatedAt time.Time `json:"createdAt"`
	UpdatedAt time.Time `json:"updatedAt"`
	Body      string    `json:"body"`
	Author    Author    `json:"author"`
}

// Author is who has written a comment.
type Author struct {
	Username string  `json:"username"`
	Image    *string `json:"image"`
}

// OfUser is what a user's channel tells: that he has a notification.
type OfUser struct {
	Notified conduit.NotificationKind `json:"notified"`
}

// Comments are those of the database, or of a replica of it that has what the context's session has seen.
type Comments interface {
	// Comment returns one, or conduit.ErrCommentNotFound.
	Comment(ctx context.Context, id int64) (conduit.Comment, error)
}

// Handle tells what events say. What concerns an article is told in order.
func Handle(c *events.Consumer, to fromevents.Publisher, comments Comments) {
	fromevents.Handle(c, to, mesh.CommentWritten, func(ctx context.Context, e events.Event[conduit.CommentWritten]) ([]realtime.Publication, error) {
		written, err := comments.Comment(ctx, e.Payload.CommentID)
		switch {
		case errors.Is(err, conduit.ErrCommentNotFound):
			return nil, nil // it is gone already
		case errors.Is(err, conduit.ErrUnavailable):
			return nil, events.Unavailable(err)
		case err != nil:
			return nil, err
		}
		return []realtime.Publication{{Channel: article(e.Payload.ArticleID), Data: ofComment(written)}}, nil
	})
	fromevents.Handle(c, to, mesh.CommentDeleted, func(_ context.Context, e events.Event[conduit.CommentDeleted]) ([]realtime.Publication, error) {
		return []realtime.Publication{{Channel: article(e.Payload.ArticleID), Data: OfArticle{Deleted: e.Payload.CommentID}}}, nil
	})
	fromevents.Handle(c, to, mesh.Notified, func(_ context.Context, e events.Event[conduit.Notified]) ([]realtime.Publication, error) {
		all := make([]realtime.Publication, len(e.Payload.UserIDs))
		for i, id := range e.Payload.UserIDs {
			all[i] = realtime.Publication{Channel: user(id), Data: OfUser{Notified: e.Payload.Kind}}
		}
		return all, nil
	})
}

func ofComment(c conduit.Comment) OfArticle {
	if len(c.Body) > MaxCommentBytes {
		return OfArticle{Changed: c.ID}
	}
	told := &Comment{ID: c.ID, CreatedAt: c.CreatedAt.UTC(), UpdatedAt: c.UpdatedAt.UTC(), Body: c.Body, Author: Author{Username: c.Author.Username}}
	if c.Author.Image != "" {
		told.Author.Image = &c.Author.Image
	}
	return OfArticle{Comment: told}
}
