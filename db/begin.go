package db

import (
	"context"
	"errors"
	"sync"

	"github.com/jackc/pgx/v5"

	"github.com/loadlinehq/loadline/causal"
)

// Begin is [Router.BeginTx] with PostgreSQL's defaults.
func (r *Router) Begin(ctx context.Context) (pgx.Tx, error) {
	return r.BeginTx(ctx, pgx.TxOptions{})
}

// BeginTx begins a transaction that the caller ends, for code that is written so, such as
// [pgx.BeginTxFunc]; [Router.InTx] does more. A read-only one is on a server chosen as for
// [Router.Read], any other on the primary. In a context that carries a transaction it
// is a savepoint of that.
//
// Commit returns the errors of InTx, and when it returns nil the session of the context
// that BeginTx was given has seen the commit. Rollback must be called if Commit is not,
// and may be called after it, or the connection is not given back. BeginQuery and
// CommitQuery are not supported: the router's own say where the commit is.
func (r *Router) BeginTx(ctx context.Context, o pgx.TxOptions) (pgx.Tx, error) {
	if o.BeginQuery != "" || o.CommitQuery != "" {
		return nil, errors.New("db: BeginTx: TxOptions.BeginQuery and CommitQuery are not supported")
	}
	readOnly := o.AccessMode == pgx.ReadOnly
	if outer := r.joined(ctx); outer != nil {
		if o != (pgx.TxOptions{}) && o != (pgx.TxOptions{AccessMode: pgx.ReadOnly}) {
			return nil, errors.New("db: BeginTx: a savepoint in the context's transaction has no options of its own")
		}
		if outer.readOnly && !readOnly {
			return nil, &ReadOnlyError{Caller: place()}
		}
		outer.part()
		return outer.Begin(ctx)
	}
	begin := "begin"
	if o.IsoLevel != "" {
		begin += " isolation level " + string(o.IsoLevel)
	}
	if readOnly {
		begin += " read only"
	} else {
		begin += " read write"
	}
	if o.DeferrableMode != "" {
		begin += " " + string(o.DeferrableMode)
	}
	ctx, span := r.span(ctx, "transaction", "")
	var t *tx
	var err error
	if readOnly {
		var where callOptions
		if o.IsoLevel == pgx.Serializable { // which a replica does not know
			where.policy = strong
		}
		t, err = r.beginRead(ctx, begin, &where)
	} else {
		t, err = r.beginWrite(ctx, begin)
	}
	if err != nil {
		span.finish(err)
		return nil, err
	}
	span.served(&t.lease)
	return &openTx{tx: t, begun: ctx, span: span}, nil
}

// openTx is a transaction whose end is its user's.
type openTx struct {
	*tx
	begun context.Context // whose session sees the commit
	span  span
	end   sync.Once
}

// Commit commits; what has failed before rolls back, and is [ErrRolledBack].
func (o *openTx) Commit(ctx context.Context) error {
	err := pgx.ErrTxClosed
	o.end.Do(func() {
		defer func() {
			o.done(ctx)
			o.span.finish(err)
		}()
		if o.readOnly {
			err = o.tx.end(ctx)
			return
		}
		if session := causal.FromContext(o.begun); session != nil {
			ctx = causal.WithSession(ctx, session)
		}
		err = o.commit(ctx)
	})
	return err
}

// Rollback rolls back, or is [pgx.ErrTxClosed] after the end.
func (o *openTx) Rollback(ctx context.Context) error {
	err := pgx.ErrTxClosed
	o.end.Do(func() {
		o.done(ctx)
		o.span.finish(nil)
		err = nil
	})
	return err
}

func (o *openTx) done(ctx context.Context) {
	o.ended = true
	o.r.abandon(ctx, &o.lease)
}
