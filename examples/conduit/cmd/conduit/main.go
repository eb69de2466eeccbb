// Command conduit is the RealWorld application: its server, the migrations of
// its database, and content to try it with.
package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"
)

type commands struct {
	Serve   serveCmd   `cmd:"" help:"Serve the API."`
	Migrate migrateCmd `cmd:"" help:"Bring the schema of the database up to date."`
	Seed    seedCmd    `cmd:"" help:"Fill the database with content."`
}

// databaseFlags are the flags of every command that talks to the database.
type databaseFlags struct {
	URL string `name:"database-url" env:"DATABASE_URL" placeholder:"URL" help:"The PostgreSQL server, such as postgres://user:password@127.0.0.1:5432/conduit."`
}

// Validate is called by kong.
func (f databaseFlags) Validate() error {
	if f.URL == "" {
		return errors.New("DATABASE_URL is not set: it says where PostgreSQL is, such as postgres://user:password@127.0.0.1:5432/conduit")
	}
	return nil
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// The first signal ends the command in order; a second one, no longer
	// caught, ends it at once.
	context.AfterFunc(ctx, stop)

	command := kong.Parse(&commands{},
		kong.Name("conduit"),
		kong.Description("The RealWorld application on Go and PostgreSQL."),
		kong.BindTo(ctx, (*context.Context)(nil)))
	command.FatalIfErrorf(command.Run())
}
