package stack

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/redis/rueidis"
)

// openDir is a directory that PostgreSQL's user can enter when the tests run as
// root, which t.TempDir is not.
func openDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "loadline-stack-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := Wipe(dir); err != nil {
			t.Error(err)
		}
		if exists(dir) {
			t.Errorf("%s is left after Wipe", dir)
		}
	})
	return dir
}

// events collects what a stack notifies of.
type events struct {
	mu  sync.Mutex
	all []Event
}

func (e *events) add(event Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, event)
}

func (e *events) ends(name string) []Event {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(e.all), func(event Event) bool {
		return event.Fault != nil || event.Service.Name != name || (event.Service.State != Exited && event.Service.State != Stopped)
	})
}

func open(t *testing.T, dir string, replicas int) (*Stack, *events) {
	t.Helper()
	if testing.Short() {
		t.Skip("starts servers; skipped by -short")
	}
	events := &events{}
	s, err := Open(t.Context(), Config{
		Dir: dir, PortBase: AnyPortBase, Replicas: replicas, DisableSync: true,
		NATSCommand: []string{os.Args[0], "nats-server"}, Notify: events.add,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Kill)
	return s, events
}

func query[T any](t *testing.T, url, sql string, args ...any) T {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	var value T
	if err := conn.QueryRow(t.Context(), sql, args...).Scan(&value); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return value
}

// All servers keep their data over an orderly stop, and replicas continue on theirs
// instead of copying the primary again.
func TestRestartKeepsData(t *testing.T) {
	t.Parallel()
	dir := openDir(t)
	s, events := open(t, dir, 2)
	query[int](t, s.DatabaseURL(), "WITH t AS (SELECT 1 AS n) SELECT n FROM t")
	execute(t, s.DatabaseURL(), "CREATE TABLE note (text text)", "INSERT INTO note VALUES ('kept')")
	redis := redisClient(t, s)
	if err := redis.Do(t.Context(), redis.B().Set().Key("note").Value("kept").Build()).Error(); err != nil {
		t.Fatal(err)
	}
	if _, err := jetStream(t, s).CreateStream(t.Context(), jetstream.StreamConfig{Name: "NOTES"}); err != nil {
		t.Fatal(err)
	}
	marker := filepath.Join(dir, "postgres", "replica-1", "marker")
	if err := os.WriteFile(marker, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	s.Close(t.Context())
	s.Close(t.Context()) // twice is once
	for _, name := range []string{"primary", "replica-1", "replica-2", "redis", "nats"} {
		if ends := events.ends(name); len(ends) != 1 || ends[0].Service.State != Stopped {
			t.Errorf("%s ended with %+v, want it stopped once", name, ends)
		}
	}
	if log := tail(filepath.Join(dir, "logs", "primary.log"), 1); !strings.Contains(log, "database system is shut down") {
		t.Errorf("the primary was not shut down in order; its log ends with %q", log)
	}

	s, _ = open(t, dir, 2)
	if got := query[string](t, s.DatabaseURL(), "SELECT text FROM note"); got != "kept" {
		t.Errorf("the primary has %q", got)
	}
	for _, url := range s.ReplicaURLs() {
		if got := query[string](t, url, "SELECT text FROM note"); got != "kept" {
			t.Errorf("%s has %q", url, got)
		}
	}
	if !exists(marker) {
		t.Error("replica-1 was copied again")
	}
	redis = redisClient(t, s)
	if got, err := redis.Do(t.Context(), redis.B().Get().Key("note").Build()).ToString(); err != nil || got != "kept" {
		t.Errorf("Redis has %q, %v", got, err)
	}
	if _, err := jetStream(t, s).Stream(t.Context(), "NOTES"); err != nil {
		t.Errorf("NATS: %v", err)
	}
}

// A replica that is no more holds back no WAL; one whose data is not of this
// primary, or whose slot is gone, is made anew.
func TestReplicasFollowTheConfiguration(t *testing.T) {
	t.Parallel()
	dir := openDir(t)
	s, _ := open(t, dir, 2)
	s.Close(t.Context())

	s, _ = open(t, dir, 1)
	if slots := query[[]string](t, SuperuserURL(loopback(s.ports.Primary())), "SELECT array_agg(slot_name::text) FROM pg_replication_slots"); !slices.Equal(slots, []string{"replica_1"}) {
		t.Errorf("slots are %v, want that of replica-1 alone", slots)
	}
	if exists(filepath.Join(dir, "postgres", "replica-2")) {
		t.Error("the data of replica-2 is still there")
	}
	s.Close(t.Context())

	// Another primary, with the old one's replica beside it.
	if err := os.RemoveAll(filepath.Join(dir, "postgres", "primary")); err != nil {
		t.Fatal(err)
	}
	s, _ = open(t, dir, 1)
	execute(t, s.DatabaseURL(), "CREATE TABLE note (text text)")
	waitFor(t, "the table on the new replica", func() bool {
		return query[bool](t, s.ReplicaURLs()[0], "SELECT to_regclass('note') IS NOT NULL")
	})
}

// The death of a process is reported with its name and cause; the rest goes on.
func TestDeathIsReported(t *testing.T) {
	t.Parallel()
	s, events := open(t, openDir(t), 0)
	i := slices.IndexFunc(s.Services(), func(s Service) bool { return s.Name == "redis" })
	if err := syscall.Kill(s.Services()[i].PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the report", func() bool { return len(events.ends("redis")) > 0 })
	got := events.ends("redis")[0]
	if got.Service.State != Exited || !strings.Contains(got.Err.Error(), "redis (pid ") || !strings.Contains(got.Err.Error(), "signal 9") {
		t.Errorf("got %+v", got)
	}
	if state := s.Services()[i].State; state != Exited {
		t.Errorf("redis is %s, want %s", state, Exited)
	}
	query[int](t, s.DatabaseURL(), "SELECT 1")
}

func TestOneStackPerDirectory(t *testing.T) {
	t.Parallel()
	dir := openDir(t)
	s, _ := open(t, dir, 0)
	cfg := Config{Dir: dir, PortBase: AnyPortBase, NATSCommand: []string{"nobody"}}
	if _, err := Open(t.Context(), cfg); !errors.Is(err, ErrRunning) {
		t.Errorf("got %v, want %v", err, ErrRunning)
	}
	if _, err := CleanUp(dir); !errors.Is(err, ErrRunning) {
		t.Errorf("CleanUp: got %v, want %v", err, ErrRunning)
	}
	if err := Wipe(dir); !errors.Is(err, ErrRunning) {
		t.Errorf("Wipe: got %v, want %v", err, ErrRunning)
	}
	if state, err := ReadState(dir); err != nil || len(state.Services) != 3 {
		t.Errorf("the state is %+v, %v", state, err)
	}
	s.Close(t.Context())
	if _, err := ReadState(dir); !errors.Is(err, ErrNotRunning) {
		t.Errorf("ReadState: got %v, want %v", err, ErrNotRunning)
	}
}

// A paused server, which takes no signal, ends within the bound.
func TestClosePausedServer(t *testing.T) {
	t.Parallel()
	s, _ := open(t, openDir(t), 0)
	for _, service := range s.Services() {
		if err := syscall.Kill(service.PID, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	s.Close(t.Context())
	if took := time.Since(began); took > stopGrace {
		t.Errorf("Close took %s", took)
	}
}

// A backend that is paused outlives its postmaster, but not the stack.
func TestKillEndsPausedBackend(t *testing.T) {
	t.Parallel()
	s, _ := open(t, openDir(t), 0)
	conn, err := pgx.Connect(t.Context(), s.DatabaseURL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	backend := int(conn.PgConn().PID())
	if err := syscall.Kill(backend, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	s.Kill()
	waitFor(t, "the backend's end", func() bool { return startID(backend) == "" })
}

// A replica that was promoted, and so has gone its own way, is made anew.
func TestPromotedReplicaIsMadeAnew(t *testing.T) {
	t.Parallel()
	dir := openDir(t)
	s, _ := open(t, dir, 1)
	replica := loopback(s.ports.Replica(1))
	if !query[bool](t, SuperuserURL(replica), "SELECT pg_promote()") {
		t.Fatal("the replica was not promoted")
	}
	execute(t, SuperuserURL(replica), "CREATE TABLE astray ()")
	s.Close(t.Context())

	s, _ = open(t, dir, 1)
	if !query[bool](t, SuperuserURL(loopback(s.ports.Replica(1))), "SELECT pg_is_in_recovery() AND to_regclass('astray') IS NULL") {
		t.Error("the replica is not one of this primary")
	}
}

// So is one that cannot start on what it has.
func TestDamagedReplicaIsMadeAnew(t *testing.T) {
	t.Parallel()
	dir := openDir(t)
	s, _ := open(t, dir, 1)
	s.Close(t.Context())
	if err := os.RemoveAll(filepath.Join(dir, "postgres", "replica-1", "pg_wal")); err != nil {
		t.Fatal(err)
	}
	s, _ = open(t, dir, 1)
	query[int](t, s.ReplicaURLs()[0], "SELECT 1")
}

func TestConfigReportsAllErrors(t *testing.T) {
	t.Parallel()
	_, err := Open(t.Context(), Config{Dir: t.TempDir(), Replicas: -1, PortBase: 70000})
	for _, want := range []string{"replicas: -1", "port base: 70000", "NATS command: is missing"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in: %v", want, err)
		}
	}
}

func execute(t *testing.T, url string, statements ...string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	for _, sql := range statements {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
}

func waitFor(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for limit := time.Now().Add(10 * time.Second); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}

func redisClient(t *testing.T, s *Stack) rueidis.Client {
	t.Helper()
	client, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{loopback(s.ports.Redis())}, DisableCache: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

func jetStream(t *testing.T, s *Stack) jetstream.JetStream {
	t.Helper()
	conn, err := nats.Connect("nats://" + loopback(s.ports.NATS()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

func TestMissingProgram(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	if _, err := FindPostgres(context.Background(), 99); !errors.Is(err, ErrMissingProgram) || !strings.Contains(err.Error(), "install") {
		t.Errorf("got %v, want %v with what to install", err, ErrMissingProgram)
	}
}
