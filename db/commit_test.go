package db_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/loadlinehq/loadline/causal"
	"github.com/loadlinehq/loadline/db"
	"github.com/loadlinehq/loadline/internal/stack"
	"github.com/loadlinehq/loadline/internal/stack/faultproxy"
	"github.com/loadlinehq/loadline/internal/stack/stacktest"
)

// A connection that is closed while the server commits leaves the outcome unknown, as one
// that falls silent does: who tries again does it twice.
func TestBrokenCommit(t *testing.T) {
	t.Parallel()
	d := stacktest.Postgres(t)
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeCacheStatement, pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol} {
		dsn, proxy := tampered(t, d.URL)
		// What watches the server must not be what meets the fault.
		router := run(t, db.Config{Primary: dsn, PollInterval: 20 * time.Second}, func(c *db.Config) {
			c.Configure = func(c *pgxpool.Config) { c.ConnConfig.DefaultQueryExecMode = mode }
		})
		if _, err := router.Write(t.Context()).Exec(t.Context(), "CREATE TABLE IF NOT EXISTS paid (id serial, what text)"); err != nil {
			t.Fatal(err)
		}
		// All of the answer to the message that holds the COMMIT is lost, as when the
		// server's host dies after the commit.
		once := func() {
			var done atomic.Bool
			proxy.set(func(typ byte, body []byte) ([]byte, bool) {
				if done.Swap(true) {
					return nil, false
				}
				time.Sleep(50 * time.Millisecond) // the server has committed
				return nil, true
			})
		}
		for name, write := range map[string]func(context.Context, string) error{
			"InTx": func(ctx context.Context, what string) error {
				first := true
				return router.InTx(ctx, func(ctx context.Context, tx pgx.Tx) error {
					_, err := tx.Exec(ctx, "INSERT INTO paid (what) VALUES ($1)", what)
					if first {
						once()
					}
					first = false
					return err
				})
			},
			"text": func(ctx context.Context, what string) error {
				if _, err := router.Write(ctx).Exec(ctx, "INSERT INTO paid (what) VALUES ('connect')"); err != nil {
					return err
				}
				once()
				_, err := router.Write(ctx).Exec(ctx, "INSERT INTO paid (what) VALUES ('"+what+"')")
				return err
			},
			"args": func(ctx context.Context, what string) error {
				if _, err := router.Write(ctx).Exec(ctx, "INSERT INTO paid (what) VALUES ($1)", "prepare"); err != nil {
					return err
				}
				once()
				_, err := router.Write(ctx).Exec(ctx, "INSERT INTO paid (what) VALUES ($1)", what)
				return err
			},
		} {
			what := mode.String() + name
			err := write(client(t), what)
			proxy.set(nil)
			time.Sleep(300 * time.Millisecond)
			again := db.Retryable(err)
			if again {
				within(t, 3*time.Second, func() error {
					if _, err := router.Write(t.Context()).Exec(t.Context(), "INSERT INTO paid (what) VALUES ('"+what+"')"); err != nil {
						return err
					}
					return nil
				})
			}
			n := 0
			conn, _ := pgx.Connect(t.Context(), d.URL)
			_ = conn.QueryRow(t.Context(), "SELECT count(*) FROM paid WHERE what = $1", what).Scan(&n)
			_ = conn.Close(t.Context())
			if !errors.Is(err, db.ErrOutcomeUnknown) || n != 1 {
				t.Errorf("%v, %s: %v; retryable: %t; after the retry the effect is there %d times", mode, name, err, again, n)
			}
		}
	}
}

