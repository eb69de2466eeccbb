package db

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/loadlinehq/loadline/causal"
)

// tx is a transaction that a context carries.
type tx struct {
	r          *Router
	lease      lease
	readOnly   bool
	xid        uint64
	savepoints int
	open       []int // savepoints that are neither released nor rolled back
	ended      bool
	failed     error // of a function that joined; nothing is committed then
	depth      int   // of functions that have joined and run
	carried    *causal.Transaction
}

// txKey is by router, since a program may have several.
type txKey struct{ r *Router }

func (r *Router) joined(ctx context.Context) *tx {
	t, _ := ctx.Value(txKey{r}).(*tx)
	return t
}

// InTransaction reports whether the context carries a transaction of this router: what
// runs with it runs in that.
func (r *Router) InTransaction(ctx context.Context) bool { return r.joined(ctx) != nil }

// InTx runs f in a transaction on the primary, and commits it when f returns nil. The
// context that f gets carries the transaction: reads and writes through the router, and
// InTx, join it. When f, or a function that has joined, returns an error or panics, all
// is rolled back. When InTx returns nil, the session of the context has seen the commit.
//
// It returns the error of f; [ErrRolledBack] when a failed statement, or a failed
// function that joined, kept the commit from happening although f returned nil;
// [ErrOutcomeUnknown] when the connection broke while committing; [ErrReadOnly]
// inside ReadTx; and those of [Handle.Exec]. F is not run again: [Retryable] says if
// the caller may. F must not keep the transaction, nor end it.
func (r *Router) InTx(ctx context.Context, f func(context.Context, pgx.Tx) error) (err error) {
	if outer := r.joined(ctx); outer != nil {
		if outer.readOnly {
			return &ReadOnlyError{Caller: place()}
		}
		return outer.join(ctx, f)
	}
	ctx, span := r.span(ctx, "transaction", "")
	defer func() { span.finish(err) }()
	t, err := r.beginWrite(ctx, beginSQL)
	if err != nil {
		return err
	}
	span.served(&t.lease)
	return t.run(ctx, f, t.commit)
}

// beginWrite begins a transaction on the primary.
func (r *Router) beginWrite(ctx context.Context, begin string) (*tx, error) {
	t := &tx{r: r}
	l, cancel, err := r.begun(ctx, 0, func(ctx context.Context, l *lease) (bool, error) {
		// The number is asked for now: when the connection breaks during the commit it is
		// too late.
		results, err := l.conn.Conn().PgConn().Exec(ctx, begin+"; select pg_current_xact_id()").ReadAll()
		if err != nil {
			return true, err
		}
		if len(results) != 2 || len(results[1].Rows) != 1 {
			return true, errors.New("db: a transaction's begin has not the results expected")
		}
		t.xid, err = strconv.ParseUint(string(results[1].Rows[0][0]), 10, 64)
		return true, err
	})
	if err != nil {
		return nil, err
	}
	cancel() // each statement is bounded by the server; the whole may take as long as its context
	t.lease = l
	return t, nil
}

// ReadTx runs f in a read-only transaction on one server, so that all its reads see
// the same state, chosen as for [Router.Read]. The context that f gets carries it.
func (r *Router) ReadTx(ctx context.Context, f func(context.Context, pgx.Tx) error, options ...Option) (err error) {
	if outer := r.joined(ctx); outer != nil {
		if outer.ended {
			return pgx.ErrTxClosed
		}
		return f(ctx, outer) // it changes nothing, so its error spoils nothing
	}
	var o callOptions
	for _, option := range options {
		option(&o)
	}
	ctx, span := r.span(ctx, "transaction", "")
	defer func() { span.finish(err) }()
	t, err := r.beginRead(ctx, "begin isolation level repeatable read read only", &o)
	if err != nil {
		return err
	}
	span.served(&t.lease)
	if err := t.run(ctx, f, t.end); err != nil {
		return readError(err)
	}
	return nil
}

