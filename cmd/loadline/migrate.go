package main

import (
	"context"
	"fmt"

	"github.com/alecthomas/kong"

	"github.com/loadlinehq/loadline/edge/pgstore"
	"github.com/loadlinehq/loadline/inbox"
	"github.com/loadlinehq/loadline/internal/migrate"
	"github.com/loadlinehq/loadline/outbox"
)

// migrations are those of all packages with tables.
func migrations() []migrate.Set {
	return []migrate.Set{{Name: "outbox", Files: outbox.Migrations}, {Name: "inbox", Files: inbox.Migrations}, {Name: "idempotency", Files: pgstore.Migrations}}
}

type migrateCmd struct {
	databaseFlag
	Print bool `help:"Print the SQL, for another tool, and change nothing."`
}

// Run applies what the database does not have yet.
func (c *migrateCmd) Run(ctx context.Context, command *kong.Context) error {
	if c.Print {
		return migrate.Print(command.Stdout, migrations()...)
	}
	if err := c.missing(); err != nil {
		return fmt.Errorf("%w; --print shows the SQL", err)
	}
	// Who waits for another that migrates may wait for long, and not for a database that is away.
	conn, err := c.connect(ctx, databaseWait)
	if err != nil {
		return err
	}
	if err := conn.Close(ctx); err != nil {
		return err
	}
	applied, err := migrate.Up(ctx, c.URL, migrations()...)
	for _, name := range applied {
		fmt.Fprintln(command.Stdout, "applied", name)
	}
	if err == nil && len(applied) == 0 {
		fmt.Fprintln(command.Stdout, "the tables are up to date")
	}
	return err
}