// What the server has committed is committed, whatever becomes of the question where.
func TestCommitAnswered(t *testing.T) {
	t.Parallel()
	d := stacktest.Postgres(t)
	dsn, proxy := tampered(t, d.URL)
	router := run(t, db.Config{Primary: dsn}, nil)
	pgError := func(code string) []byte {
		var b []byte
		for _, f := range []string{"SERROR", "VERROR", "C" + code, "Mcanceling statement due to user request"} {
			b = append(append(b, f...), 0)
		}
		b = append(b, 0)
		return append(binary.BigEndian.AppendUint32([]byte{'E'}, uint32(len(b)+4)), b...)
	}
	id := 0
	for _, how := range []string{"cut after COMMIT's tag", "position is cancelled"} {
		arm := func() {
			var committed bool
			proxy.set(func(typ byte, body []byte) ([]byte, bool) {
				switch {
				case typ == 'C' && bytes.HasPrefix(body, []byte("COMMIT")):
					committed = true
					if how == "cut after COMMIT's tag" {
						return append(binary.BigEndian.AppendUint32([]byte{'C'}, uint32(len(body)+4)), body...), true
					}
				case committed && how != "cut after COMMIT's tag" && typ != 'Z':
					if typ == 'C' {
						return pgError("57014"), false
					}
					return []byte{}, false
				}
				return nil, false
			})
		}
		for name, write := range map[string]func(ctx context.Context, id int) error{
			"InTx": func(ctx context.Context, id int) error {
				return router.InTx(ctx, func(ctx context.Context, tx pgx.Tx) error {
					_, err := tx.Exec(ctx, "INSERT INTO t VALUES ($1)", id)
					arm()
					return err
				})
			},
			"text": func(ctx context.Context, id int) error {
				arm()
				_, err := router.Write(ctx).Exec(ctx, "INSERT INTO t SELECT max(id)+1 FROM t")
				return err
			},
			"args": func(ctx context.Context, id int) error {
				_, err := router.Write(ctx).Exec(ctx, "INSERT INTO t VALUES ($1)", -id) // prepared
				if err != nil {
					return err
				}
				arm()
				_, err = router.Write(ctx).Exec(ctx, "INSERT INTO t VALUES ($1)", id)
				return err
			},
		} {
			id++
			ctx := client(t)
			before := count(t, d.URL, "id > 0")
			err := write(ctx, id*100)
			proxy.set(nil)
			after := count(t, d.URL, "id > 0")
			if err != nil && after == before+1 {
				t.Errorf("%s, %s: COMMIT was answered and the row is there, but the error is %v (unknown: %t)", how, name, err, errors.Is(err, db.ErrOutcomeUnknown))
			} else {
				t.Logf("%s, %s: %v, rows %d→%d", how, name, err, before, after)
			}
			time.Sleep(300 * time.Millisecond)
		}
	}
}

// The same without a proxy: somebody cancels backends.
func TestCancelledPosition(t *testing.T) {
	t.Parallel()
	d := stacktest.Postgres(t)
	router := run(t, db.Config{Primary: d.URL}, func(c *db.Config) { c.PrimaryPool.MaxConns = 1; c.ReplicaPool.MaxConns = 1 })
	conn, err := pgx.Connect(t.Context(), d.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				_, _ = conn.Exec(context.Background(), "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND query LIKE 'select current_setting(%'")
			}
		}
	})
	failed := map[int]error{}
	n := 0
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); {
		n++
		err := router.InTx(t.Context(), func(ctx context.Context, tx pgx.Tx) error {
			_, err := tx.Exec(ctx, "INSERT INTO t VALUES ($1)", n)
			return err
		})
		if err != nil && !errors.Is(err, db.ErrOutcomeUnknown) {
			failed[n] = err
		}
	}
	close(stop)
	wg.Wait()
	wrong := 0
	for id, err := range failed {
		rows, _ := conn.Query(t.Context(), "SELECT FROM t WHERE id = $1", id)
		if rows.Next() {
			wrong++
			if wrong < 4 {
				t.Errorf("%d: reported as failed by %v, and is there", id, err)
			}
		}
		rows.Close()
	}
	t.Logf("%d transactions, %d failed, %d of them committed", n, len(failed), wrong)
}

// A connection that breaks before the answer to COMMIT, in the middle of an answer, leaves
// the outcome unknown.
func TestHalfResult(t *testing.T) {
	t.Parallel()
	d := stacktest.Postgres(t)
	dsn, proxy := tampered(t, d.URL)
	router := run(t, db.Config{Primary: dsn}, nil)
	err := router.InTx(t.Context(), func(ctx context.Context, tx pgx.Tx) error {
		_, err := tx.Exec(ctx, "INSERT INTO t VALUES (1)")
		proxy.set(func(typ byte, body []byte) ([]byte, bool) {
			if typ == 'T' { // of the setting: pass it, then the connection breaks
				return append(binary.BigEndian.AppendUint32([]byte{'T'}, uint32(len(body)+4)), body...), true
			}
			return nil, false
		})
		return err
	})
	proxy.set(nil)
	time.Sleep(100 * time.Millisecond)
	if n := count(t, d.URL, "id = 1"); n == 1 && !errors.Is(err, db.ErrOutcomeUnknown) {
		t.Errorf("committed, and reported as failed: %v", err)
	}
}

// A connection that breaks while a statement is prepared has changed nothing, and that is
// known: the write goes over another one, as a transaction does.
func TestBrokenPrepare(t *testing.T) {
	t.Parallel()
	d := stacktest.Postgres(t)
	dsn, proxy := tampered(t, d.URL)
	router := run(t, db.Config{Primary: dsn}, nil)
	for i, times := range []int64{1, 1 << 20} {
		if err := router.InTx(t.Context(), func(context.Context, pgx.Tx) error { return nil }); err != nil { // a connection
			t.Fatal(err)
		}
		sql := fmt.Sprintf("INSERT INTO t VALUES ($1 + %d)", i) // that no connection has prepared
		var cut atomic.Int64
		proxy.mu.Lock()
		proxy.toServer = func(b []byte) bool {
			if bytes.Contains(b, []byte(sql)) && cut.Add(1) <= times {
				proxy.cutAll()
				return false
			}
			return true
		}
		proxy.mu.Unlock()
		_, err := router.Write(t.Context()).Exec(t.Context(), sql, i)
		proxy.mu.Lock()
		proxy.toServer = nil
		proxy.mu.Unlock()
		if times == 1 && err != nil || times > 1 && (!errors.Is(err, db.ErrNoEligibleNode) || !db.Retryable(err)) {
			t.Errorf("cut %d times: %v", cut.Load(), err)
		}
	}
	if n := count(t, d.URL, "true"); n != 1 {
		t.Errorf("%d rows", n)
	}
}

