// Package migrate brings the tables of Loadline's packages up to date: each exports its
// migrations in goose's form, and has a version table of its own in the schema loadline, so
// that packages, and the application with its own migrations, go their ways independently.
// The SQL can be printed for other tools.
package migrate

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx", which goose needs
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

// Set is the migrations of a package.
type Set struct {
	Name  string // of the package: outbox
	Files fs.FS
}

// Up applies what a database does not have yet, in the order of the sets, and returns the
// names. Several processes may call it at once: they take turns by an advisory lock.
func Up(ctx context.Context, url string, sets ...Set) (applied []string, err error) {
	db, err := sql.Open("pgx", url)
	if err != nil {
		return nil, fmt.Errorf("migrate: %w", err)
	}
	defer db.Close()
	if err := createSchema(ctx, db); err != nil {
		return nil, fmt.Errorf("migrate: the schema loadline: %w", err)
	}
	for _, set := range sets {
		locker, err := lock.NewPostgresSessionLocker()
		if err != nil {
			return applied, fmt.Errorf("migrate: %w", err)
		}
		provider, err := goose.NewProvider(goose.DialectPostgres, db, set.Files,
			goose.WithSessionLocker(locker), goose.WithTableName("loadline.migrations_"+set.Name))
		if err != nil {
			return applied, fmt.Errorf("migrate: %s: %w", set.Name, err)
		}
		results, err := provider.Up(ctx)
		for _, r := range results {
			applied = append(applied, set.Name+"/"+r.Source.Path)
		}
		if err != nil {
			return applied, fmt.Errorf("migrate: %s: %w", set.Name, err)
		}
	}
	return applied, nil
}

// createSchema is done by one at a time: IF NOT EXISTS alone does not see what another
// transaction is about to commit.
func createSchema(ctx context.Context, db *sql.DB) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // after the commit it has nothing to do
	for _, statement := range []string{
		"SELECT pg_advisory_xact_lock(hashtextextended('loadline', 0))", "CREATE SCHEMA IF NOT EXISTS loadline",
	} {
		if _, err := tx.ExecContext(ctx, statement); err != nil {
			return err
		}
	}
	return tx.Commit()
}

// Print writes the statements that Up runs on an empty database, for other tools.
func Print(w io.Writer, sets ...Set) error {
	for _, set := range sets {
		names, err := fs.Glob(set.Files, "*.sql")
		if err != nil {
			return err
		}
		for _, name := range names { // sorted
			if _, err := fmt.Fprintf(w, "-- %s/%s\n", set.Name, name); err != nil {
				return err
			}
			if err := printUp(w, set.Files, name); err != nil {
				return fmt.Errorf("migrate: %s/%s: %w", set.Name, name, err)
			}
		}
	}
	return nil
}

func printUp(w io.Writer, files fs.FS, name string) error {
	f, err := files.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	up := false
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		line := lines.Text()
		switch directive := strings.TrimSpace(line); {
		case directive == "-- +goose Up":
			up = true
		case directive == "-- +goose Down":
			return nil
		case strings.HasPrefix(directive, "-- +goose"):
		case up:
			if _, err := fmt.Fprintln(w, line); err != nil {
				return err
			}
		}
	}
	if !up {
		return errors.Join(errors.New("it has no line \"-- +goose Up\""), lines.Err())
	}
	return lines.Err()
}
