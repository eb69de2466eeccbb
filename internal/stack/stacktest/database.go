package stacktest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"

	"github.com/loadlinehq/loadline/internal/stack"
	"github.com/loadlinehq/loadline/internal/stack/shared"
)

// Database is a test's own database. Its role owns it and has no other right.
type Database struct {
	URL         string   // on the primary
	ReplicaURLs []string // the same database on each replica
}

func newDatabase(t testing.TB, servers shared.Servers, options []Option) *Database {
	t.Helper()
	var c config
	for _, option := range options {
		option(&c)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	name := randomName()
	if err := createDatabase(ctx, servers, name, c.migrations); err != nil {
		t.Fatalf("stacktest: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		err := asSuperuser(ctx, servers.Primary, func(conn *pgx.Conn) error {
			_, err := conn.Exec(ctx, "DROP DATABASE "+name+" WITH (FORCE)")
			return err
		})
		if err != nil {
			t.Errorf("stacktest: %v", err)
		}
	})
	database := &Database{URL: databaseURL(servers.Primary, name)}
	for _, addr := range servers.Replicas {
		database.ReplicaURLs = append(database.ReplicaURLs, databaseURL(addr, name))
	}
	return database
}

func databaseURL(addr, name string) string {
	return fmt.Sprintf("postgres://%s@%s/%s?sslmode=disable", stack.AppRole, addr, name)
}

func asSuperuser(ctx context.Context, addr string, do func(*pgx.Conn) error) error {
	conn, err := pgx.Connect(ctx, stack.SuperuserURL(addr))
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	return do(conn)
}

func createDatabase(ctx context.Context, servers shared.Servers, name string, migrations []fs.FS) error {
	template := "template1"
	if len(migrations) > 0 {
		var err error
		if template, err = migratedTemplate(ctx, servers, migrations); err != nil {
			return err
		}
	}
	err := asSuperuser(ctx, servers.Primary, func(conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, fmt.Sprintf("CREATE DATABASE %s TEMPLATE %s OWNER %s", name, template, stack.AppRole))
		return err
	})
	if err != nil {
		return err
	}
	for _, addr := range servers.Replicas {
		if err := waitForDatabase(ctx, addr, name); err != nil {
			return err
		}
	}
	return nil
}

// waitForDatabase waits until a replica has replayed the database's creation.
func waitForDatabase(ctx context.Context, addr, name string) error {
	for {
		conn, err := pgx.Connect(ctx, databaseURL(addr, name))
		if err == nil {
			return conn.Close(ctx)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("replica %s: %w", addr, err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// migratedTemplate returns the name of a template that the migrations have been
// applied to, and makes it when it is not there. The name holds the migrations'
// hash; processes that need it at the same time wait for the first.
func migratedTemplate(ctx context.Context, servers shared.Servers, migrations []fs.FS) (string, error) {
	hash, err := hashFiles(migrations...)
	if err != nil {
		return "", fmt.Errorf("migrations: %w", err)
	}
	name := "template_" + hash
	err = asSuperuser(ctx, servers.Primary, func(conn *pgx.Conn) error {
		// The lock ends with the connection.
		if _, err := conn.Exec(ctx, "SELECT pg_advisory_lock(hashtext($1))", name); err != nil {
			return err
		}
		var exists bool
		err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1 AND datistemplate)", name).Scan(&exists)
		if err != nil || exists {
			return err
		}
		// What an attempt that failed has left is no template yet.
		if _, err := conn.Exec(ctx, "DROP DATABASE IF EXISTS "+name+" WITH (FORCE)"); err != nil {
			return err
		}
		if _, err := conn.Exec(ctx, fmt.Sprintf("CREATE DATABASE %s OWNER %s", name, stack.AppRole)); err != nil {
			return err
		}
		if err := migrate(ctx, databaseURL(servers.Primary, name), migrations); err != nil {
			return err
		}
		_, err = conn.Exec(ctx, "ALTER DATABASE "+name+" IS_TEMPLATE true")
		return err
	})
	return name, err
}

func migrate(ctx context.Context, url string, migrations []fs.FS) error {
	config, err := pgx.ParseConfig(url)
	if err != nil {
		return err
	}
	db := stdlib.OpenDB(*config)
	defer db.Close()
	for i, files := range migrations {
		provider, err := goose.NewProvider(goose.DialectPostgres, db, files, goose.WithTableName(fmt.Sprintf("goose_db_version_%d", i)))
		if err != nil {
			return fmt.Errorf("migrations: %w", err)
		}
		if _, err := provider.Up(ctx); err != nil {
			return fmt.Errorf("migrations: %w", err)
		}
	}
	return nil
}

func hashFiles(sets ...fs.FS) (string, error) {
	hash := sha256.New()
	for _, files := range sets {
		err := fs.WalkDir(files, ".", func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() {
				return err
			}
			f, err := files.Open(path)
			if err != nil {
				return err
			}
			defer f.Close()
			fmt.Fprintf(hash, "%s\n", path)
			_, err = io.Copy(hash, f)
			return err
		})
		if err != nil {
			return "", err
		}
	}
	return hex.EncodeToString(hash.Sum(nil)[:8]), nil
}

func shortHash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:4])
}