// beginRead begins a transaction on a server that may answer, and on another one when
// that fails to.
func (r *Router) beginRead(ctx context.Context, begin string, o *callOptions) (*tx, error) {
	var tried uint64
	for attempts := 0; ; attempts++ {
		l, err := r.forReadProven(ctx, o, &tried)
		if err != nil {
			return nil, err
		}
		cancel, _, err := r.try(ctx, 0, &l, func(ctx context.Context, l *lease) (bool, error) {
			_, err := l.conn.Conn().Exec(ctx, begin)
			return true, err
		})
		cancel()
		if err == nil {
			return &tx{r: r, readOnly: true, lease: l}, nil
		}
		broken := l.conn.Conn().IsClosed()
		l.release()
		if ctx.Err() != nil || !elsewhere(err, broken) || attempts > len(r.nodes) {
			return nil, err
		}
		tried |= 1 << l.node.index
	}
}

// run gives the connection back whatever f does, before others are told of the commit, who may take their time.
func (t *tx) run(ctx context.Context, f func(context.Context, pgx.Tx) error, commit func(context.Context) error) error {
	inner, carried := causal.WithTransaction(context.WithValue(ctx, txKey{t.r}, t))
	t.carried = carried
	defer carried.RolledBack() // if nothing else
	err := t.runInner(inner, ctx, f, commit)
	switch {
	case err == nil:
		carried.Committed(ctx)
	case errors.Is(err, ErrOutcomeUnknown):
		carried.Unknown(ctx)
	}
	return err
}

func (t *tx) runInner(inner, outer context.Context, f func(context.Context, pgx.Tx) error, commit func(context.Context) error) error {
	defer func() {
		t.ended = true
		t.r.abandon(outer, &t.lease)
	}()
	if err := f(inner, t); err != nil {
		return err
	}
	if t.failed != nil {
		return because(ErrRolledBack, t.failed, "a function that joined the transaction failed")
	}
	return commit(outer)
}

// part notes a write that is part of the transaction only because there is one.
func (t *tx) part() {
	if t.depth == 0 && !t.readOnly && t.carried != nil {
		t.carried.Part()
	}
}

// join runs f in a transaction that somebody else ends.
func (t *tx) join(ctx context.Context, f func(context.Context, pgx.Tx) error) error {
	if t.ended {
		return pgx.ErrTxClosed
	}
	err := errors.New("it panicked")
	t.part()
	t.depth++
	defer func() {
		t.depth--
		if err != nil && t.failed == nil {
			t.failed = err
		}
	}()
	err = f(ctx, t)
	return err
}

// commit asks for the setting, commits, and asks for the position, in one message.
func (t *tx) commit(ctx context.Context) error {
	conn := t.lease.conn.Conn().PgConn()
	if conn.TxStatus() == 'E' {
		return because(ErrRolledBack, pgx.ErrTxCommitRollback, "a statement in it had failed")
	}
	if len(t.open) > 0 { // a rollback to it has failed, perhaps, and nobody looked
		return because(ErrRolledBack, pgx.ErrTxCommitRollback, "a part of it (Begin) was neither committed nor rolled back")
	}
	// An old primary may still run when another has been promoted: who knows that does
	// not give it another write to lose.
	if c := t.r.cluster.Load(); c.timeline != t.lease.timeline {
		return because(ErrNoEligibleNode, nil, "%s was the primary of timeline %d, and there is a newer one (%d)", t.lease.node.name, t.lease.timeline, c.timeline)
	}
	if conn.IsClosed() {
		return because(ErrRolledBack, pgconn.ErrConnClosed, "its connection broke before the COMMIT")
	}
	bounded, cancel := t.lease.node.bounded(ctx, 0)
	defer cancel()
	results, err := conn.Exec(bounded, settingSQL+";"+commitSQL+";"+positionSQL).ReadAll()
	if err != nil {
		if len(results) > 1 && results[1].Err == nil && results[1].CommandTag.String() == "COMMIT" {
			t.r.sawSomewhere(ctx, &t.lease) // only where it is, is not known
			return nil
		}
		return unknown(err, t.xid, &t.lease)
	}
	lsn, async, err := committed(results)
	if err != nil {
		return err
	}
	t.r.saw(ctx, &t.lease, lsn, async)
	return nil
}

