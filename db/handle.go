package db

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Handle runs statements on the servers that the router chooses, each by itself, or
// all in the transaction that the context carries. It is what sqlc calls DBTX. It may be
// kept and used by several goroutines.
type Handle struct {
	r     *Router
	write bool
	o     callOptions
}

// Read returns a handle for statements that only read; a write among them is
// [ErrReadOnly]. By default they see all that the context's session has seen, on a
// replica if one has come that far; without a session they go to the primary.
//
// A read that has shown no row yet is repeated on another server when its own stops,
// or ends it in favour of replay.
func (r *Router) Read(_ context.Context, options ...Option) *Handle {
	return r.read.with(options)
}

func (h *Handle) with(options []Option) *Handle {
	if len(options) == 0 {
		return h
	}
	other := &Handle{r: h.r, write: h.write}
	for _, option := range options {
		option(&other.o)
	}
	return other
}

// Write returns a handle for statements that write: each runs on the primary, in a
// transaction of its own, and the context's session has seen it when it returns. What
// cannot run in a transaction, such as VACUUM, cannot run here. Of the options, [Timeout]
// means something here.
func (r *Router) Write(_ context.Context, options ...Option) *Handle {
	return r.write.with(options)
}

// joined returns the context's transaction, for a statement.
func (h *Handle) joined(ctx context.Context) *tx {
	t := h.r.joined(ctx)
	if t != nil && h.write {
		t.part()
	}
	return t
}

// Exec runs a statement and returns its tag.
func (h *Handle) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	if tx := h.joined(ctx); tx != nil {
		return tx.Exec(ctx, sql, args...)
	}
	if h.write {
		return h.r.writeExec(ctx, &h.o, sql, args)
	}
	rows, err := h.r.readQuery(ctx, &h.o, sql, args)
	if err != nil {
		return pgconn.CommandTag{}, err
	}
	rows.Close()
	return rows.CommandTag(), rows.Err()
}

// Query runs a statement that returns rows. The connection is held until they are
// closed or read to their end; a write is done when they are.
func (h *Handle) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	if tx := h.joined(ctx); tx != nil {
		return tx.Query(ctx, sql, args...)
	}
	if h.write {
		rows, err := h.r.writeQuery(ctx, &h.o, sql, args)
		if err != nil {
			return failedRows{err}, err
		}
		return rows, nil
	}
	rows, err := h.r.readQuery(ctx, &h.o, sql, args)
	if err != nil {
		return failedRows{err}, err
	}
	return rows, nil
}

// QueryRow runs a statement that returns one row. Its errors come with Scan, which
// returns [pgx.ErrNoRows] when there is none.
func (h *Handle) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	if tx := h.joined(ctx); tx != nil {
		return tx.QueryRow(ctx, sql, args...)
	}
	rows, err := h.Query(ctx, sql, args...)
	return row{rows, err}
}

// SendBatch sends statements in one round trip; in a write handle they are one
// transaction. The results must be closed.
func (h *Handle) SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults {
	if tx := h.joined(ctx); tx != nil {
		return tx.SendBatch(ctx, b)
	}
	if h.write {
		return h.r.writeBatch(ctx, &h.o, b)
	}
	return h.r.readBatch(ctx, &h.o, b)
}

// CopyFrom copies rows into a table.
func (h *Handle) CopyFrom(ctx context.Context, table pgx.Identifier, columns []string, source pgx.CopyFromSource) (n int64, err error) {
	if tx := h.joined(ctx); tx != nil {
		return tx.CopyFrom(ctx, table, columns, source)
	}
	if !h.write {
		return 0, &ReadOnlyError{Caller: place()}
	}
	err = h.r.InTx(ctx, func(ctx context.Context, tx pgx.Tx) error {
		n, err = tx.CopyFrom(ctx, table, columns, source)
		return err
	})
	return n, err
}

// bounded gives a call a deadline where the caller has set none, or a later one: the
// server's own timeout ends a statement before, but not when the server is silent.
func (n *node) bounded(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	if timeout <= 0 {
		timeout = n.limits.QueryTimeout
	}
	deadline := time.Now().Add(timeout + grace)
	if have, ok := ctx.Deadline(); ok && have.Before(deadline) {
		return ctx, noCancel
	}
	return context.WithDeadline(ctx, deadline)
}

func noCancel() {}
