// Package withgorm shows how an application on GORM reads through replicas: it opens GORM
// on [sqldb.Open], and has its queries marked as reads. Nothing else of it changes.
package withgorm

import (
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
		g.Callback().Row().Before("gorm:row").Register("loadline:read", read),
	)
}

// read sends Find, First, Count, Scan and the like where the session may read. Not
// those that lock rows, and not Raw, which may be anything; in a transaction it says
// nothing.
func read(g *gorm.DB) {
	_, locks := g.Statement.Clauses["FOR"]
	if !locks && g.Statement.SQL.Len() == 0 {
		g.Statement.Context = sqldb.Read(g.Statement.Context)
	}
}
