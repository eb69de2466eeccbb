package outbox

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"

	"github.com/jackc/pgx/v5/pgconn"
)

//go:embed migrations/*.sql
var files embed.FS

// Migrations makes the tables, in the schema loadline, in goose's format. The number is
// a time, so that it can stand beside an application's own.
var Migrations = sub(files, "migrations")

func sub(files embed.FS, dir string) fs.FS {
	f, err := fs.Sub(files, dir)
	if err != nil {
		panic(err) // the name is no path
	}
	return f
}

// missing says what to do where an error is that of a database without the tables.
func missing(err error) error {
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok && (pg.Code == "42P01" || pg.Code == "3F000" || pg.Code == "42703") {
		return fmt.Errorf("the tables are missing, or of another version: apply outbox.Migrations, or run loadline migrate: %w", err)
	}
	return err
}
