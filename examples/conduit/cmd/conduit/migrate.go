package main

import (
	"context"
	"fmt"

	"github.com/loadlinehq/loadline/edge/pgstore"
	"github.com/loadlinehq/loadline/examples/conduit/postgres"
	"github.com/loadlinehq/loadline/inbox"
	"github.com/loadlinehq/loadline/internal/migrate"
	"github.com/loadlinehq/loadline/outbox"
)

type migrateCmd struct{}

// Run applies the migrations that are missing.
func (c *migrateCmd) Run(ctx context.Context, app *commands) error {
	url, err := app.databaseURL()
	if err != nil {
		return err
	}
	applied, err := postgres.Migrate(ctx, url)
	if err != nil {
		return err
	}
	of, err := migrate.Up(ctx, url, migrate.Set{Name: "outbox", Files: outbox.Migrations}, migrate.Set{Name: "inbox", Files: inbox.Migrations}, migrate.Set{Name: "idempotency", Files: pgstore.Migrations})
	applied = append(applied, of...)
	if err != nil {
		return err
	}
	for _, name := range applied {
		fmt.Println("applied", name)
	}
	if len(applied) == 0 {
		fmt.Println("the schema is up to date")
	}
	return nil
}
