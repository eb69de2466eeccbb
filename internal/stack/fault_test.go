package stack

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/nats-io/nats.go"
	"github.com/redis/rueidis"

	"github.com/loadlinehq/loadline/internal/stack/faultproxy"
)

func addFault(t *testing.T, s *Stack, f Fault) ActiveFault {
	t.Helper()
	active, err := s.AddFault(t.Context(), f)
	if err != nil {
		t.Fatalf("add %s: %v", f, err)
	}
	return active
}

func removeFault(t *testing.T, s *Stack, id string) {
	t.Helper()
	if err := s.RemoveFault(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if exists(faultsPath(s.cfg.Dir)) && len(s.Faults()) == 0 {
		t.Error("the record of faults is still there")
	}
}

func find(t *testing.T, s *Stack, name string) Service {
	t.Helper()
	all := s.Services()
	i := slices.IndexFunc(all, func(s Service) bool { return s.Name == name })
	if i < 0 {
		t.Fatalf("there is no service %s", name)
	}
	return all[i]
}

func connectTo(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeSoon(conn) })
	return conn
}

// within runs a query and reports its error, which is a deadline's when it hangs.
func within(limit time.Duration, conn *pgx.Conn) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	var one int
	return conn.QueryRow(ctx, "SELECT 1").Scan(&one)
}

func ping(t *testing.T, s *Stack, name string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	return Ping(ctx, find(t, s, name))
}

