package db

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/loadlinehq/loadline/causal"
)

// A write is BEGIN, the statement, the setting, COMMIT and the positions, in one round
// trip. The positions are asked for after the COMMIT: before it, in RETURNING, or as
// a later statement of one implicit transaction, they are always below the commit's own
// record.
const (
	beginSQL = "begin read write"
	// settingSQL is asked just before the COMMIT, since SET LOCAL can change it in
	// the transaction and cannot be seen after it.
	settingSQL = "select current_setting('synchronous_commit')"
	commitSQL  = "commit"
	// positionSQL: see position.
	positionSQL = "select pg_current_wal_insert_lsn()::text, pg_current_wal_flush_lsn()::text"
)

// position is where a commit is. What has been flushed holds it if the commit has
// waited for that. Otherwise only the insert position is past it for certain; on a
// primary that is idle otherwise that can name bytes which nobody flushes for seconds.
func position(insert, flush, synchronous string) (causal.LSN, error) {
	if synchronous != "off" {
		return causal.ParseLSN(flush)
	}
	lsn, err := causal.ParseLSN(insert)
	return withoutHeader(lsn), err
}

const (
	walPage     = 8192
	walSegment  = 16 << 20 // the least; larger ones are multiples of it
	shortHeader = 24
	longHeader  = 40 // of a segment's first page
)

// withoutHeader takes off the page's header: a record that ends with its page has the
// next one's header after it, which no replica replays before there is another record.
// No record can end within a header, so this is never too low.
func withoutHeader(lsn causal.LSN) causal.LSN {
	switch {
	case lsn%walSegment == longHeader:
		return lsn - longHeader
	case lsn%walPage == shortHeader:
		return lsn - shortHeader
	}
	return lsn
}

// saw notes in the session, and for the case of a failover, what was committed.
func (r *Router) saw(ctx context.Context, l *lease, lsn causal.LSN, async bool) {
	m := causal.Mark{System: r.system.Load(), Timeline: l.timeline, LSN: lsn}
	w := ownWrite{Mark: m}
	if async {
		w.era = infoOf(l.conn.Conn()).life().era()
	}
	r.acknowledged(w)
	if s := causal.FromContext(ctx); s != nil {
		s.Add(m)
	}
}

// unknown names the error of a COMMIT that was sent and has not been answered. An
// error that leaves the connection open is an answer: the transaction is rolled back.
// One that ends it is not: a server that stops while it waits for a standby has
// committed already.
func unknown(err error, xid uint64, l *lease) error {
	if _, before := errors.AsType[pgx.ErrPreprocessingBatch](err); before || pgconn.SafeToRetry(err) && !errors.Is(err, pgconn.ErrConnClosed) {
		return err // it was not sent: an argument has no encoding, for example
	}
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok && !fatal(pg) {
		return err
	}
	return &OutcomeUnknownError{XID: xid, Timeline: l.timeline, Err: err, life: infoOf(l.conn.Conn()).life()}
}

func fatal(pg *pgconn.PgError) bool {
	severity := cmp.Or(pg.SeverityUnlocalized, pg.Severity)
	return severity == "FATAL" || severity == "PANIC"
}

// notPrimary reports that a server refused to begin: nothing has been done.
func notPrimary(err error) bool {
	code := sqlState(err)
	return code == "25006" || code == "0A000" || code == "57P03" || code == "57P01"
}

// begun sends a write to the primary, and to the next one if the first has been
// demoted, or broke. Send returns whether it is certain that nothing was done.
func (r *Router) begun(ctx context.Context, timeout time.Duration, send func(ctx context.Context, l *lease) (nothing bool, err error)) (lease, context.CancelFunc, error) {
	for attempt := 0; ; attempt++ {
		l, err := r.forWrite(ctx)
		if err != nil {
			return lease{}, nil, err
		}
		cancel, nothing, err := r.try(ctx, timeout, &l, send)
		if err == nil {
			return l, cancel, nil
		}
		broken := l.conn.Conn().IsClosed()
		r.abandon(ctx, &l)
		cancel()
		if nothing && (notPrimary(err) || broken) && ctx.Err() == nil {
			l.node.suspect()
			if attempt < len(r.nodes) {
				continue
			}
			if broken {
				err = because(ErrNoEligibleNode, err, "connections to the primary %s break", l.node.name)
			}
		}
		return lease{}, nil, err
	}
}

// try calls send, and gives the connection back when that panics: an argument's Value
// method can, or a tracer.
func (r *Router) try(ctx context.Context, timeout time.Duration, l *lease, send func(context.Context, *lease) (bool, error)) (context.CancelFunc, bool, error) {
	bounded, cancel := l.node.bounded(ctx, timeout)
	returned := false
	defer func() {
		if !returned {
			l.release()
			cancel()
		}
	}()
	nothing, err := send(bounded, l)
	returned = true
	return cancel, nothing, err
}

