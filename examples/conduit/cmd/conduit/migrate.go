package main

import (
	"context"
	"fmt"

	"github.com/loadlinehq/loadline/examples/conduit/postgres"
)

type migrateCmd struct {
	databaseFlags
}

// Run applies the migrations that are missing.
func (c *migrateCmd) Run(ctx context.Context) error {
	applied, err := postgres.Migrate(ctx, c.URL)
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
