package db

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
)

// readRows are the rows of a read. The first has been fetched already, so that a read
// can be repeated elsewhere until then.
type readRows struct {
	pgx.Rows
	results pgx.BatchResults // nil when the query went by itself
	lease   lease
	cancel  context.CancelFunc
	span    span
	primed  bool // the first row, or that there is none, is yet to be told
	has     bool
	err     error
}

func (r *Router) readQuery(ctx context.Context, o *callOptions, sql string, args []any) (*readRows, error) {
	ctx, span := r.span(ctx, "read", sql)
	rows, err := r.readTraced(ctx, span, o, sql, args)
	if err != nil {
		err = readError(err)
		span.finish(err)
	}
	return rows, err
}

func (r *Router) readTraced(ctx context.Context, span span, o *callOptions, sql string, args []any) (*readRows, error) {
	var tried uint64
	var p patience
	var l lease
	defer func() { l.release() }() // in a panic, of an argument's Value method or a tracer
	for attempts := 0; ; attempts++ {
		if l.conn == nil {
			next := r.forRead
			if noOption(args) != nil && o.timeout <= 0 {
				next = r.forReadProven // what goes along with others takes no option
			}
			var err error
			if l, err = next(ctx, o, &tried); err != nil {
				return nil, err
			}
		}
		rows, n := &readRows{lease: l}, l.node
		span.served(&l)
		var bounded context.Context
		bounded, rows.cancel = n.bounded(ctx, o.timeout)
		if l.unproven {
			p.begin(o.waitOr(r.config.Wait))
		}
		behind, err := rows.send(bounded, o, sql, args)
		if behind {
			_ = rows.results.Close() // of what nobody wants to see
			rows.cancel()
			if !r.another(ctx, &l, &p) {
				tried |= 1 << n.index
			}
			attempts-- // nothing has failed
			continue
		}
		l = lease{} // it is the rows'
		if err == nil {
			rows.primed, rows.has = true, rows.Rows.Next()
			if rows.has {
				rows.span = span
				return rows, nil
			}
			err = rows.Rows.Err()
		}
		broken, late := rows.lease.conn.Conn().IsClosed(), bounded.Err() != nil
		if err == nil {
			rows.span = span
		}
		rows.finish()
		if err == nil {
			return rows, nil
		}
		if ctx.Err() != nil || late || !elsewhere(err, broken) || attempts > len(r.nodes) {
			return nil, err
		}
		tried |= 1 << n.index
		n.suspect()
	}
}

// send sends the query, with what must come before it in the same message: they are one
// transaction then, of which each statement has a snapshot of its own. Behind: the
// server has not come to what is needed.
func (rows *readRows) send(ctx context.Context, o *callOptions, sql string, args []any) (behind bool, err error) {
	conn := rows.lease.conn.Conn()
	if !rows.lease.unproven && o.timeout <= 0 {
		rows.Rows, err = conn.Query(ctx, sql, args...)
		return false, err
	}
	if err := noOption(args); err != nil {
		rows.Rows = failedRows{err}
		return false, err
	}
	b := &pgx.Batch{}
	if o.timeout > 0 {
		b.Queue(timeoutSQL, milliseconds(o.timeout))
	}
	if rows.lease.unproven {
		b.Queue(guardSQL, int64(rows.lease.timeline), rows.lease.target.String())
	}
	b.Queue(sql, args...)
	rows.Rows, rows.results = failedRows{}, conn.SendBatch(ctx, b)
	if o.timeout > 0 {
		if _, err := rows.results.Exec(); err != nil {
			return false, err
		}
	}
	if rows.lease.unproven {
		ok, err := rows.lease.heard(rows.results.QueryRow())
		if sqlState(err) == guardFailed {
			ok, err = false, nil
		}
		if _, before := errors.AsType[pgx.ErrPreprocessingBatch](err); before {
			// Of a table that the server does not have yet, perhaps.
			_ = rows.results.Close()
			if has, checkErr := rows.lease.heard(conn.QueryRow(ctx, checkSQL)); checkErr == nil && !has {
				ok, err = false, nil
			}
		}
		if err != nil || !ok {
			return err == nil, err
		}
	}
	rows.Rows, err = rows.results.Query()
	return false, err
}