// Each kind of fault has its effect, on its service alone, and none once it is removed.
func TestFaults(t *testing.T) {
	t.Parallel()
	whole := t
	s, events := open(t, openDir(t), 2)
	execute(t, s.DatabaseURL(), "CREATE TABLE note (text text)")
	replica1, replica2 := s.ReplicaURLs()[0], s.ReplicaURLs()[1]
	rows := func(url, text string) int {
		t.Helper()
		return query[int](t, url, "SELECT count(*)::int FROM note WHERE text = $1", text)
	}

	t.Run("kill", func(t *testing.T) {
		before := find(t, s, "redis").PID
		f := addFault(t, s, Fault{Service: "redis", Kind: FaultKill})
		if ping(t, s, "redis") == nil {
			t.Error("redis answers")
		}
		waitFor(t, "its state", func() bool { return find(t, s, "redis").State == Exited })
		removeFault(t, s, f.ID)
		if err := ping(t, s, "redis"); err != nil || find(t, s, "redis").PID == before {
			t.Errorf("redis was not started again: %v", err)
		}
		for _, event := range events.ends("redis") {
			if event.Service.State != Exited || !strings.Contains(event.Err.Error(), "signal 9") {
				t.Errorf("it ended with %+v", event)
			}
		}
	})

	t.Run("kill PostgreSQL", func(t *testing.T) {
		conn := connectTo(t, replica1)
		backend := int(conn.PgConn().PID())
		f := addFault(t, s, Fault{Service: "replica-1", Kind: FaultKill})
		if startID(backend) != "" {
			t.Error("a backend outlives its server")
		}
		removeFault(t, s, f.ID)
		query[int](t, replica1, "SELECT 1")
	})

	t.Run("pause", func(t *testing.T) {
		conn := connectTo(t, s.DatabaseURL())
		f := addFault(t, s, Fault{Service: "primary", Kind: FaultPause})
		for _, pid := range processesBelow([]string{s.cluster.dataDir("primary")}) {
			if state := procStat(pid)[0]; state != "T" {
				t.Errorf("process %d is in state %s", pid, state)
			}
		}
		if err := within(300*time.Millisecond, connectTo(t, replica1)); err != nil {
			t.Errorf("replica-1 is paused, too: %v", err)
		}
		// Not through pgx: it would close the connection when the time is over.
		if _, err := conn.PgConn().Conn().Write([]byte("Q\x00\x00\x00\x0dSELECT 1\x00")); err != nil {
			t.Fatal(err)
		}
		_ = conn.PgConn().Conn().SetReadDeadline(time.Now().Add(300 * time.Millisecond))
		if n, err := conn.PgConn().Conn().Read(make([]byte, 100)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("an open connection answers %d bytes, %v", n, err)
		}
		removeFault(t, s, f.ID)
		_ = conn.PgConn().Conn().SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, err := conn.PgConn().Conn().Read(make([]byte, 100)); err != nil {
			t.Errorf("the connection does not go on: %v", err)
		}
	})

	t.Run("restart", func(t *testing.T) {
		before := find(t, s, "nats").PID
		f := addFault(t, s, Fault{Service: "nats", Kind: FaultRestart})
		if f.Phase != FaultRemoved || len(s.Faults()) != 0 {
			t.Errorf("a restart is over when it is done, not %+v", f)
		}
		if err := ping(t, s, "nats"); err != nil || find(t, s, "nats").PID == before {
			t.Errorf("nats was not started again: %v", err)
		}
	})

	t.Run("restart of the dead", func(t *testing.T) {
		if err := syscall.Kill(find(t, s, "redis").PID, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		waitFor(t, "its end", func() bool { return find(t, s, "redis").State == Exited })
		addFault(t, s, Fault{Service: "redis", Kind: FaultRestart})
		if err := ping(t, s, "redis"); err != nil {
			t.Error(err)
		}
	})

	t.Run("latency", func(t *testing.T) {
		took := func() time.Duration {
			began := time.Now()
			if err := ping(t, s, "redis"); err != nil {
				t.Fatal(err)
			}
			return time.Since(began)
		}
		f := addFault(t, s, Fault{Service: "redis", Kind: FaultLatency, Delay: 150 * time.Millisecond})
		if got := took(); got < 300*time.Millisecond {
			t.Errorf("a PING took %s, want 150 ms each way", got)
		}
		removeFault(t, s, f.ID)
		if got := took(); got > 150*time.Millisecond {
			t.Errorf("afterwards a PING took %s", got)
		}
	})

	t.Run("for", func(t *testing.T) {
		f := addFault(t, s, Fault{Service: "redis", Kind: FaultStall, For: 500 * time.Millisecond})
		if f.Until.IsZero() || ping(t, s, "redis") == nil && time.Now().Before(f.Until) {
			t.Errorf("redis answers before %s", f.Until)
		}
		waitFor(t, "its end", func() bool { return len(s.Faults()) == 0 })
		if err := ping(t, s, "redis"); err != nil {
			t.Error(err)
		}
	})

	t.Run("lag", func(t *testing.T) {
		f := addFault(t, s, Fault{Service: "replica-1", Kind: FaultLag, Delay: time.Minute})
		time.Sleep(time.Second) // until it bites; db.md has 0.8 s
		execute(t, s.DatabaseURL(), "INSERT INTO note VALUES ('lag')")
		waitFor(t, "the row on the other replica", func() bool { return rows(replica2, "lag") == 1 })
		if rows(replica1, "lag") != 0 {
			t.Error("the row is there at once")
		}
		removeFault(t, s, f.ID)
		waitFor(t, "the row", func() bool { return rows(replica1, "lag") == 1 })
	})

	// A signal reaches the threads of a busy process one by one.
	t.Run("pause threads", func(t *testing.T) {
		if _, err := os.Stat("/proc/self/task"); err != nil {
			t.Skip("needs /proc")
		}
		addr := find(t, s, "redis").Addr
		for range 8 {
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			go func() { _, _ = io.Copy(io.Discard, conn) }()
			go func() { // until the connection is closed
				for {
					if _, err := conn.Write(bytes.Repeat([]byte("PING\r\n"), 1000)); err != nil {
						return
					}
				}
			}()
		}
		for range 30 {
			f := addFault(t, s, Fault{Service: "redis", Kind: FaultPause})
			threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", find(t, s, "redis").PID))
			if err != nil || len(threads) == 0 {
				t.Fatal("no threads", err)
			}
			for _, path := range threads {
				if stat, err := os.ReadFile(path); err != nil || !strings.Contains(string(stat), ") T ") {
					t.Errorf("a thread is not stopped: %s (%v)", stat, err)
				}
			}
			removeFault(t, s, f.ID)
		}
	})

	t.Run("replay-pause", func(t *testing.T) {
		f := addFault(t, s, Fault{Service: "replica-2", Kind: FaultReplayPause})
		// It is a state of the process; the fault outlives it.
		addFault(t, s, Fault{Service: "replica-2", Kind: FaultRestart})
		waitFor(t, "the pause after a restart", func() bool {
			return query[string](t, SuperuserURL(find(t, s, "replica-2").Addr), "SELECT pg_get_wal_replay_pause_state()") == "paused"
		})
		execute(t, s.DatabaseURL(), "INSERT INTO note VALUES ('replay')")
		waitFor(t, "the row on the other replica", func() bool { return rows(replica1, "replay") == 1 })
		if rows(replica2, "replay") != 0 {
			t.Error("the row is there at once")
		}
		removeFault(t, s, f.ID)
		waitFor(t, "the row", func() bool { return rows(replica2, "replay") == 1 })
	})

	t.Run("stream-cut", func(t *testing.T) {
		f := addFault(t, s, Fault{Service: "replica-1", Kind: FaultStreamCut})
		execute(t, s.DatabaseURL(), "INSERT INTO note VALUES ('stream')")
		waitFor(t, "the row on the other replica", func() bool { return rows(replica2, "stream") == 1 })
		if rows(replica1, "stream") != 0 {
			t.Error("the row is there at once")
		}
		removeFault(t, s, f.ID)
		waitFor(t, "the row", func() bool { return rows(replica1, "stream") == 1 })
	})

	t.Run("exhaust", func(t *testing.T) {
		f := addFault(t, s, Fault{Service: "primary", Kind: FaultExhaust})
		conn, err := pgx.Connect(t.Context(), s.DatabaseURL())
		if pg, ok := errors.AsType[*pgconn.PgError](err); !ok || pg.Code != "53300" {
			t.Errorf("got %v, want too many connections", err)
			if err == nil {
				closeSoon(conn)
			}
		}
		if state := query[string](t, SuperuserURL(find(t, s, "primary").Addr), "SELECT DISTINCT state FROM pg_stat_activity WHERE application_name = 'loadline-fault'"); state != "idle in transaction" {
			t.Errorf("the sessions are %s", state)
		}
		removeFault(t, s, f.ID)
		waitFor(t, "a free connection", func() bool {
			conn, err := pgx.Connect(t.Context(), s.DatabaseURL())
			if err == nil {
				closeSoon(conn)
			}
			return err == nil
		})
	})

	t.Run("promote", func(t *testing.T) {
		addFault(t, s, Fault{Service: "primary", Kind: FaultKill}) // the old one may be dead already
		f := addFault(t, s, Fault{Service: "replica-1", Kind: FaultPromote})
		if got := find(t, s, "replica-1").Role + " " + find(t, s, "primary").Role; got != "primary replica" {
			t.Errorf("the roles are %s", got)
		}
		if s.DatabaseURL() != replica1 {
			t.Errorf("the database is at %s, want %s", s.DatabaseURL(), replica1)
		}
		execute(t, s.DatabaseURL(), "INSERT INTO note VALUES ('promoted')")
		waitFor(t, "the row on the other replica", func() bool { return rows(replica2, "promoted") == 1 })
		removeFault(t, s, s.Faults()[0].ID)
		if find(t, s, "primary").State == Ready {
			t.Error("the old primary is back while the promotion lasts")
		}
		removeFault(t, s, f.ID)
		old := fmt.Sprintf("postgres://app@%s/app", find(t, s, "primary").Addr)
		waitFor(t, "the row on the old primary", func() bool { return rows(old, "promoted") == 1 })
		if query[int](t, SuperuserURL(find(t, s, "replica-1").Addr), "SELECT count(*)::int FROM pg_stat_replication") != 2 {
			t.Error("the new primary has not two replicas")
		}
		// And back, over a stop: the role is not forgotten.
		s.Close(t.Context())
		s, _ = open(whole, s.cfg.Dir, 2)
		if role := find(t, s, "replica-1").Role; role != "primary" {
			t.Errorf("after a stop replica-1 is %s", role)
		}
		back := addFault(t, s, Fault{Service: "primary", Kind: FaultPromote})
		removeFault(t, s, back.ID)
		if got := query[int](t, s.DatabaseURL(), "SELECT count(*)::int FROM note"); got != 4 {
			t.Errorf("%d rows are left of 4", got)
		}
	})

	t.Run("disk-full", func(t *testing.T) {
		if err := canLimitDisk(); err != nil {
			t.Skip(err)
		}
		execute(t, s.DatabaseURL(), "INSERT INTO note VALUES ('before')")
		f := addFault(t, s, Fault{Service: "primary", Kind: FaultDiskFull})
		conn := connectTo(t, s.DatabaseURL())
		_, err := conn.Exec(t.Context(), "CREATE TABLE filler AS SELECT repeat(md5(n::text), 100) FROM generate_series(1, 100000) AS n")
		if err == nil || !strings.Contains(err.Error(), "No space left on device") {
			t.Errorf("a write of a large table: %v", err)
		}
		removeFault(t, s, f.ID)
		execute(t, s.DatabaseURL(), "CREATE TABLE filler AS SELECT repeat(md5(n::text), 100) FROM generate_series(1, 20000) AS n")
		if got := query[int](t, s.DatabaseURL(), "SELECT count(*)::int FROM note WHERE text = 'before'"); got != 1 {
			t.Error("what was written before is gone")
		}
		for _, suffix := range []string{limitedSuffix, copiedSuffix, restoredSuffix} {
			if exists(s.cluster.dataDir("primary") + suffix) {
				t.Errorf("%s is still there", suffix)
			}
		}
	})
}

func TestFaultIsRefused(t *testing.T) {
	t.Parallel()
	s, _ := open(t, openDir(t), 1)
	addFault(t, s, Fault{Service: "replica-1", Kind: FaultPause})
	for _, test := range []struct {
		fault Fault
		want  error
		says  string
	}{
		{Fault{Service: "redis", Kind: "explode"}, ErrBadFault, "there is: kill, pause"},
		{Fault{Service: "replica-7", Kind: FaultKill}, ErrNoService, "primary, replica-1, redis, nats"},
		{Fault{Service: "redis", Kind: FaultLag, Delay: time.Second}, ErrBadFault, "can be done to replica"},
		{Fault{Service: "primary", Kind: FaultPromote}, ErrBadFault, "primary is primary"},
		{Fault{Service: "redis", Kind: FaultLatency}, ErrBadFault, "latency needs --delay"},
		{Fault{Service: "redis", Kind: FaultKill, Delay: time.Second, Sessions: 3}, ErrBadFault, "kill takes no --delay\nkill takes no --sessions"},
		{Fault{Service: "redis", Kind: FaultKill, For: -1}, ErrBadFault, "--for"},
		{Fault{Service: "redis", Kind: FaultCut, Direction: "sideways"}, ErrBadFault, "sideways"},
		{Fault{Service: "redis", Kind: FaultRestart, For: time.Second}, ErrBadFault, "takes no --for"},
		{Fault{Service: "replica-1", Kind: FaultPause}, ErrConflict, "has pause already (fault 1)"},
		{Fault{Service: "replica-1", Kind: FaultReplayPause}, ErrConflict, "is paused (fault 1)"},
	} {
		_, err := s.AddFault(t.Context(), test.fault)
		if !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: got %v, want %v that says %q", test.fault, err, test.want, test.says)
		}
	}
	if err := s.RemoveFault(t.Context(), "99"); !errors.Is(err, ErrNoFault) {
		t.Errorf("got %v, want %v", err, ErrNoFault)
	}
	// What the fault list and the record say is what there is.
	if got := s.Faults(); len(got) != 1 || got[0].Kind != FaultPause || got[0].Undo == "" {
		t.Errorf("the faults are %+v", got)
	}
	var written []ActiveFault
	data, err := os.ReadFile(faultsPath(s.cfg.Dir))
	if err != nil || json.Unmarshal(data, &written) != nil || len(written) != 1 || written[0].Kind != FaultPause {
		t.Errorf("the record is %s, %v", data, err)
	}
	began := time.Now()
	s.Close(t.Context())
	if took := time.Since(began); took > stopGrace/2 {
		t.Errorf("Close with a paused replica took %s", took)
	}
	if exists(faultsPath(s.cfg.Dir)) {
		t.Error("the record outlives the stack")
	}
}

