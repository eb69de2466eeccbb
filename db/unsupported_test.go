package db_test

import (
	"errors"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/loadlinehq/loadline/db"
	"github.com/loadlinehq/loadline/internal/stack"
	"github.com/loadlinehq/loadline/internal/stack/stacktest"
)

// A server that has Aurora's function is refused by name: its readers have no position.
func TestAuroraIsRefused(t *testing.T) {
	t.Parallel()
	d := stacktest.Postgres(t)
	u, err := url.Parse(d.URL)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.User("postgres")
	conn, err := pgx.Connect(t.Context(), u.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	// In this database alone.
	if _, err := conn.Exec(t.Context(), "SET allow_system_table_mods = on; CREATE FUNCTION pg_catalog.aurora_version() RETURNS text LANGUAGE sql AS $$ SELECT '15.4' $$"); err != nil {
		t.Fatal(err)
	}
	_, err = db.Open(t.Context(), db.Config{Primary: d.URL, Replicas: d.ReplicaURLs})
	if !errors.Is(err, db.ErrUnsupported) || !strings.Contains(err.Error(), "Aurora") || !strings.Contains(err.Error(), u.Host) {
		t.Errorf("%v", err)
	}
}

// Without pg_read_all_stats a replica is used again after a failover when its control file
// names the new timeline: later, and not never.
func TestFailoverWithoutStatsRole(t *testing.T) {
	t.Parallel()
	if os.Getenv("LOADLINE_SLOW") == "" {
		t.Skip("promotes a server; make check-all runs it")
	}
	s := ownStack(t)
	asSuperuser := func(service stack.Service, sql string) {
		t.Helper()
		conn, err := pgx.Connect(t.Context(), stack.SuperuserURL(service.Addr))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(t.Context())
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	asSuperuser(service(t, s, "primary"), "REVOKE pg_read_all_stats FROM "+stack.AppRole)
	router := run(t, db.Config{Primary: s.DatabaseURL(), Replicas: s.ReplicaURLs()}, nil)
	fault(t, s, stack.Fault{Service: "replica-1", Kind: stack.FaultPromote})
	ctx := client(t)
	within(t, 20*time.Second, func() error {
		_, err := router.Write(ctx).Exec(ctx, "INSERT INTO t VALUES (1)")
		return err
	})
	onReplica := func() error {
		var found, replica bool
		err := router.Read(ctx).QueryRow(ctx, "SELECT EXISTS (SELECT FROM t WHERE id = 1), pg_is_in_recovery()").Scan(&found, &replica)
		switch {
		case err != nil:
			return err
		case !found:
			t.Error("a stale read")
		case !replica:
			return errors.New("the replica is not used")
		}
		return nil
	}
	for range 20 { // right, wherever
		if err := onReplica(); err != nil && err.Error() != "the replica is not used" {
			t.Error(err)
		}
		time.Sleep(50 * time.Millisecond)
	}
	asSuperuser(service(t, s, "replica-1"), "CHECKPOINT")
	time.Sleep(500 * time.Millisecond)                    // the replica has the checkpoint's record
	asSuperuser(service(t, s, "replica-2"), "CHECKPOINT") // a restart point there
	within(t, 20*time.Second, onReplica)
}
