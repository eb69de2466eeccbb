package db

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// writeRows are the rows of a write. It is committed when they have been read.
type writeRows struct {
	pgx.Rows
	w   *writing
	err error
}

func (r *Router) writeQuery(ctx context.Context, o *callOptions, sql string, args []any) (*writeRows, error) {
	if err := noOption(args); err != nil {
		return nil, err
	}
	w, err := r.send(ctx, o, []*pgx.QueuedQuery{{SQL: sql, Arguments: args}})
	if err != nil {
		return nil, err
	}
	rows, err := w.results.Query()
	if err != nil {
		if known := w.finish(); known != nil { // it knows more of it
			err = known
		}
		return nil, err
	}
	return &writeRows{Rows: rows, w: w}, nil
}

func (rows *writeRows) Next() bool {
	if rows.Rows.Next() {
		return true
	}
	rows.finish()
	return false
}

func (rows *writeRows) Close() { rows.finish() }

func (rows *writeRows) Err() error {
	if rows.err != nil {
		return rows.err
	}
	return rows.Rows.Err()
}

func (rows *writeRows) Scan(dest ...any) error {
	err := rows.Rows.Scan(dest...)
	if err != nil {
		rows.finish()
	}
	return err
}

func (rows *writeRows) Values() ([]any, error) {
	values, err := rows.Rows.Values()
	if err != nil {
		rows.finish()
	}
	return values, err
}

func (rows *writeRows) finish() {
	rows.Rows.Close()
	if err := rows.w.finish(); err != nil {
		rows.err = err
	}
}

// writeBatch sends a batch as one transaction.
func (r *Router) writeBatch(ctx context.Context, o *callOptions, b *pgx.Batch) pgx.BatchResults {
	if err := noTx(b); err != nil {
		return pgx.FailedBatchResults(b, err)
	}
	w, err := r.send(ctx, o, b.QueuedQueries)
	if err != nil {
		return pgx.FailedBatchResults(b, err)
	}
	return &writeResults{results: w.results, w: w, left: b.Len()}
}

// noTx refuses a batch that begins a transaction which outlives it: nobody would end it.
func noTx(b *pgx.Batch) error {
	if pgx.FailedBatchResults(b, nil).Tx() != nil {
		return errors.New("db: a batch that begins a transaction (Batch.BeginTx) has no place to go on in: send it over the Tx of InTx or BeginTx")
	}
	return nil
}

// writeResults are those of the caller's statements. Ours come after them.
type writeResults struct {
	results pgx.BatchResults
	w       *writing
	left    int
	err     error
	closed  bool
}

var errNoMore = errors.New("db: there are no more results in the batch")

func (b *writeResults) next() error {
	if b.closed || b.left == 0 {
		return errNoMore
	}
	b.left--
	return nil
}

func (b *writeResults) Exec() (pgconn.CommandTag, error) {
	if err := b.next(); err != nil {
		return pgconn.CommandTag{}, err
	}
	return b.results.Exec()
}

func (b *writeResults) Query() (pgx.Rows, error) {
	if err := b.next(); err != nil {
		return failedRows{err}, err
	}
	return b.results.Query()
}

func (b *writeResults) QueryRow() pgx.Row {
	if err := b.next(); err != nil {
		return row{err: err}
	}
	return b.results.QueryRow()
}

// Tx is nil: a batch that begins a transaction is not sent.
func (*writeResults) Tx() pgx.Tx { return nil }

func (b *writeResults) Close() error {
	if !b.closed {
		b.closed, b.err = true, b.w.finish()
	}
	return b.err
}
