// Command conduit is the RealWorld application: its server, the migrations of
// its database, and content to try it with.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/loadlinehq/loadline/internal/version"
)

type commands struct {
	Serve   serveCmd   `cmd:"" help:"Serve the API."`
	Migrate migrateCmd `cmd:"" help:"Bring the schema of the database up to date."`
	Seed    seedCmd    `cmd:"" help:"Fill the database with content."`
	Config  configCmd  `cmd:"" help:"Show or check the configuration."`
	Health  healthCmd  `cmd:"" help:"Ask the instance on this machine whether it is ready; for containers."`

	configFlag
	Version kong.VersionFlag `help:"Print the version."`
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
		kong.Vars{"version": "conduit " + version.String()},
		kong.BindTo(ctx, (*context.Context)(nil)))
	command.FatalIfErrorf(command.Run())
}
