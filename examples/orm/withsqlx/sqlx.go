// Package withsqlx shows how an application on sqlx reads through replicas: it opens sqlx
// on [sqldb.Open], and says by the context which statements are reads.
package withsqlx

import (
	"context"

	"github.com/jmoiron/sqlx"

	"github.com/loadlinehq/loadline/db"
	"github.com/loadlinehq/loadline/db/sqldb"
)

// Open returns sqlx on the router.
func Open(router *db.Router) *sqlx.DB { return sqlx.NewDb(sqldb.Open(router), "pgx") }

// Account is a row.
type Account struct {
	ID   int64
	Name string
}

// Rename writes, on the primary.
func Rename(ctx context.Context, db *sqlx.DB, a Account) error {
	_, err := db.NamedExecContext(ctx, "INSERT INTO account (id, name) VALUES (:id, :name) ON CONFLICT (id) DO UPDATE SET name = excluded.name", a)
	return err
}

// Find reads, where the context's session may.
func Find(ctx context.Context, db *sqlx.DB, id int64) (a Account, err error) {
	err = db.GetContext(sqldb.Read(ctx), &a, "SELECT id, name FROM account WHERE id = $1", id)
	return a, err
}
