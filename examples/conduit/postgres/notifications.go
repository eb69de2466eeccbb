package postgres

import (
	"context"
	"math"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/loadlinehq/loadline/examples/conduit"
	"github.com/loadlinehq/loadline/examples/conduit/postgres/sqlc"
)

// Notifications returns the newest notifications of a user that are older than one of
// them, or the newest of all where before is 0.
func (s *Store) Notifications(ctx context.Context, user, before int64, limit int) (conduit.Notifications, error) {
	if before <= 0 {
		before = math.MaxInt64
	}
	q := s.read(ctx)
	rows, err := q.ListNotifications(ctx, sqlc.ListNotificationsParams{UserID: user, Before: before, PageLimit: int32(limit)})
	if err != nil {
		return conduit.Notifications{}, domainError("notifications", err, nil)
	}
	unread, err := q.CountUnread(ctx, user)
	if err != nil {
		return conduit.Notifications{}, domainError("notifications", err, nil)
	}
	n := conduit.Notifications{List: make([]conduit.Notification, len(rows)), Unread: int(unread)}
	for i, row := range rows {
		n.List[i] = conduit.Notification{
			ID: row.ID, Kind: conduit.NotificationKind(row.Kind), CommentID: row.CommentID, CreatedAt: row.CreatedAt, Read: row.Read,
			ArticleSlug: row.ArticleSlug, ArticleTitle: row.ArticleTitle,
			Actor: conduit.Profile{ID: row.ActorID, Username: row.ActorUsername, Bio: row.ActorBio, Image: row.ActorImage},
		}
	}
	return n, nil
}

// MarkRead notes that a user has read his notifications up to one.
func (s *Store) MarkRead(ctx context.Context, user, upTo int64) error {
	return domainError("mark read", s.write(ctx).MarkRead(ctx, sqlc.MarkReadParams{UserID: user, UpTo: upTo}), nil)
}

// Viewed counts a view at once: what the monolith does in the request.
func (s *Store) Viewed(ctx context.Context, article int64) error {
	err := ArticlesViewed(ctx, s.db.Write(ctx), map[int64]int64{article: 1})
	return domainError("viewed", err, nil)
}

// Views returns how often an article has been viewed, or ErrArticleNotFound.
func (s *Store) Views(ctx context.Context, slug string) (int64, error) {
	views, err := s.read(ctx).ArticleViews(ctx, slug)
	return views, domainError("views", err, conduit.ErrArticleNotFound)
}

// PopularTags returns the tags that most articles were published with since a day, or the
// one that is named.
func (s *Store) PopularTags(ctx context.Context, since time.Time, name string, limit int) ([]conduit.PopularTag, error) {
	rows, err := s.read(ctx).PopularTags(ctx, sqlc.PopularTagsParams{Since: date(since), Name: name, PageLimit: int32(limit)})
	if err != nil {
		return nil, domainError("popular tags", err, nil)
	}
	tags := make([]conduit.PopularTag, len(rows))
	for i, row := range rows {
		tags[i] = conduit.PopularTag{Name: row.Tag, Articles: int(row.Articles)}
	}
	return tags, nil
}

// date is the day of a moment, in UTC.
func date(t time.Time) pgtype.Date {
	return pgtype.Date{Time: t.UTC().Truncate(24 * time.Hour), Valid: true}
}
