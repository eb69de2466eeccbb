package db_test

import (
	"context"
	"io"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/loadlinehq/loadline/db"
	"github.com/loadlinehq/loadline/internal/stack"
)

// roundRobin is an address behind which each connection leads to the next server.
func roundRobin(t *testing.T, dsns ...string) string {
	t.Helper()
	var hosts []string
	for _, dsn := range dsns {
		u, err := url.Parse(dsn)
		if err != nil {
			t.Fatal(err)
		}
		hosts = append(hosts, u.Host)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wait sync.WaitGroup
	var turn atomic.Uint32
	wait.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", hosts[int(turn.Add(1))%len(hosts)])
			if err != nil {
				_ = client.Close()
				continue
			}
			for _, pair := range [][2]net.Conn{{client, server}, {server, client}} {
				wait.Go(func() {
					_, _ = io.Copy(pair[0], pair[1])
					_ = client.Close()
					_ = server.Close()
				})
			}
		}
	})
	t.Cleanup(func() { _ = listener.Close(); wait.Wait() })
	u, _ := url.Parse(dsns[0])
	u.Host = listener.Addr().String()
	return u.String()
}

// One address, two replicas of which one is far behind, and no way to choose: what the
// session has seen is seen all the same, from the other one or from the primary.
func TestHiddenServers(t *testing.T) {
	t.Parallel()
	s := ownStack(t)
	endpoint := roundRobin(t, s.ReplicaURLs()...)
	router := run(t, db.Config{Primary: s.DatabaseURL(), Endpoints: []string{endpoint}}, nil)
	ctx := client(t)
	if _, err := router.Write(ctx).Exec(ctx, "INSERT INTO t VALUES (1)"); err != nil {
		t.Fatal(err)
	}
	time.Sleep(300 * time.Millisecond)
	fault(t, s, stack.Fault{Service: "replica-2", Kind: stack.FaultLag, Delay: 5 * time.Second})

	// A table that the one that is behind does not have yet.
	if _, err := router.Write(ctx).Exec(ctx, "CREATE TABLE young (n int)"); err != nil {
		t.Fatal(err)
	}
	var wait sync.WaitGroup
	for range 6 {
		wait.Go(func() {
			if _, err := router.Read(ctx).Exec(ctx, "SELECT n FROM young"); err != nil {
				t.Errorf("a table that was made a moment ago: %v", err)
			}
		})
	}
	wait.Wait()

	var replicas, stale, reads int
	note := func(n, want int, replica bool) {
		reads++
		if n < want {
			stale++
		}
		if replica {
			replicas++
		}
	}
	const sql = "SELECT n, pg_is_in_recovery() FROM t WHERE id = $1"
	const few = 100 // on replicas, of 600: a machine that has much else to do replays later than a read waits
	for i, limit := 0, time.Now().Add(time.Minute); i < 150 || replicas < few && time.Now().Before(limit); i++ {
		ctx := client(t)
		var want int
		if err := router.Write(ctx).QueryRow(ctx, "UPDATE t SET n = n + 1 WHERE id = 1 RETURNING n").Scan(&want); err != nil {
			t.Fatal(err)
		}
		var wait sync.WaitGroup
		var mu sync.Mutex
		for range 4 { // on connections to both
			wait.Go(func() {
				var n int
				var replica bool
				var err error
				switch i % 3 {
				case 0:
					err = router.Read(ctx).QueryRow(ctx, sql, 1).Scan(&n, &replica)
				case 1:
					err = router.ReadTx(ctx, func(ctx context.Context, tx pgx.Tx) error { return tx.QueryRow(ctx, sql, 1).Scan(&n, &replica) })
				case 2:
					var b pgx.Batch
					b.Queue(sql, 1)
					results := router.Read(ctx).SendBatch(ctx, &b)
					err = results.QueryRow().Scan(&n, &replica)
					if closeErr := results.Close(); err == nil {
						err = closeErr
					}
				}
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					t.Error(err)
				}
				note(n, want, replica)
			})
		}
		wait.Wait()
	}
	if stale > 0 || replicas < few {
		t.Errorf("of %d reads %d were stale, and %d on replicas", reads, stale, replicas)
	}
	t.Logf("%d reads, %d on replicas", reads, replicas)

	// Without a session's mark they may be: the test can see it.
	var behind int
	for range 100 {
		var want int
		if err := router.Write(ctx).QueryRow(ctx, "UPDATE t SET n = n + 1 WHERE id = 1 RETURNING n").Scan(&want); err != nil {
			t.Fatal(err)
		}
		var n int
		if err := router.Read(ctx, db.Any()).QueryRow(ctx, "SELECT n FROM t WHERE id = 1").Scan(&n); err != nil {
			t.Fatal(err)
		}
		if n < want {
			behind++
		}
	}
	if behind == 0 {
		t.Error("no read was stale with the guard off")
	}

	// What is beyond the lag limit is not read, although nobody can see which it is.
	strict := run(t, db.Config{Primary: s.DatabaseURL(), Endpoints: []string{endpoint}, LagLimit: time.Second}, nil)
	time.Sleep(1500 * time.Millisecond)
	for range 20 {
		var want, n int
		if err := router.Write(ctx).QueryRow(ctx, "SELECT n FROM t WHERE id = 1").Scan(&want); err != nil {
			t.Fatal(err)
		}
		if _, err := router.Write(ctx).Exec(ctx, "UPDATE t SET n = n + 1"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond)
		fresh := client(t)
		if err := strict.Read(fresh).QueryRow(fresh, "SELECT n FROM t WHERE id = 1").Scan(&n); err != nil || n < want-30 {
			t.Errorf("%d after %d, %v: more than a second behind", n, want, err)
		}
	}
}