// abandon gives back a connection whose transaction may be open.
func (r *Router) abandon(ctx context.Context, l *lease) {
	conn := l.conn.Conn()
	if !conn.IsClosed() && !conn.PgConn().IsBusy() && conn.PgConn().TxStatus() != 'I' {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
		_, _ = conn.Exec(ctx, "rollback") // what cannot be rolled back is closed
		cancel()
	}
	l.release()
}

// noOption refuses what pgx takes as the first argument of a statement that goes alone.
func noOption(args []any) error {
	if len(args) > 0 {
		switch args[0].(type) {
		case pgx.QueryExecMode, pgx.QueryResultFormats, pgx.QueryResultFormatsByOID:
			return fmt.Errorf("db: a %T is only for reads, without Timeout, and in InTx: other statements go with more in one message, in the mode of Config.Configure's DefaultQueryExecMode", args[0])
		}
	}
	return nil
}

// writeExec runs one statement, or several when there are no arguments, as pgx does.
func (r *Router) writeExec(ctx context.Context, o *callOptions, sql string, args []any) (pgconn.CommandTag, error) {
	if len(args) == 0 {
		return r.writeText(ctx, o, sql)
	}
	rows, err := r.writeQuery(ctx, o, sql, args)
	if err != nil {
		return pgconn.CommandTag{}, err
	}
	rows.Close()
	return rows.CommandTag(), rows.Err()
}

// writeText sends statements as text, so that there may be several.
func (r *Router) writeText(ctx context.Context, o *callOptions, sql string) (tag pgconn.CommandTag, err error) {
	var lsn causal.LSN
	var async bool
	// On lines of their own: the statement may end with a comment.
	text := sql + "\n;" + settingSQL + ";" + commitSQL + ";" + positionSQL
	least := 4 // results, if there is no statement
	if o.timeout > 0 {
		text = "set local statement_timeout = " + milliseconds(o.timeout) + ";\n" + text
		least++
	}
	text = beginSQL + ";\n" + text
	ctx, span := r.span(ctx, "write", sql)
	defer func() { span.finish(err) }()
	l, cancel, err := r.begun(ctx, o.timeout, func(ctx context.Context, l *lease) (bool, error) {
		results, err := l.conn.Conn().PgConn().Exec(ctx, text).ReadAll()
		if err != nil {
			if begun := len(results) > 0 && results[0].Err == nil; !begun && sqlState(err) != "" {
				return true, err
			}
			answered := results
			if n := len(answered); n > 0 && answered[n-1].Err != nil {
				answered = answered[:n-1] // the positions
			}
			if n := len(answered); n > 2 && answered[n-1].CommandTag.String() == "COMMIT" && len(answered[n-2].Rows) == 1 {
				tag = pgconn.CommandTag{}
				if n > 3 {
					tag = answered[n-3].CommandTag
				}
				return false, nil
			}
			unsent := sqlState(err) == ""
			err = unknown(err, 0, l)
			return unsent && !errors.Is(err, ErrOutcomeUnknown), err
		}
		n := len(results)
		if n < least {
			return false, fmt.Errorf("db: %d results of a write", n)
		}
		tag = pgconn.CommandTag{}
		if n > least {
			tag = results[n-4].CommandTag
		}
		lsn, async, err = committed(results[n-3:])
		return false, err
	})
	if err != nil {
		return pgconn.CommandTag{}, err
	}
	span.served(&l)
	if lsn == 0 {
		r.sawSomewhere(ctx, &l)
	} else {
		r.saw(ctx, &l, lsn, async)
	}
	r.done(&l, cancel)
	return tag, nil
}

// committed reads the results of the setting, the COMMIT, and the positions.
func committed(results []*pgconn.Result) (lsn causal.LSN, async bool, err error) {
	if len(results) != 3 || len(results[0].Rows) != 1 || len(results[2].Rows) != 1 {
		return 0, false, errors.New("db: a commit's results are not as expected")
	}
	if results[1].CommandTag.String() != "COMMIT" {
		return 0, false, because(ErrRolledBack, pgx.ErrTxCommitRollback, "a statement in it had failed")
	}
	positions, setting := results[2].Rows[0], string(results[0].Rows[0][0])
	lsn, err = position(string(positions[0]), string(positions[1]), setting)
	return lsn, setting == "off", err
}

func (r *Router) done(l *lease, cancel context.CancelFunc) {
	l.release()
	cancel()
}

