package outbox

import (
	"embed"
	"io/fs"
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
