package deploy_test

import (
	"context"
	"flag"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/loadlinehq/loadline/internal/check"
	"github.com/loadlinehq/loadline/internal/stack"
	"github.com/loadlinehq/loadline/internal/stack/stacktest"
)

// natsOptions are what nats-server makes of a command line.
func natsOptions(t *testing.T, args []string) *server.Options {
	t.Helper()
	flags := flag.NewFlagSet("nats-server", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	options, err := server.ConfigureOptions(flags, args, func() {}, func() {}, func() {})
	if err != nil || options == nil {
		t.Fatalf("nats-server %v: %v", args, err)
	}
	return options
}

// well fails for each finding that asks for something, but those that the test knows of.
func well(t *testing.T, servers []check.Server, known ...string) {
	t.Helper()
	for _, s := range servers {
		for _, f := range s.Findings {
			if (f.Level == check.Failed || f.Level == check.Warning) && !slices.Contains(known, s.Name+" "+f.Check) {
				t.Errorf("%s: %s is %s: %s", s.Name, f.Check, f.Level, f.Found)
			}
		}
	}
}

// The two services alone, with the arguments of the file: loadline check is content with them.
func TestComposeNATSAndRedisRun(t *testing.T) {
	t.Parallel()
	c := readCompose(t)
	if c.Services["redis"].Command[0] != "redis-server" {
		t.Fatal(c.Services["redis"].Command)
	}
	redis := stacktest.StartRedis(t, c.Services["redis"].Command[1:]...)
	options := natsOptions(t, c.Services["nats"].Command[1:])
	options.Host, options.Port, options.HTTPPort, options.StoreDir, options.NoSigs, options.NoLog = "127.0.0.1", server.RANDOM_PORT, 0, t.TempDir(), true, true
	nats, err := server.NewServer(options)
	if err != nil {
		t.Fatal(err)
	}
	go nats.Start()
	t.Cleanup(func() { nats.Shutdown(); nats.WaitForShutdown() })
	if !nats.ReadyForConnections(30 * time.Second) {
		t.Fatal("NATS is not ready")
	}
	found := check.Run(t.Context(), check.Config{
		Redis: "redis://" + redis.Address, NATS: "nats://" + nats.Addr().String(), Timeout: 30 * time.Second,
		Streams: []check.Stream{{Name: "EVENTS", MaxBytes: 1 << 30}},
	})
	well(t, found, "nats streams") // which Conduit makes
	for _, f := range found[0].Findings {
		if f.Check == "eviction" || f.Check == "persistence" || f.Check == "repl-backlog-ttl" {
			if f.Level != check.OK {
				t.Errorf("redis: %+v", f)
			}
		}
	}
}

// container stands for the image of PostgreSQL: its programs, its user, its variables.
type container struct {
	t       *testing.T
	bin     string
	dir     string // of the data, the socket and the scripts
	account *syscall.SysProcAttr
	env     []string
}

func newContainer(t *testing.T) *container {
	t.Helper()
	if testing.Short() {
		t.Skip("starts servers; skipped by -short")
	}
	postgres, err := stack.FindPostgres(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	// Not t.TempDir, which another user cannot enter.
	dir, err := os.MkdirTemp("", "loadline-compose-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	c := &container{t: t, bin: postgres.BinDir, dir: dir, account: &syscall.SysProcAttr{}}
	if os.Getuid() == 0 { // as which PostgreSQL does not run
		account, err := user.Lookup("postgres")
		if err != nil {
			t.Fatal(err)
		}
		uid, _ := strconv.Atoi(account.Uid)
		gid, _ := strconv.Atoi(account.Gid)
		if err := os.Chown(dir, uid, gid); err != nil {
			t.Fatal(err)
		}
		c.account.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	c.env = []string{"PATH=" + c.bin + ":" + os.Getenv("PATH"), "LC_ALL=C", "HOME=" + dir}
	return c
}

// script copies one to where the user can read it.
func (c *container) script(name string) string {
	c.t.Helper()
	path := filepath.Join(c.dir, name)
	if err := os.WriteFile(path, []byte(read(c.t, "deploy/compose/"+name)), 0o755); err != nil {
		c.t.Fatal(err)
	}
	return path
}

func (c *container) command(env []string, words ...string) *exec.Cmd {
	// Not with the test's context: PostgreSQL is asked to end, below.
	cmd := exec.CommandContext(context.Background(), words[0], words[1:]...)
	if !filepath.IsAbs(words[0]) {
		cmd = exec.CommandContext(context.Background(), filepath.Join(c.bin, words[0]), words[1:]...)
	}
	attributes := *c.account
	cmd.Dir, cmd.Env, cmd.SysProcAttr = c.dir, slices.Concat(c.env, env), &attributes
	return cmd
}

func (c *container) run(env []string, words ...string) {
	c.t.Helper()
	if out, err := c.command(env, words...).CombinedOutput(); err != nil {
		c.t.Fatalf("%v: %v\n%s", words, err, out)
	}
}

// start starts a server, waits for it on a port, and returns what ends it.
func (c *container) start(port string, env []string, words ...string) (stop func()) {
	c.t.Helper()
	log, err := os.Create(filepath.Join(c.dir, "log-"+port))
	if err != nil {
		c.t.Fatal(err)
	}
	cmd := c.command(env, words...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	stop = func() {
		_ = cmd.Process.Signal(syscall.SIGINT) // a fast shutdown
		select {
		case <-ended:
		case <-time.After(30 * time.Second):
			_ = cmd.Process.Kill()
			<-ended
		}
		_ = log.Close()
	}
	c.t.Cleanup(stop)
	for limit := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		if c.command(nil, "pg_isready", "-q", "-h", "127.0.0.1", "-p", port).Run() == nil {
			return stop
		}
		if time.Now().After(limit) {
			text, _ := os.ReadFile(log.Name())
			c.t.Fatalf("%v is not ready:\n%s", words, text)
		}
	}
}

func freePort(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	return port
}

// The primary and the replica come up by the file's commands and scripts, with passwords, as the image runs them; what
// remains of a copy that was cut short does not hinder; and loadline check is content.
func TestComposePostgresRuns(t *testing.T) {
	t.Parallel()
	services := readCompose(t).Services
	primary, replica := services["primary"], services["replica"]
	c := newContainer(t)
	primaryPort, replicaPort := freePort(t), freePort(t)
	here := func(port string) []string {
		return []string{"-c", "unix_socket_directories=" + c.dir, "-c", "port=" + port}
	}
	data := filepath.Join(c.dir, "primary")

	// As the image does it: a new database, our script over the socket, and a start.
	c.run(nil, "initdb", "--pgdata", data, "--username", "postgres", "--auth-local", "trust", "--auth-host", "scram-sha-256", "--no-sync")
	command := append(slices.Concat(primary.Command, here(primaryPort)), "-D", data)
	stop := c.start(primaryPort, nil, command...)
	c.run([]string{"PGDATA=" + data, "PGHOST=" + c.dir, "PGPORT=" + primaryPort, "APP_PASSWORD=it's @pp", "REPLICATION_PASSWORD=repl 'icator"}, "/bin/sh", c.script("primary.sh"))
	if hba, err := os.ReadFile(filepath.Join(data, "pg_hba.conf")); err != nil || !strings.HasSuffix(string(hba), "\nhost replication replicator samenet scram-sha-256\n") {
		t.Errorf("pg_hba.conf: %v\n%s", err, hba)
	}
	stop()
	c.start(primaryPort, nil, command...)

	data = filepath.Join(c.dir, "replica")
	if err := os.MkdirAll(data+".unfinished/base", 0o755); err != nil {
		t.Fatal(err)
	}
	if c.account.Credential != nil {
		_ = os.Chown(data+".unfinished", int(c.account.Credential.Uid), int(c.account.Credential.Gid))
		_ = os.Chown(data+".unfinished/base", int(c.account.Credential.Uid), int(c.account.Credential.Gid))
	}
	environment := []string{"PGDATA=" + data, "PRIMARY_HOST=127.0.0.1", "PRIMARY_PORT=" + primaryPort, "REPLICATION_PASSWORD=repl 'icator"}
	line := slices.Concat(replica.Entrypoint[:1], []string{c.script("replica.sh")}, replica.Command, here(replicaPort))
	stop = c.start(replicaPort, environment, line...)

	url := func(port string) string {
		return "postgres://app:it%27s%20%40pp@127.0.0.1:" + port + "/app?sslmode=disable"
	}
	asked := check.Config{
		Primary: url(primaryPort), Replicas: []string{url(replicaPort)}, Timeout: 30 * time.Second,
		Instances: 1, PoolConns: 20, ReplicaConns: 40, LagLimit: 30 * time.Second,
	}
	streams := func() bool {
		for _, s := range check.Run(t.Context(), asked) {
			for _, f := range s.Findings {
				if f.Check == "lag" && f.Level == check.OK {
					return true
				}
			}
		}
		return false
	}
	await := func() {
		t.Helper()
		for limit := time.Now().Add(30 * time.Second); !streams(); time.Sleep(100 * time.Millisecond) {
			if time.Now().After(limit) {
				text, _ := os.ReadFile(filepath.Join(c.dir, "log-"+replicaPort))
				t.Fatalf("the replica does not stream:\n%s", text)
			}
		}
	}
	await()
	well(t, check.Run(t.Context(), asked))

	// A second start goes on with the data that is there.
	stop()
	c.start(replicaPort, environment, line...)
	await()
	if log, err := os.ReadFile(filepath.Join(c.dir, "log-"+replicaPort)); err != nil || strings.Contains(string(log), "no copy yet") {
		t.Errorf("%v\n%s", err, log)
	}
}