// Who connects to NATS or Redis learns of no way around the proxy.
func TestClientsStayBehindProxies(t *testing.T) {
	t.Parallel()
	s, _ := open(t, openDir(t), 0)
	conn, err := nats.Connect("nats://"+find(t, s, "nats").Addr, nats.ReconnectWait(20*time.Millisecond), nats.MaxReconnects(-1))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	redis := redisClient(t, s)
	get := func() error {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := redis.Do(ctx, redis.B().Get().Key("key").Build()).Error(); !rueidis.IsRedisNil(err) {
			return err
		}
		return nil
	}
	for _, service := range []string{"nats", "redis"} {
		direct := find(t, s, service).Direct
		_, port, _ := net.SplitHostPort(direct)
		if servers := strings.Join(append(conn.Servers(), conn.DiscoveredServers()...), " "); strings.Contains(servers, port) {
			t.Errorf("the client knows of %s: %s", direct, servers)
		}
		addFault(t, s, Fault{Service: service, Kind: FaultReset})
	}
	waitFor(t, "the reset of NATS", func() bool { return !conn.IsConnected() })
	if err := get(); err == nil {
		t.Error("Redis answers")
	}
	time.Sleep(200 * time.Millisecond) // ten tries to find another way
	if conn.IsConnected() {
		t.Errorf("NATS has connected to %s", conn.ConnectedAddr())
	}
	if err := s.ClearFaults(t.Context()); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "NATS is back", conn.IsConnected)
	waitFor(t, "Redis is back", func() bool { return get() == nil })
}

