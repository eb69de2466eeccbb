package caching

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/loadlinehq/loadline/cache"
	"github.com/loadlinehq/loadline/examples/conduit"
	"github.com/loadlinehq/loadline/examples/conduit/postgres"
	"github.com/loadlinehq/loadline/examples/conduit/postgres/sqlc"
	"github.com/loadlinehq/loadline/outbox"
)

// Outbox is where a write says in its transaction what it ends; package outbox's Outbox is one.
type Outbox interface {
	AddInvalidation(ctx context.Context, tx outbox.Tx, records ...[]byte) error
}

// Store is a postgres.Store whose shared part is cached. What it does not say itself, that does.
type Store struct {
	*postgres.Store
	caches *Caches
	box    Outbox
}

// NewStore returns a Store over one that reads and writes the database. The relay of the outbox must have the caches
// for its Invalidator.
func NewStore(database *postgres.Store, caches *Caches, box Outbox) *Store {
	s := &Store{caches: caches, box: box}
	s.Store = database.Telling(s)
	return s
}

type endedKey struct{}

// ended is what a write has changed, in its transaction.
type ended struct{ targets []cache.Target }

// Changed implements postgres.Changes: the relay ends it whatever becomes of this process.
func (s *Store) Changed(ctx context.Context, tx sqlc.DBTX, change any) error {
	targets, err := s.caches.targets(ctx, change)
	if err != nil {
		return err
	}
	return s.tell(ctx, tx, targets)
}

func (s *Store) tell(ctx context.Context, tx sqlc.DBTX, targets []cache.Target) error {
	batches, ok := tx.(outbox.Tx)
	if !ok {
		return fmt.Errorf("caching: a %T cannot send batches", tx)
	}
	records := make([][]byte, len(targets))
	for i, target := range targets {
		records[i] = target.Record()
	}
	if e, ok := ctx.Value(endedKey{}).(*ended); ok {
		e.targets = append(e.targets, targets...)
	}
	return s.box.AddInvalidation(ctx, batches, records...)
}

// writing runs a write, and when it has been committed ends what it has changed, so that its session, and soon all, are
// given what is cached again. All at once: of a write that caches know in part, the session would not be given
// anything. Where nothing of what is kept has changed, that is said as well.
func writing[T any](ctx context.Context, s *Store, write func(ctx context.Context) (T, error)) (T, error) {
	e := new(ended)
	written, err := write(context.WithValue(ctx, endedKey{}, e))
	// What was refused has changed nothing, and may have a position all the same.
	_, refused := errors.AsType[*conduit.Error](err)
	if err == nil || refused && len(e.targets) == 0 {
		// The client may have gone; the change has not.
		if err := s.caches.Invalidate(context.WithoutCancel(ctx), e.targets...); err != nil {
			s.caches.log.DebugContext(ctx, "a change is not announced; the relay will", slog.Any("error", err))
		}
	}
	return written, err
}

// CreateUser implements httpapi.Store.
func (s *Store) CreateUser(ctx context.Context, r conduit.Registration, passwordHash string) (conduit.User, error) {
	return writing(ctx, s, func(ctx context.Context) (conduit.User, error) { return s.Store.CreateUser(ctx, r, passwordHash) })
}

// UpdateUser implements httpapi.Store.
func (s *Store) UpdateUser(ctx context.Context, id int64, c conduit.UserChange, passwordHash string) (conduit.User, error) {
	return writing(ctx, s, func(ctx context.Context) (conduit.User, error) {
		return s.Store.UpdateUser(ctx, id, c, passwordHash)
	})
}

// CreateArticle implements httpapi.Store.
func (s *Store) CreateArticle(ctx context.Context, author int64, d conduit.Draft) (conduit.Article, error) {
	return writing(ctx, s, func(ctx context.Context) (conduit.Article, error) { return s.Store.CreateArticle(ctx, author, d) })
}

// UpdateArticle implements httpapi.Store.
func (s *Store) UpdateArticle(ctx context.Context, author int64, slug string, c conduit.ArticleChange) (conduit.Article, error) {
	return writing(ctx, s, func(ctx context.Context) (conduit.Article, error) {
		return s.Store.UpdateArticle(ctx, author, slug, c)
	})
}

// DeleteArticle implements httpapi.Store.
func (s *Store) DeleteArticle(ctx context.Context, author int64, slug string) error {
	_, err := writing(ctx, s, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, s.Store.DeleteArticle(ctx, author, slug)
	})
	return err
}

// Favorite implements httpapi.Store.
func (s *Store) Favorite(ctx context.Context, viewer int64, slug string) (conduit.Article, error) {
	return writing(ctx, s, func(ctx context.Context) (conduit.Article, error) { return s.Store.Favorite(ctx, viewer, slug) })
}

// Unfavorite implements httpapi.Store.
func (s *Store) Unfavorite(ctx context.Context, viewer int64, slug string) (conduit.Article, error) {
	return writing(ctx, s, func(ctx context.Context) (conduit.Article, error) { return s.Store.Unfavorite(ctx, viewer, slug) })
}

// CreateComment implements httpapi.Store.
func (s *Store) CreateComment(ctx context.Context, author int64, slug, body string) (conduit.Comment, error) {
	return writing(ctx, s, func(ctx context.Context) (conduit.Comment, error) {
		return s.Store.CreateComment(ctx, author, slug, body)
	})
}

// DeleteComment implements httpapi.Store.
func (s *Store) DeleteComment(ctx context.Context, author int64, slug string, id int64) error {
	_, err := writing(ctx, s, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, s.Store.DeleteComment(ctx, author, slug, id)
	})
	return err
}

// Follow implements httpapi.Store.
func (s *Store) Follow(ctx context.Context, viewer int64, username string) (conduit.Profile, error) {
	return writing(ctx, s, func(ctx context.Context) (conduit.Profile, error) { return s.Store.Follow(ctx, viewer, username) })
}

// Unfollow implements httpapi.Store.
func (s *Store) Unfollow(ctx context.Context, viewer int64, username string) (conduit.Profile, error) {
	return writing(ctx, s, func(ctx context.Context) (conduit.Profile, error) { return s.Store.Unfollow(ctx, viewer, username) })
}

// MarkRead implements httpapi.Store.
func (s *Store) MarkRead(ctx context.Context, user, upTo int64) error {
	_, err := writing(ctx, s, func(ctx context.Context) (struct{}, error) { return struct{}{}, s.Store.MarkRead(ctx, user, upTo) })
	return err
}
