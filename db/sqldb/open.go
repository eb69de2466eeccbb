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

type intentKey struct{}

// intent is what has been said of a context's statements.
type intent struct {
	read    bool
	options []db.Option
}

// Read returns a context whose statements, and transactions begun with it, are reads:
// they go where [db.Router.Read] sends them. Options hold for statements outside of
// transactions.
func Read(ctx context.Context, options ...db.Option) context.Context {
	return context.WithValue(ctx, intentKey{}, intent{true, options})
}

// Write undoes [Read], for a part that writes.
func Write(ctx context.Context) context.Context {
	return context.WithValue(ctx, intentKey{}, intent{})
}

// Said reports whether Read or Write has been said of the context: who marks statements on
// others' behalf, such as an ORM's callback, leaves that alone.
func Said(ctx context.Context) bool {
	_, said := ctx.Value(intentKey{}).(intent)
	return said
}

func isRead(ctx context.Context) (options []db.Option, read bool) {
	i, _ := ctx.Value(intentKey{}).(intent)
	return i.options, i.read
}

type connector struct{ r *db.Router }

func (c connector) Connect(context.Context) (driver.Conn, error) { return &conn{r: c.r}, nil }
func (c connector) Driver() driver.Driver                        { return noDriver{} }

// noDriver is there because the interface asks for it.
type noDriver struct{}

func (noDriver) Open(string) (driver.Conn, error) {
	return nil, errors.New("sqldb: there is no driver to open by name: use sqldb.Open")
}
