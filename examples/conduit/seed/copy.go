package seed

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"slices"

	"github.com/jackc/pgx/v5"
)

// batchRows is how many rows one COPY takes. PostgreSQL keeps the rows of a
// statement for its triggers and a note of each for the foreign keys: so many
// cost it a few megabytes, and the start of a statement no longer counts. A
// guess.
const batchRows = 10_000

// writer copies content into the tables of a transaction.
type writer struct {
	tx       pgx.Tx
	progress Progress
	tables   []TableRows
}

// table says how rows of one kind are stored.
type table[T any] struct {
	name    string
	columns []string
	values  func(T) []any
	then    func() error // may be nil; runs after each batch
}

// copyRows copies all rows in batches.
func (t table[T]) copyRows(ctx context.Context, w *writer, rows iter.Seq2[T, error]) error {
	next, stop := iter.Pull2(rows)
	defer stop()
	for more := true; more; {
		// COPY turns an error of ours into one of the server, and loses it.
		var failed error
		left := batchRows
		batch := pgx.CopyFromFunc(func() ([]any, error) {
			if left == 0 {
				return nil, nil
			}
			left--
			row, err, ok := next()
			if failed, more = err, ok; !ok || err != nil {
				return nil, err
			}
			return t.values(row), nil
		})
		copied, err := w.tx.CopyFrom(ctx, pgx.Identifier{t.name}, t.columns, batch)
		if err != nil {
			return fmt.Errorf("%s: %w", t.name, cmp.Or(failed, ctx.Err(), err))
		}
		w.count(t.name, copied)
		if t.then != nil {
			if err := t.then(); err != nil {
				return err
			}
		}
	}
	return nil
}

// count adds to the rows of a table.
func (w *writer) count(table string, rows int64) {
	i := slices.IndexFunc(w.tables, func(t TableRows) bool { return t.Table == table })
	if i < 0 {
		i = len(w.tables)
		w.tables = append(w.tables, TableRows{Table: table})
	}
	w.tables[i].Rows += rows
	if w.progress != nil {
		w.progress(table, rows)
	}
}