// end ends a transaction that has changed nothing.
func (t *tx) end(ctx context.Context) error {
	if t.lease.conn.Conn().PgConn().TxStatus() == 'E' {
		return because(ErrRolledBack, pgx.ErrTxCommitRollback, "a statement in it had failed")
	}
	bounded, cancel := t.lease.node.bounded(ctx, 0)
	defer cancel()
	_, err := t.lease.conn.Conn().Exec(bounded, commitSQL)
	return err
}

var errEnds = errors.New("db: InTx and ReadTx end the transaction: return nil to commit, an error to roll back; Begin makes a savepoint")

// Commit is an error: returning nil commits.
func (t *tx) Commit(context.Context) error { return errEnds }

// Rollback is an error: returning an error rolls back.
func (t *tx) Rollback(context.Context) error {
	if t.ended {
		return pgx.ErrTxClosed // as a deferred Rollback expects
	}
	return errEnds
}

// Begin makes a savepoint.
func (t *tx) Begin(ctx context.Context) (pgx.Tx, error) {
	if _, err := t.conn(); err != nil {
		return nil, err
	}
	t.savepoints++
	s, err := newSavepoint(ctx, t, t.savepoints)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// LargeObjects works on large objects in the transaction. Only pgx's own transaction
// can do that, so one is made of this one, at the price of a round trip.
func (t *tx) LargeObjects() pgx.LargeObjects {
	if t.ended {
		return pgx.LargeObjects{}
	}
	ctx, cancel := context.WithTimeout(context.Background(), t.lease.node.limits.QueryTimeout)
	defer cancel()
	inner, err := t.lease.conn.Conn().BeginTx(ctx, pgx.TxOptions{BeginQuery: "select"})
	if err != nil {
		return pgx.LargeObjects{}
	}
	return inner.LargeObjects()
}

func (t *tx) conn() (*pgx.Conn, error) {
	if t.ended {
		return nil, pgx.ErrTxClosed
	}
	return t.lease.conn.Conn(), nil
}

func (t *tx) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	conn, err := t.conn()
	if err != nil {
		return pgconn.CommandTag{}, err
	}
	ctx, span := t.r.span(ctx, "statement", sql)
	tag, err := conn.Exec(ctx, sql, args...)
	span.finish(err)
	return tag, t.named(err)
}

func (t *tx) named(err error) error {
	if err != nil && t.readOnly {
		return readError(err)
	}
	return err
}

func (t *tx) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	conn, err := t.conn()
	if err != nil {
		return failedRows{err}, err
	}
	ctx, span := t.r.span(ctx, "statement", sql)
	rows, err := conn.Query(ctx, sql, args...)
	if span.Span == nil && !t.readOnly {
		return rows, err
	}
	if err != nil {
		err = t.named(err)
		span.finish(err)
	}
	return &txRows{rows, t, span}, err
}

func (t *tx) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	rows, err := t.Query(ctx, sql, args...)
	return row{rows, err}
}

func (t *tx) SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults {
	conn, err := t.conn()
	if err != nil {
		return pgx.FailedBatchResults(b, err)
	}
	return conn.SendBatch(ctx, b)
}

func (t *tx) CopyFrom(ctx context.Context, table pgx.Identifier, columns []string, source pgx.CopyFromSource) (int64, error) {
	conn, err := t.conn()
	if err != nil {
		return 0, err
	}
	n, err := conn.CopyFrom(ctx, table, columns, source)
	return n, t.named(err)
}

func (t *tx) Prepare(ctx context.Context, name, sql string) (*pgconn.StatementDescription, error) {
	conn, err := t.conn()
	if err != nil {
		return nil, err
	}
	return conn.Prepare(ctx, name, sql)
}

// Conn is nil after the end.
func (t *tx) Conn() *pgx.Conn {
	conn, _ := t.conn()
	return conn
}

