package db_test

import (
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/loadlinehq/loadline/causal"
	"github.com/loadlinehq/loadline/db"
	"github.com/loadlinehq/loadline/internal/stack"
)

// A replica that had received more than the promoted one, and was restarted since, is not
// read: it names the new timeline, which it asks for, and shows the old one's end.
func TestRestartedAhead(t *testing.T) {
	t.Parallel()
	s := ownStack(t)
	router := run(t, db.Config{Primary: s.DatabaseURL(), Replicas: s.ReplicaURLs()}, nil)
	fault(t, s, stack.Fault{Service: "replica-1", Kind: stack.FaultStreamCut})
	admin := func(name, sql string) (answer string) {
		conn, err := pgx.Connect(t.Context(), stack.SuperuserURL(service(t, s, name).Direct))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(t.Context())
		if err := conn.QueryRow(t.Context(), sql).Scan(&answer); err != nil {
			t.Fatal(name, err)
		}
		return answer
	}
	admin("primary", "SELECT pg_logical_emit_message(true, '', repeat('x', 8 << 20))::text")
	end := admin("primary", "SELECT pg_current_wal_flush_lsn()::text")
	within(t, 10*time.Second, func() error {
		if admin("replica-2", "SELECT (pg_last_wal_replay_lsn() >= '"+end+"')::text") != "true" {
			return errors.New("replica-2 does not follow")
		}
		return nil
	})
	// The stack makes such a replica anew, if it answers and has a stream.
	fault(t, s, stack.Fault{Service: "replica-2", Kind: stack.FaultStreamCut})
	paused := fault(t, s, stack.Fault{Service: "replica-2", Kind: stack.FaultPause})
	fault(t, s, stack.Fault{Service: "replica-1", Kind: stack.FaultPromote})
	if err := s.RemoveFault(t.Context(), paused); err != nil {
		t.Fatal(err)
	}
	conninfo := "host=127.0.0.1 port=" + admin("replica-1", "SHOW port") + " user=postgres application_name=other"
	admin("replica-2", "SELECT set_config('application_name', 'x', false)")
	conn, err := pgx.Connect(t.Context(), stack.SuperuserURL(service(t, s, "replica-2").Direct))
	if err != nil {
		t.Fatal(err)
	}
	for _, sql := range []string{"ALTER SYSTEM SET primary_conninfo = '" + conninfo + "'", "ALTER SYSTEM SET primary_slot_name = ''", "SELECT pg_reload_conf()"} {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Log(sql, err)
		}
	}
	_ = conn.Close(t.Context())
	killed := fault(t, s, stack.Fault{Service: "replica-2", Kind: stack.FaultKill})
	if err := s.RemoveFault(t.Context(), killed); err != nil {
		t.Fatal(err)
	}
	ctx := client(t)
	within(t, 10*time.Second, func() error {
		_, err := router.Write(ctx).Exec(ctx, "INSERT INTO t VALUES (1)")
		return err
	})
	for m := range causal.FromContext(ctx).Token().Marks() {
		t.Log("the session has seen", m.Timeline, m.LSN)
	}
	stale := 0
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		var found, replica bool
		if err := router.Read(ctx).QueryRow(ctx, "SELECT EXISTS (SELECT FROM t WHERE id = 1), pg_is_in_recovery()").Scan(&found, &replica); err != nil {
			t.Log(err)
		} else if !found {
			stale++
		}
	}
	if stale > 0 {
		t.Errorf("%d reads did not show their session's write", stale)
	}
}
