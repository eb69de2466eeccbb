package postgres

import (
	"context"

	"github.com/loadlinehq/loadline/examples/conduit/postgres/sqlc"
)

// Changes is told what a write changes of what everyone sees, in the write's transaction:
// a cache that has to end what it keeps of it. A change is conduit's ArticleChanged,
// FavoriteChanged, CommentsChanged or UserChanged. Its error undoes the write.
type Changes interface {
	Changed(ctx context.Context, tx sqlc.DBTX, change any) error
}

// Telling returns a store on the same database that tells of its writes. Those that are one
// statement are then a transaction.
func (s *Store) Telling(changes Changes) *Store {
	return &Store{db: s.db, recorder: s.recorder, changes: changes}
}

// changing runs a write that is one statement, in a transaction if somebody is to be told of it.
func (s *Store) changing(ctx context.Context, write func(ctx context.Context) error) error {
	if s.changes == nil {
		return write(ctx)
	}
	return s.db.InTx(ctx, write)
}

// changed tells of a change in the context's transaction.
func (s *Store) changed(ctx context.Context, change any) error {
	if s.changes == nil {
		return nil
	}
	return s.changes.Changed(ctx, s.db.Write(ctx), change)
}
