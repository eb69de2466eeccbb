package sqldb

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/loadlinehq/loadline/db"
)

// conn is what database/sql takes for a connection: a transaction, or none.
type conn struct {
	r  *db.Router
	tx pgx.Tx // nil outside of a transaction
}

var (
	_ driver.ConnBeginTx        = (*conn)(nil)
	_ driver.ConnPrepareContext = (*conn)(nil)
	_ driver.ExecerContext      = (*conn)(nil)
	_ driver.NamedValueChecker  = (*conn)(nil)
	_ driver.Pinger             = (*conn)(nil)
	_ driver.QueryerContext     = (*conn)(nil)
	_ driver.StmtExecContext    = (*statement)(nil)
	_ driver.StmtQueryContext   = (*statement)(nil)
)

type handle interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

func (c *conn) handle(ctx context.Context) handle {
	if c.tx != nil {
		return c.tx
	}
	if options, read := isRead(ctx); read {
		return c.r.Read(ctx, options...)
	}
	return c.r.Write(ctx)
}

// Ping asks if any server answers.
func (c *conn) Ping(ctx context.Context) error { return c.r.Ping(ctx) }

// CheckNamedValue leaves the values to pgx, which knows more of them.
func (c *conn) CheckNamedValue(*driver.NamedValue) error { return nil }

func (c *conn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	plain, err := c.values(ctx, args)
	if err != nil {
		return nil, err
	}
	tag, err := c.handle(ctx).Exec(ctx, query, plain...)
	if err != nil {
		return nil, err
	}
	return driver.RowsAffected(tag.RowsAffected()), nil
}

func (c *conn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	plain, err := c.values(ctx, args)
	if err != nil {
		return nil, err
	}
	r, err := c.handle(ctx).Query(ctx, query, plain...)
	if err != nil {
		return nil, err
	}
	return newRows(r)
}

func (c *conn) values(ctx context.Context, args []driver.NamedValue) ([]any, error) {
	if _, read := isRead(ctx); len(args) > 0 && c.tx == nil && !read {
		// GORM's migrator asks for the simple protocol, which changes nothing here: a write goes
		// together with its BEGIN and COMMIT, in the mode that is configured.
		if _, ok := args[0].Value.(pgx.QueryExecMode); ok {
			args = args[1:]
		}
	}
	plain := make([]any, len(args))
	for i, arg := range args {
		if arg.Name != "" {
			return nil, fmt.Errorf("sqldb: an argument has the name %q: PostgreSQL's have numbers, as in $1", arg.Name)
		}
		plain[i] = arg.Value
	}
	return plain, nil
}

// BeginTx begins a transaction on the primary, and a read-only one where the session
// may read.
func (c *conn) BeginTx(ctx context.Context, o driver.TxOptions) (driver.Tx, error) {
	if c.tx != nil {
		return nil, errors.New("sqldb: the connection is in a transaction already")
	}
	if c.r.InTransaction(ctx) {
		// Its end would come from database/sql's goroutine, when the context ends, beside
		// whatever the outer one does.
		return nil, errors.New("sqldb: the context carries a transaction of the router's: its statements run in that, and one within it is begun by the router's Begin")
	}
	var options pgx.TxOptions
	switch sql.IsolationLevel(o.Isolation) {
	case sql.LevelDefault:
	case sql.LevelReadUncommitted:
		options.IsoLevel = pgx.ReadUncommitted
	case sql.LevelReadCommitted:
		options.IsoLevel = pgx.ReadCommitted
	case sql.LevelRepeatableRead, sql.LevelSnapshot:
		options.IsoLevel = pgx.RepeatableRead
	case sql.LevelSerializable:
		options.IsoLevel = pgx.Serializable
	default:
		return nil, fmt.Errorf("sqldb: PostgreSQL has no isolation level %v", sql.IsolationLevel(o.Isolation))
	}
	if _, read := isRead(ctx); read || o.ReadOnly {
		options.AccessMode = pgx.ReadOnly
	}
	tx, err := c.r.BeginTx(ctx, options)
	if err != nil {
		return nil, err
	}
	c.tx = tx
	return &transaction{c, ctx}, nil
}

// Begin is what database/sql calls when it has no context.
func (c *conn) Begin() (driver.Tx, error) { return c.BeginTx(context.Background(), driver.TxOptions{}) }

// transaction ends by the context that it was begun with: database/sql has no other.
type transaction struct {
	conn *conn
	ctx  context.Context
}

func (t *transaction) Commit() error { return t.end(pgx.Tx.Commit) }

// Rollback is what database/sql calls when the context is done, too.
func (t *transaction) Rollback() error { return t.end(pgx.Tx.Rollback) }

func (t *transaction) end(how func(pgx.Tx, context.Context) error) error {
	tx := t.conn.tx
	if tx == nil {
		return sql.ErrTxDone
	}
	t.conn.tx = nil
	return how(tx, t.ctx)
}

// PrepareContext notes the statement: pgx prepares it where it runs.
func (c *conn) PrepareContext(_ context.Context, query string) (driver.Stmt, error) {
	return &statement{c, query}, nil
}

func (c *conn) Prepare(query string) (driver.Stmt, error) {
	return c.PrepareContext(context.Background(), query)
}

// Close gives back what a transaction that was never ended holds.
func (c *conn) Close() error {
	if c.tx == nil {
		return nil
	}
	tx := c.tx
	c.tx = nil
	return tx.Rollback(context.Background())
}

type statement struct {
	conn  *conn
	query string
}

func (s *statement) Close() error { return nil }

// NumInput is not known before the server has prepared it.
func (s *statement) NumInput() int { return -1 }

func (s *statement) ExecContext(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	return s.conn.ExecContext(ctx, s.query, args)
}

func (s *statement) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	return s.conn.QueryContext(ctx, s.query, args)
}

// Exec is never called, since there is ExecContext.
func (s *statement) Exec([]driver.Value) (driver.Result, error) { return nil, driver.ErrSkip }

// Query is never called, since there is QueryContext.
func (s *statement) Query([]driver.Value) (driver.Rows, error) { return nil, driver.ErrSkip }