// Outcome asks the primary what became of a transaction; see [OutcomeUnknownError]. It
// is "committed", "aborted", "in progress", or empty when the server no longer knows. When it
// is "committed", the session of the context has seen it.
//
// Numbers do not outlive the server: after a crash, those of transactions that it has
// undone are given again, as after a failover. Then Outcome returns an error, and only
// something that the transaction itself has written, such as an idempotency key, can say
// what became of it.
func (r *Router) Outcome(ctx context.Context, unknown *OutcomeUnknownError) (string, error) {
	if unknown.XID == 0 {
		return "", errors.New("db: the transaction's number is not known: only InTx and BeginTx ask for it")
	}
	var tried uint64
	l, err := r.forRead(ctx, &callOptions{policy: strong}, &tried)
	if err != nil {
		return "", err
	}
	defer l.release()
	if unknown.Timeline != l.timeline {
		return "", fmt.Errorf("db: the transaction was of timeline %d, and a failover has begun %d", unknown.Timeline, l.timeline)
	}
	if life := infoOf(l.conn.Conn()).life(); !life.started.Equal(unknown.life.started) || life.replayed != unknown.life.replayed {
		return "", fmt.Errorf("db: %s has been restarted since the transaction, whose number it may have given to another", l.node.name)
	}
	bounded, cancel := l.node.bounded(ctx, 0)
	defer cancel()
	var outcome *string
	var insert, flush string
	err = l.conn.Conn().QueryRow(bounded, "SELECT pg_xact_status($1::text::xid8), pg_current_wal_insert_lsn()::text, pg_current_wal_flush_lsn()::text",
		strconv.FormatUint(unknown.XID, 10)).Scan(&outcome, &insert, &flush)
	if err != nil || outcome == nil {
		return "", err
	}
	if *outcome == "committed" {
		lsn, err := position(insert, flush, "off")
		if err != nil {
			return "", err
		}
		r.saw(ctx, &l, lsn, false)
	}
	return *outcome, nil
}

// savepoint is a part of a transaction that can be rolled back by itself.
type savepoint struct {
	*tx
	number int
	name   string
	over   bool
}

func newSavepoint(ctx context.Context, t *tx, number int) (*savepoint, error) {
	s := &savepoint{tx: t, number: number, name: fmt.Sprintf("loadline_%d", number)}
	if _, err := t.Exec(ctx, "savepoint "+s.name); err != nil {
		return nil, err
	}
	t.open = append(t.open, number)
	return s, nil
}

// Commit keeps what was done since the savepoint.
func (s *savepoint) Commit(ctx context.Context) error { return s.finish(ctx, "release savepoint ") }

// Rollback undoes what was done since the savepoint, also when its context is done: what
// was begun with that must not be committed by whoever is outside.
func (s *savepoint) Rollback(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	return s.finish(ctx, "rollback to savepoint ")
}

func (s *savepoint) finish(ctx context.Context, how string) error {
	if s.over {
		return pgx.ErrTxClosed
	}
	s.over = true
	if _, err := s.tx.Exec(ctx, how+s.name); err != nil {
		return err
	}
	// Those within it are over, too.
	s.open = slices.DeleteFunc(s.open, func(n int) bool { return n >= s.number })
	return nil
}

func (s *savepoint) Begin(ctx context.Context) (pgx.Tx, error) {
	if s.over {
		return nil, pgx.ErrTxClosed
	}
	return s.tx.Begin(ctx)
}

func (s *savepoint) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	if s.over {
		return pgconn.CommandTag{}, pgx.ErrTxClosed
	}
	return s.tx.Exec(ctx, sql, args...)
}

func (s *savepoint) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	if s.over {
		return failedRows{pgx.ErrTxClosed}, pgx.ErrTxClosed
	}
	return s.tx.Query(ctx, sql, args...)
}

func (s *savepoint) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	rows, err := s.Query(ctx, sql, args...)
	return row{rows, err}
}

func (s *savepoint) SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults {
	if s.over {
		return pgx.FailedBatchResults(b, pgx.ErrTxClosed)
	}
	return s.tx.SendBatch(ctx, b)
}

func (s *savepoint) CopyFrom(ctx context.Context, table pgx.Identifier, columns []string, source pgx.CopyFromSource) (int64, error) {
	if s.over {
		return 0, pgx.ErrTxClosed
	}
	return s.tx.CopyFrom(ctx, table, columns, source)
}