// Who is told that his transaction is committed sees it.
func TestOutcomeSession(t *testing.T) {
	t.Parallel()
	d := stacktest.Postgres(t)
	dsn, proxy := stacktest.Proxied(t, d.URL)
	router := run(t, db.Config{Primary: dsn, Replicas: d.ReplicaURLs}, nil)
	session := client(t)
	ctx, cancel := context.WithTimeout(session, 300*time.Millisecond)
	defer cancel()
	err := router.InTx(ctx, func(ctx context.Context, tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "INSERT INTO t VALUES (1)"); err != nil {
			return err
		}
		return proxy.Add("answers", faultproxy.Fault{Kind: faultproxy.Cut, Direction: faultproxy.ToClient})
	})
	_ = proxy.Remove("answers")
	unknown, ok := errors.AsType[*db.OutcomeUnknownError](err)
	if !ok {
		t.Fatal(err)
	}
	within(t, 5*time.Second, func() error {
		out, err := router.Outcome(session, unknown)
		if err == nil && out != "committed" {
			err = errors.New(out)
		}
		return err
	})
	if causal.FromContext(session).Token().IsZero() {
		t.Error("Outcome has said committed, and the session does not know: its next read may go to a replica without the write")
	}
}

// A crash undoes what was not on disk: the numbers of its transactions are given again, so
// that they say nothing; and acknowledged writes that did not wait for the disk are reported.
func TestCrash(t *testing.T) {
	t.Parallel()
	s := ownStack(t)
	// The disk must not come first.
	admin, err := pgx.Connect(t.Context(), stack.SuperuserURL(service(t, s, "primary").Addr))
	if err != nil {
		t.Fatal(err)
	}
	for _, sql := range []string{"ALTER SYSTEM SET wal_writer_delay = '10s'", "SELECT pg_reload_conf()"} {
		if _, err := admin.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	_ = admin.Close(t.Context())
	lost := new(reports)
	router := run(t, db.Config{Primary: s.DatabaseURL(), Replicas: s.ReplicaURLs(), LostWrite: lost.add}, nil)
	ctx := t.Context()
	// An acknowledged write that the crash loses: synchronous_commit=off.
	var killed string
	async := client(t)
	unknown := &db.OutcomeUnknownError{}
	err = router.InTx(ctx, func(txctx context.Context, tx pgx.Tx) error {
		if _, err := tx.Exec(txctx, "INSERT INTO t VALUES (1)"); err != nil {
			return err
		}
		if err := tx.QueryRow(txctx, "SELECT pg_current_xact_id()::text::bigint").Scan(&unknown.XID); err != nil {
			return err
		}
		if err := router.InTx(async, func(ctx context.Context, tx pgx.Tx) error { // another transaction: ctx is not txctx
			if _, err := tx.Exec(ctx, "SET LOCAL synchronous_commit = off"); err != nil {
				return err
			}
			_, err := tx.Exec(ctx, "INSERT INTO t VALUES (2)")
			return err
		}); err != nil {
			return err
		}
		killed = fault(t, s, stack.Fault{Service: "primary", Kind: stack.FaultKill})
		return nil
	})
	unknown.Timeline = 1
	t.Logf("commit at the crash: %v", err)
	if err := s.RemoveFault(ctx, killed); err != nil {
		t.Fatal(err)
	}
	// Others go on.
	for i := range 10 {
		within(t, 20*time.Second, func() error {
			_, err := router.Write(ctx).Exec(ctx, "INSERT INTO t VALUES ($1)", 100+i)
			return err
		})
	}
	outcome, err := router.Outcome(ctx, unknown)
	one, two := count(t, s.DatabaseURL(), "id = 1"), count(t, s.DatabaseURL(), "id = 2")
	t.Logf("xid %d: outcome %q, %v; row 1 there: %d; async row there: %d; lost reported: %d", unknown.XID, outcome, err, one, two, router.LostWrites())
	if outcome == "committed" && one == 0 {
		t.Errorf("Outcome says %q of a transaction that the crash has undone: its number was given to another", outcome)
	}
	if two != 0 {
		t.Fatal("the write that did not wait for the disk has survived, so the test shows nothing")
	}
	within(t, 5*time.Second, func() error { // until the primary has been asked
		if n := router.LostWrites(); n != 1 {
			return fmt.Errorf("%d lost writes were reported", n)
		}
		return nil
	})
}
