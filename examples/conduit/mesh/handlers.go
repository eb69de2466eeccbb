package mesh

import (
	"context"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/loadlinehq/loadline/events"
	"github.com/loadlinehq/loadline/examples/conduit"
	"github.com/loadlinehq/loadline/examples/conduit/postgres"
	"github.com/loadlinehq/loadline/inbox"
)

// handle has the effects of all types: what the monolith does in the request.
func (m *Mesh) handle(c *events.Consumer) {
	telling(c, m, ArticlePublished, conduit.OfArticle, func(ctx context.Context, tx pgx.Tx, e events.Event[conduit.ArticlePublished]) ([]int64, error) {
		return postgres.ArticlePublished(ctx, tx, e.Payload, e.Time)
	})
	telling(c, m, CommentWritten, conduit.OfComment, func(ctx context.Context, tx pgx.Tx, e events.Event[conduit.CommentWritten]) ([]int64, error) {
		return postgres.CommentWritten(ctx, tx, e.Payload)
	})
	telling(c, m, ArticleFavorited, conduit.OfFavorite, func(ctx context.Context, tx pgx.Tx, e events.Event[conduit.ArticleFavorited]) ([]int64, error) {
		return postgres.ArticleFavorited(ctx, tx, e.Payload)
	})
	events.HandleBatch(c, ArticleViewed, events.BatchConfig{Size: 200}, inbox.HandleBatch(m.inbox, func(ctx context.Context, tx pgx.Tx, all []events.Event[conduit.ArticleViewed]) error {
		views := make(map[int64]int64)
		for _, e := range all {
			views[e.Payload.ArticleID]++
		}
		return postgres.ArticlesViewed(ctx, tx, views)
	}))
}

// maxTold is how many users one Notified names. Each is a publication to Redis: some hundred milliseconds of work, so that an article by
// somebody with a hundred thousand followers is shared by all instances, and a failure repeats little of it.
const maxTold = 500

// telling handles a type whose effect notifies the users that it returns, and records that in the same transaction. The group that tells browsers is
// another one, and may be ahead of this one: it must hear of a notification that is there.
func telling[T any](c *events.Consumer, m *Mesh, t events.Type[T], kind conduit.NotificationKind, effect func(context.Context, pgx.Tx, events.Event[T]) ([]int64, error)) {
	handle := inbox.Handle(m.inbox, func(ctx context.Context, tx pgx.Tx, e events.Event[T]) error {
		told, err := effect(ctx, tx, e)
		if err != nil {
			return err
		}
		for users := range slices.Chunk(told, maxTold) {
			if err := m.Record(ctx, tx, conduit.Notified{Kind: kind, UserIDs: users}); err != nil {
				return err
			}
		}
		return nil
	})
	events.Handle(c, t, func(ctx context.Context, e events.Event[T]) error {
		err := handle(ctx, e)
		if err == nil {
			m.wakeRelay()
		}
		return err
	})
}
