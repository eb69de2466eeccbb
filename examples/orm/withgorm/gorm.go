// Package withgorm shows how an application on GORM reads through replicas: it opens GORM
// on [sqldb.Open], and has its queries marked as reads. Nothing else of it changes.
package withgorm

import (
	"context"
	"errors"

	"gorm.io/driver/postgres"
	"gorm.io/gorm"

	"github.com/loadlinehq/loadline/db"
	"github.com/loadlinehq/loadline/db/sqldb"
)

// Open returns GORM on the router. Use it with the request's context, which carries the
// session: Open(…).WithContext(ctx).
func Open(router *db.Router) (*gorm.DB, error) {
	g, err := gorm.Open(postgres.New(postgres.Config{Conn: sqldb.Open(router)}), &gorm.Config{})
	if err != nil {
		return nil, err
	}
	return g, errors.Join(
		g.Callback().Query().Before("gorm:query").Register("loadline:read", read),
		g.Callback().Query().After("gorm:query").Before("gorm:preload").Register("loadline:end", end),
		g.Callback().Row().Before("gorm:row").Register("loadline:read", read),
		g.Callback().Row().After("gorm:row").Register("loadline:end", end),
	)
}

type before struct{}

// read sends Find, First, Count, Scan and the like where the session may read. Not
// those that lock rows, not Raw, which may be anything, and not what the caller has said
// something of; in a transaction it says nothing.
func read(g *gorm.DB) {
	ctx := g.Statement.Context
	_, locks := g.Statement.Clauses["FOR"]
	if !locks && g.Statement.SQL.Len() == 0 && !sqldb.Said(ctx) {
		g.Statement.Context = sqldb.Read(context.WithValue(ctx, before{}, ctx))
	}
}

// end gives the statement its own context back, for hooks that write and for what is
// chained to it.
func end(g *gorm.DB) {
	if ctx, ok := g.Statement.Context.Value(before{}).(context.Context); ok {
		g.Statement.Context = ctx
	}
}
