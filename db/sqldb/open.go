package sqldb

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"

	"github.com/loadlinehq/loadline/db"
)

// Open returns a handle on the router, which must outlive it. The handle's own limits
// (SetMaxOpenConns and the like) need not be set: the router's hold.
func Open(r *db.Router) *sql.DB { return sql.OpenDB(connector{r}) }

type readKey struct{}

// Read returns a context whose statements, and transactions begun with it, are reads:
// they go where [db.Router.Read] sends them. Options hold for statements outside of
// transactions.
func Read(ctx context.Context, options ...db.Option) context.Context {
	return context.WithValue(ctx, readKey{}, options)
}

// Write undoes [Read], for a part that writes.
func Write(ctx context.Context) context.Context {
	return context.WithValue(ctx, readKey{}, nil)
}

func isRead(ctx context.Context) (options []db.Option, read bool) {
	options, read = ctx.Value(readKey{}).([]db.Option)
	return options, read
}

type connector struct{ r *db.Router }

func (c connector) Connect(context.Context) (driver.Conn, error) { return &conn{r: c.r}, nil }
func (c connector) Driver() driver.Driver                        { return noDriver{} }

// noDriver is there because the interface asks for it.
type noDriver struct{}

func (noDriver) Open(string) (driver.Conn, error) {
	return nil, errors.New("sqldb: there is no driver to open by name: use sqldb.Open")
}