// writing is a write whose statements have been sent in one batch.
type writing struct {
	r       *Router
	ctx     context.Context
	lease   lease
	cancel  context.CancelFunc
	results pgx.BatchResults
	span    span

	timeout                time.Duration
	setting, insert, flush string
	tag                    pgconn.CommandTag
}

// send begins a transaction, sends statements in it and has it committed.
func (r *Router) send(ctx context.Context, o *callOptions, statements []*pgx.QueuedQuery) (w *writing, err error) {
	sql := ""
	if len(statements) == 1 {
		sql = statements[0].SQL
	}
	ctx, span := r.span(ctx, "write", sql)
	if len(statements) > 1 {
		span.size(len(statements))
	}
	w = &writing{r: r, ctx: ctx, timeout: o.timeout, span: span}
	w.lease, w.cancel, err = r.begun(ctx, o.timeout, func(ctx context.Context, l *lease) (bool, error) {
		w.results = l.conn.Conn().SendBatch(ctx, w.batch(statements))
		_, err := w.results.Exec()
		refused := sqlState(err) != ""
		if err == nil && w.timeout > 0 {
			_, err = w.results.Exec()
		}
		if err != nil {
			_ = w.results.Close()
			if sqlState(err) == "" {
				err = unknown(err, 0, l)
				refused = !errors.Is(err, ErrOutcomeUnknown) // it was not sent
			}
		}
		return refused, err
	})
	if err != nil {
		span.finish(err)
		return nil, err
	}
	span.served(&w.lease)
	return w, nil
}

// batch is a new one for each try: pgx notes in it what it has prepared on the
// connection that it was sent over.
func (w *writing) batch(statements []*pgx.QueuedQuery) *pgx.Batch {
	b := &pgx.Batch{QueuedQueries: make([]*pgx.QueuedQuery, 0, len(statements)+5)}
	b.Queue(beginSQL)
	if w.timeout > 0 {
		b.Queue(timeoutSQL, milliseconds(w.timeout))
	}
	for _, q := range statements {
		b.Queue(q.SQL, q.Arguments...).Fn = q.Fn
	}
	b.Queue(settingSQL).QueryRow(func(row pgx.Row) error { return row.Scan(&w.setting) })
	b.Queue(commitSQL).Exec(func(tag pgconn.CommandTag) error { w.tag = tag; return nil })
	b.Queue(positionSQL).QueryRow(func(row pgx.Row) error { return row.Scan(&w.insert, &w.flush) })
	return b
}

// finish reads on to the commit. It may be called twice.
func (w *writing) finish() (err error) {
	if w.lease.conn == nil {
		return nil
	}
	defer func() { // also when a function of the batch's panics
		w.r.abandon(w.ctx, &w.lease)
		w.cancel()
		w.span.finish(err)
	}()
	var lsn causal.LSN
	err = w.results.Close()
	conn := w.lease.conn.Conn()
	switch {
	case w.tag.String() == "COMMIT" && err == nil:
		lsn, err = position(w.insert, w.flush, w.setting)
	case w.tag.String() == "COMMIT": // only where it is, is not known
		lsn, err = w.late(conn), nil
	case err == nil:
		err = because(ErrRolledBack, pgx.ErrTxCommitRollback, "a statement in it had failed")
	case sqlState(err) != "" && w.setting == "":
		// The server has answered that it failed before the COMMIT.
	case conn.IsClosed() || sqlState(err) != "":
		err = unknown(err, 0, &w.lease)
	case conn.PgConn().TxStatus() == 'I':
		// The caller could not read a row; that has not stopped the commit.
		lsn = w.late(conn)
	}
	if lsn != 0 {
		w.r.saw(w.ctx, &w.lease, lsn, w.setting == "off")
	}
	return err
}

// late asks for the position after the fact.
func (w *writing) late(conn *pgx.Conn) causal.LSN { return late(w.ctx, conn) }

func late(ctx context.Context, conn *pgx.Conn) causal.LSN {
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	var insert, flush string
	err := conn.QueryRow(bounded, positionSQL).Scan(&insert, &flush)
	if err == nil {
		var lsn causal.LSN
		if lsn, err = position(insert, flush, "off"); err == nil {
			return lsn
		}
	}
	if s := causal.FromContext(ctx); s != nil {
		s.Merge(causal.Unknown())
	}
	return 0
}

// sawSomewhere is saw for a commit that was answered, and its position was not.
func (r *Router) sawSomewhere(ctx context.Context, l *lease) {
	if lsn := late(ctx, l.conn.Conn()); lsn != 0 {
		r.saw(ctx, l, lsn, false)
	}
}