// With Restart, what dies comes back, however often, and what a fault has killed does
// not before the fault is over.
func TestRestartOfTheDead(t *testing.T) {
	if testing.Short() {
		t.Skip("starts servers; skipped by -short")
	}
	t.Parallel()
	s, err := Open(t.Context(), Config{
		Dir: openDir(t), PortBase: AnyPortBase, Replicas: 1, DisableSync: true, Restart: true,
		NATSCommand: []string{os.Args[0], "nats-server"},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Kill)
	for _, name := range []string{"redis", "redis", "primary", "replica-1"} {
		before := find(t, s, name).PID
		if err := syscall.Kill(before, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		waitFor(t, name+" is back", func() bool { now := find(t, s, name); return now.State == Ready && now.PID != before })
	}
	query[int](t, s.DatabaseURL(), "SELECT 1")
	waitFor(t, "replica-1 streams", func() bool {
		return query[int](t, SuperuserURL(find(t, s, "primary").Addr), "SELECT count(*)::int FROM pg_stat_replication WHERE state = 'streaming'") == 1
	})
	f := addFault(t, s, Fault{Service: "redis", Kind: FaultKill})
	time.Sleep(time.Second) // longer than it takes to restart it
	if ping(t, s, "redis") == nil {
		t.Error("redis was restarted while a fault holds it down")
	}
	removeFault(t, s, f.ID)
	if err := ping(t, s, "redis"); err != nil {
		t.Error(err)
	}
}

// A replica that somebody has promoted is no replica any more: it is made anew.
func TestForkedReplicaIsMadeAnew(t *testing.T) {
	t.Parallel()
	s, events := open(t, openDir(t), 1)
	replica := SuperuserURL(find(t, s, "replica-1").Addr)
	if !query[bool](t, replica, "SELECT pg_promote()") {
		t.Fatal("the replica was not promoted")
	}
	waitFor(t, "a replica again", func() bool {
		recovers, err := isTrue(t.Context(), s.cluster.server("replica-1"), "SELECT pg_is_in_recovery()")
		return err == nil && recovers
	})
	waitFor(t, "it streams", func() bool {
		return query[int](t, SuperuserURL(find(t, s, "primary").Addr), "SELECT count(*)::int FROM pg_stat_replication WHERE state = 'streaming'") == 1
	})
	waitFor(t, "the note", func() bool {
		events.mu.Lock()
		defer events.mu.Unlock()
		return slices.ContainsFunc(events.all, func(e Event) bool { return e.Service.Name == "replica-1" && strings.Contains(e.Note, "made anew") })
	})
}

// A replica that has received more than the promoted one, and did not answer then, shows as streaming when it does, and
// follows never.
func TestAheadReplicaIsMadeAnew(t *testing.T) {
	if os.Getenv("LOADLINE_SLOW") == "" {
		t.Skip("set LOADLINE_SLOW to wait until a replica is given up, for some 40 s")
	}
	t.Parallel()
	s, events := open(t, openDir(t), 2)
	add := func(f Fault) string {
		t.Helper()
		active, err := s.AddFault(t.Context(), f)
		if err != nil {
			t.Fatal(err)
		}
		return active.ID
	}
	add(Fault{Service: "replica-2", Kind: FaultStreamCut})
	execute(t, SuperuserURL(find(t, s, "primary").Addr), "CREATE TABLE lost AS SELECT repeat('x', 1000) FROM generate_series(1, 1000)")
	waitFor(t, "replica-1 has it", func() bool {
		return query[bool](t, SuperuserURL(find(t, s, "replica-1").Addr), "SELECT to_regclass('lost') IS NOT NULL")
	})
	paused := add(Fault{Service: "replica-1", Kind: FaultPause})
	add(Fault{Service: "replica-2", Kind: FaultPromote})
	if err := s.RemoveFault(t.Context(), paused); err != nil {
		t.Fatal(err)
	}
	execute(t, SuperuserURL(find(t, s, "replica-2").Addr), "CREATE TABLE found ()")
	told := func() bool {
		events.mu.Lock()
		defer events.mu.Unlock()
		return slices.ContainsFunc(events.all, func(e Event) bool { return e.Service.Name == "replica-1" && strings.Contains(e.Note, "made anew") })
	}
	for limit := time.Now().Add(40 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		follows, err := isTrue(t.Context(), s.cluster.server("replica-1"), "SELECT to_regclass('found') IS NOT NULL AND to_regclass('lost') IS NULL")
		if err == nil && follows && told() {
			return
		}
		if time.Now().After(limit) {
			t.Fatalf("it follows: %t, %v; somebody was told: %t", follows, err, told())
		}
	}
}

// A restore that was cut short anywhere is finished by the next one, with the data
// that the server had written last.
func TestRestoreDisk(t *testing.T) {
	t.Parallel()
	if err := canLimitDisk(); err != nil {
		t.Skip(err)
	}
	for name, test := range map[string]struct {
		upTo string // the last step that was done
		want string
	}{
		"while it was copied there": {"copied to", "old"},
		"while the server ran":      {"bound", "new"},
		"while it was copied back":  {"half copied back", "new"},
		"when it was copied back":   {"copied back", "new"},
		"when it was written since": {"written since", "newer"},
		"when it was unmounted":     {"unmounted", "new"},
		"while the old was deleted": {"half deleted", "new"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			data := filepath.Join(t.TempDir(), "data")
			write := func(path, text string) {
				t.Helper()
				if err := os.WriteFile(path, []byte(text), 0o640); err != nil {
					t.Fatal(err)
				}
			}
			must := func(err error) {
				t.Helper()
				if err != nil {
					t.Fatal(err)
				}
			}
			must(os.Mkdir(data, 0o700))
			must(os.Chown(data, 12345, 12345))
			write(filepath.Join(data, "file"), "old")
			steps := []struct {
				name string
				do   func()
			}{
				{"copied to", func() {
					must(os.Mkdir(data+limitedSuffix, 0o700))
					must(mountLimited(data+limitedSuffix, 1<<20))
					write(filepath.Join(data+limitedSuffix, "file"), "half")
				}},
				{"bound", func() {
					must(copyTree(t.Context(), data, data+limitedSuffix))
					must(bindMount(data+limitedSuffix, data))
					write(filepath.Join(data, "file"), "new")
					must(fill(t.Context(), filepath.Join(data, ballast)))
				}},
				{"half copied back", func() {
					must(os.Mkdir(data+copiedSuffix, 0o700))
					write(filepath.Join(data+copiedSuffix, "file"), "half")
				}},
				{"copied back", func() {
					must(os.Remove(filepath.Join(data, ballast)))
					must(copyTree(t.Context(), data, data+copiedSuffix))
					must(os.Rename(data+copiedSuffix, data+restoredSuffix))
				}},
				{"written since", func() {
					if test.upTo == "written since" {
						write(filepath.Join(data, "file"), "newer")
					}
				}},
				{"unmounted", func() { must(unmount(data)) }},
				{"half deleted", func() { must(os.Remove(filepath.Join(data, "file"))) }},
			}
			for _, step := range steps {
				step.do()
				if step.name == test.upTo {
					break
				}
			}
			for range 2 { // twice is once
				must(restoreDisk(data))
			}
			text, err := os.ReadFile(filepath.Join(data, "file"))
			if err != nil || string(text) != test.want {
				t.Errorf("the data is %q, %v; want %q", text, err, test.want)
			}
			info, err := os.Stat(data)
			must(err)
			if stat := info.Sys().(*syscall.Stat_t); stat.Uid != 12345 || info.Mode().Perm() != 0o700 {
				t.Errorf("the data is of user %d, mode %s", stat.Uid, info.Mode())
			}
			entries, err := os.ReadDir(filepath.Dir(data))
			if err != nil || len(entries) != 1 || mounted(data) {
				t.Errorf("%v is left, %v; mounted: %t", entries, err, mounted(data))
			}
			if entries, err := os.ReadDir(data); err != nil || len(entries) != 1 {
				t.Errorf("the data is %v, %v", entries, err)
			}
		})
	}
}

// A promotion that PostgreSQL refuses leaves the primary as it was.
func TestFailedPromotion(t *testing.T) {
	t.Parallel()
	s, _ := open(t, openDir(t), 2)
	cut := addFault(t, s, Fault{Service: "replica-2", Kind: FaultStreamCut})
	execute(t, s.DatabaseURL(), "CREATE TABLE note (text text)")
	// pg_promote makes a file of this name, and cannot through a link into nowhere. A
	// directory in its place would itself promote the server at its next signal.
	obstacle := filepath.Join(s.cluster.dataDir("replica-1"), "promote")
	if err := os.Symlink(filepath.Join("nowhere", "promote"), obstacle); err != nil {
		t.Fatal(err)
	}
	if _, err := s.AddFault(t.Context(), Fault{Service: "replica-1", Kind: FaultPromote}); err == nil {
		t.Fatal("it was promoted")
	}
	if faults := s.Faults(); len(faults) != 1 || find(t, s, "primary").State != Ready || find(t, s, "primary").Role != "primary" {
		t.Errorf("faults are %+v, and the primary is %+v", faults, find(t, s, "primary"))
	}
	execute(t, s.DatabaseURL(), "INSERT INTO note VALUES ('still here')")
	if err := os.Remove(obstacle); err != nil {
		t.Fatal(err)
	}

	// One that works does not mend the stream that a fault has cut.
	before := find(t, s, "replica-2").PID
	addFault(t, s, Fault{Service: "replica-1", Kind: FaultPromote})
	if query[bool](t, SuperuserURL(find(t, s, "replica-2").Addr), "SELECT to_regclass('note') IS NOT NULL") || find(t, s, "replica-2").PID != before {
		t.Error("replica-2 was made anew in spite of its fault")
	}
	removeFault(t, s, cut.ID)
	removeFault(t, s, s.Faults()[0].ID)
	waitFor(t, "the row on replica-2", func() bool {
		found, err := isTrue(t.Context(), s.cluster.server("replica-2"), "SELECT pg_is_in_recovery() AND EXISTS (SELECT FROM pg_stat_wal_receiver)")
		return err == nil && found
	})
}

// To wipe a directory its full disk needs not be restored.
func TestWipeFullDisk(t *testing.T) {
	t.Parallel()
	if err := canLimitDisk(); err != nil {
		t.Skip(err)
	}
	dir := openDir(t) // wipes again, and looks whether it is gone
	lock, err := prepareDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(dir, "redis")
	for _, path := range []string{data, data + limitedSuffix} {
		if err := os.Mkdir(path, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(mountLimited(data+limitedSuffix, 1<<20), bindMount(data+limitedSuffix, data), lock.Close()); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(faultsPath(dir), []byte("{ not JSON"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := Wipe(dir); err != nil {
		t.Error(err)
	}
}

// Faults are written and read as they are.
func TestFaultJSON(t *testing.T) {
	t.Parallel()
	want := ActiveFault{
		ID: "7", Phase: FaultActive, Since: time.Unix(1, 0).UTC(), Until: time.Unix(2, 0).UTC(), Undo: "do", Problem: "none", Was: "primary", Promoting: true,
		Fault: Fault{
			Service: "redis", Kind: FaultLatency, Delay: 50 * time.Millisecond, Jitter: time.Microsecond,
			BytesPerSecond: 9, Direction: faultproxy.ToServer, Sessions: 3, For: time.Minute,
		},
	}
	data, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var got ActiveFault
	if err := json.Unmarshal(data, &got); err != nil || got != want {
		t.Errorf("got %+v, %v\nwant %+v\nfrom %s", got, err, want, data)
	}
	if err := json.Unmarshal([]byte(`{"delay": "5 seconds", "for": "x"}`), &Fault{}); err == nil || !strings.Contains(err.Error(), "delay: ") || !strings.Contains(err.Error(), "for: ") {
		t.Errorf("bad durations: %v", err)
	}
}

// There is too little room: that is said before anything is made.
func TestDiskIsFull(t *testing.T) {
	t.Parallel()
	if err := canLimitDisk(); err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	if err := mountLimited(dir, 8<<20); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unmount(dir); err != nil {
			t.Error(err)
		}
	})
	_, err := Open(t.Context(), Config{Dir: filepath.Join(dir, "stack"), PortBase: AnyPortBase, NATSCommand: []string{"nobody"}})
	if !errors.Is(err, ErrDiskFull) || !strings.Contains(err.Error(), "MB are free") {
		t.Errorf("got %v, want %v", err, ErrDiskFull)
	}
}
