package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/alecthomas/kong"

	"github.com/loadlinehq/loadline/inbox"
	"github.com/loadlinehq/loadline/internal/migrate"
	"github.com/loadlinehq/loadline/outbox"
)

// migrations are those of all packages with tables.
func migrations() []migrate.Set {
	return []migrate.Set{{Name: "outbox", Files: outbox.Migrations}, {Name: "inbox", Files: inbox.Migrations}}
}

type migrateCmd struct {
	URL   string `env:"DATABASE_URL" placeholder:"URL" help:"The primary's connection string."`
	Print bool   `help:"Print the SQL, for another tool, and change nothing."`
}

// Run applies what the database does not have yet.
func (c *migrateCmd) Run(ctx context.Context, command *kong.Context) error {
	if c.Print {
		return migrate.Print(command.Stdout, migrations()...)
	}
	if c.URL == "" {
		return errors.New("--url (variable DATABASE_URL) is not set: it is the primary's connection string, such as postgres://user@127.0.0.1:5432/app; --print shows the SQL")
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