// timeoutSQL lasts to the end of the transaction.
const timeoutSQL = "select set_config('statement_timeout', $1, true)"

func (rows *readRows) Next() bool {
	if rows.primed {
		rows.primed = false
		return rows.has
	}
	if rows.Rows.Next() {
		return true
	}
	rows.finish()
	return false
}

func (rows *readRows) Close() {
	rows.primed = false
	rows.finish()
}

func (rows *readRows) finish() {
	rows.Rows.Close()
	if rows.lease.conn == nil {
		return
	}
	rows.err = rows.Rows.Err()
	if rows.results != nil {
		if err := rows.results.Close(); rows.err == nil {
			rows.err = err
		}
	}
	rows.lease.release()
	rows.cancel()
	rows.span.finish(rows.err)
}

func (rows *readRows) Err() error {
	if rows.err != nil {
		return readError(rows.err)
	}
	return rows.Rows.Err()
}

func (rows *readRows) Scan(dest ...any) error {
	err := rows.Rows.Scan(dest...)
	if err != nil {
		rows.finish()
	}
	return err
}

func (rows *readRows) Values() ([]any, error) {
	values, err := rows.Rows.Values()
	if err != nil {
		rows.finish()
	}
	return values, err
}

// row is one row of rows, as pgx defines it.
type row struct {
	rows pgx.Rows
	err  error
}

func (r row) Scan(dest ...any) error {
	if r.err != nil {
		return r.err
	}
	defer r.rows.Close()
	for _, d := range dest {
		if _, ok := d.(*pgtype.DriverBytes); ok {
			return errors.New("db: cannot scan into *pgtype.DriverBytes from QueryRow")
		}
	}
	if !r.rows.Next() {
		if err := r.rows.Err(); err != nil {
			return err
		}
		return pgx.ErrNoRows
	}
	if err := r.rows.Scan(dest...); err != nil {
		return err
	}
	r.rows.Close()
	return r.rows.Err()
}

// failedRows are those of a query that has not been sent.
type failedRows struct{ err error }

func (failedRows) Close()                                       {}
func (f failedRows) Err() error                                 { return f.err }
func (failedRows) CommandTag() pgconn.CommandTag                { return pgconn.CommandTag{} }
func (failedRows) FieldDescriptions() []pgconn.FieldDescription { return nil }
func (failedRows) Next() bool                                   { return false }
func (f failedRows) Scan(...any) error                          { return f.err }
func (f failedRows) Values() ([]any, error)                     { return nil, f.err }
func (failedRows) RawValues() [][]byte                          { return nil }
func (failedRows) Conn() *pgx.Conn                              { return nil }
func (failedRows) TypeMap() *pgtype.Map                         { return nil }

// readBatch sends a batch to one server. A batch can be sent once, so it is not
// repeated elsewhere.
func (r *Router) readBatch(ctx context.Context, o *callOptions, b *pgx.Batch) pgx.BatchResults {
	if err := noTx(b); err != nil {
		return pgx.FailedBatchResults(b, err)
	}
	ctx, span := r.span(ctx, "read", "")
	span.size(b.Len())
	var tried uint64
	l, err := r.forReadProven(ctx, o, &tried)
	if err != nil {
		span.finish(err)
		return pgx.FailedBatchResults(b, err)
	}
	span.served(&l)
	results := &readResults{span: span}
	results.cancel, _, _ = r.try(ctx, o.timeout, &l, func(ctx context.Context, l *lease) (bool, error) {
		results.BatchResults = l.conn.Conn().SendBatch(ctx, b)
		return true, nil
	})
	results.lease = l
	return results
}

type readResults struct {
	pgx.BatchResults
	lease  lease
	cancel context.CancelFunc
	span   span
}

func (b *readResults) Close() error {
	defer func() { // also when a function of the batch's panics
		b.lease.release()
		b.cancel()
	}()
	err := b.BatchResults.Close()
	if err != nil {
		err = readError(err)
	}
	b.span.finish(err)
	return err
}
