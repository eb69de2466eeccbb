package postgres

import (
	"context"

	"github.com/loadlinehq/loadline/examples/conduit"
	"github.com/loadlinehq/loadline/examples/conduit/postgres/sqlc"
)

// Store stores Conduit. It may be used concurrently.
//
// Its methods take inputs that have been cleaned, and return the errors of
// package conduit that their comments name.
type Store struct {
	db       DB
	recorder Recorder
	changes  Changes // nil: nobody wants to know
}

// NewStore returns a Store on the database that has what happens recorded.
func NewStore(db DB, recorder Recorder) *Store { return &Store{db: db, recorder: recorder} }

// record takes note of what happens in the context's transaction.
func (s *Store) record(ctx context.Context, happened any) error {
	return s.recorder.Record(ctx, s.db.Write(ctx), happened)
}

func (s *Store) read(ctx context.Context) *sqlc.Queries  { return sqlc.New(s.db.Read(ctx)) }
func (s *Store) write(ctx context.Context) *sqlc.Queries { return sqlc.New(s.db.Write(ctx)) }

// Marks returns what the viewer thinks of these articles and users. It is one
// round trip for a whole page.
func (s *Store) Marks(ctx context.Context, viewer int64, articles, users []int64) (conduit.Marks, error) {
	row, err := s.read(ctx).Marks(ctx, sqlc.MarksParams{ViewerID: viewer, ArticleIDs: articles, UserIDs: users})
	if err != nil {
		return conduit.Marks{}, domainError("marks", err, nil)
	}
	return conduit.Marks(row), nil
}
