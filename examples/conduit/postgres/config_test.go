package postgres_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/loadlinehq/loadline/examples/conduit/postgres"
	"github.com/loadlinehq/loadline/internal/stack/stacktest"
)

// Each field of the Config does what it says, on a real server.
func TestConfig(t *testing.T) {
	t.Parallel()
	env := stacktest.Postgres(t)
	open := func(t *testing.T, c postgres.Config) *postgres.Primary {
		t.Helper()
		c.URL = env.URL
		db, err := postgres.Open(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(db.Close)
		return db
	}
	show := func(t *testing.T, db *postgres.Primary, name string) (value string) {
		t.Helper()
		if err := db.Read(t.Context()).QueryRow(t.Context(), "SELECT current_setting($1)", name).Scan(&value); err != nil {
			t.Fatal(err)
		}
		return value
	}

	t.Run("query timeout", func(t *testing.T) {
		for _, test := range []struct {
			timeout          time.Duration
			statement, locks string
		}{{0, "5s", "2s"}, {time.Second, "1s", "500ms"}, {8 * time.Second, "8s", "2s"}} {
			db := open(t, postgres.Config{QueryTimeout: test.timeout})
			if statement, locks := show(t, db, "statement_timeout"), show(t, db, "lock_timeout"); statement != test.statement || locks != test.locks {
				t.Errorf("with %s statements may take %s and wait %s for locks, want %s and %s", test.timeout, statement, locks, test.statement, test.locks)
			}
		}
	})

	t.Run("max", func(t *testing.T) {
		db := open(t, postgres.Config{MaxConns: 2})
		err := db.InTx(t.Context(), func(ctx context.Context) error {
			if _, err := db.Read(t.Context()).Exec(ctx, "SELECT 1"); err != nil { // the transaction's is not the only one
				return err
			}
			return db.InTx(t.Context(), func(context.Context) error {
				short, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
				defer cancel()
				_, err := db.Read(short).Exec(short, "SELECT 1")
				return err
			})
		})
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a third connection of two: %v", err)
		}
	})

	t.Run("idle timeout", func(t *testing.T) {
		db := open(t, postgres.Config{IdleTimeout: 100 * time.Millisecond})
		var pid int
		if err := db.Read(t.Context()).QueryRow(t.Context(), "SELECT pg_backend_pid()").Scan(&pid); err != nil {
			t.Fatal(err)
		}
		watcher, err := pgx.Connect(t.Context(), env.URL)
		if err != nil {
			t.Fatal(err)
		}
		defer watcher.Close(context.WithoutCancel(t.Context()))
		for limit := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			var there bool
			if err := watcher.QueryRow(t.Context(), "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1)", pid).Scan(&there); err != nil {
				t.Fatal(err)
			}
			if !there {
				break
			}
			if time.Now().After(limit) {
				t.Fatal("the connection is still there after 10 s")
			}
		}
	})

	t.Run("connect timeout", func(t *testing.T) {
		mute, err := net.Listen("tcp", "127.0.0.1:0") // accepts, and never says a word
		if err != nil {
			t.Fatal(err)
		}
		defer mute.Close()
		began := time.Now()
		_, err = postgres.Open(t.Context(), postgres.Config{URL: "postgres://" + mute.Addr().String() + "/app?sslmode=disable", ConnectTimeout: 50 * time.Millisecond})
		if took := time.Since(began); err == nil || took > 1500*time.Millisecond { // less than the default
			t.Errorf("it gave up after %s: %v", took, err)
		}
	})
}

func TestConfigRefuses(t *testing.T) {
	t.Parallel()
	for want, c := range map[string]postgres.Config{
		"url is not set":        {},
		"url is not understood": {URL: "postgres://app:hun/ter22@db"},
		"max is -1":             {URL: "postgres://db", MaxConns: -1},
		"idleTimeout is 1ns":    {URL: "postgres://db", IdleTimeout: 1},
		"connectTimeout is -1s": {URL: "postgres://db", ConnectTimeout: -time.Second},
		"queryTimeout is 1ms":   {URL: "postgres://db", QueryTimeout: time.Millisecond},
	} {
		_, err := postgres.Open(t.Context(), c)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hun") {
			t.Errorf("%v, want %q", err, want)
		}
	}
}
