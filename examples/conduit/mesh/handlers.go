package mesh

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/loadlinehq/loadline/events"
	"github.com/loadlinehq/loadline/examples/conduit"
	"github.com/loadlinehq/loadline/examples/conduit/postgres"
	"github.com/loadlinehq/loadline/inbox"
)

// Handle has the effects of all types: what the monolith does in the request.
func Handle(c *events.Consumer, in *inbox.Inbox) {
	events.Handle(c, ArticlePublished, inbox.Handle(in, func(ctx context.Context, tx pgx.Tx, e events.Event[conduit.ArticlePublished]) error {
		return postgres.ArticlePublished(ctx, tx, e.Payload, e.Time)
	}))
	events.Handle(c, CommentWritten, inbox.Handle(in, func(ctx context.Context, tx pgx.Tx, e events.Event[conduit.CommentWritten]) error {
		return postgres.CommentWritten(ctx, tx, e.Payload)
	}))
	events.Handle(c, ArticleFavorited, inbox.Handle(in, func(ctx context.Context, tx pgx.Tx, e events.Event[conduit.ArticleFavorited]) error {
		return postgres.ArticleFavorited(ctx, tx, e.Payload)
	}))
	events.HandleBatch(c, ArticleViewed, events.BatchConfig{Size: 200}, inbox.HandleBatch(in, func(ctx context.Context, tx pgx.Tx, all []events.Event[conduit.ArticleViewed]) error {
		views := make(map[int64]int64)
		for _, e := range all {
			views[e.Payload.ArticleID]++
		}
		return postgres.ArticlesViewed(ctx, tx, views)
	}))
}
