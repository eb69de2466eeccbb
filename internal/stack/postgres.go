package stack

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	superuser   = "postgres"
	AppRole     = "app" // owns the application's database, and has no other right
	appDatabase = "app"
)

// cluster is the set of PostgreSQL servers: one primary, and replicas that
// stream from it. Its methods may be called concurrently.
type cluster struct {
	bin     Postgres
	account *account
	home    string // holds a data directory for each server
	noSync  bool
	record  string // the file that names the primary
	servers []pgServer

	mu       sync.Mutex
	leader   string                       // the primary's name
	settings map[string]map[string]string // what faults have set, by server
}

// pgServer is one PostgreSQL server of the cluster.
type pgServer struct {
	name string
	port int // of its fault proxy
}

func (s pgServer) directPort() int { return s.port + behindProxy }

// direct is where the server itself listens.
func (s pgServer) direct() string { return loopback(s.directPort()) }

// appURL is the connection string of the application's role and database.
func appURL(addr string) string {
	return fmt.Sprintf("postgres://%s@%s/%s?sslmode=disable", AppRole, addr, appDatabase)
}

func (c *cluster) dataDir(name string) string { return filepath.Join(c.home, name) }

// openCluster finds programs that fit the data directory, if there is one.
func openCluster(ctx context.Context, cfg Config, ports Ports) (*cluster, error) {
	account, err := postgresAccount()
	if err != nil {
		return nil, err
	}
	home, err := account.home(ctx, postgresHomes(cfg.Dir))
	if err != nil {
		return nil, err
	}
	c := &cluster{
		account: account, home: home, noSync: cfg.DisableSync, record: clusterPath(cfg.Dir),
		servers:  []pgServer{{name: "primary", port: ports.Primary()}},
		settings: make(map[string]map[string]string),
	}
	for n := range cfg.Replicas {
		c.servers = append(c.servers, pgServer{name: replicaName(n + 1), port: ports.Replica(n + 1)})
	}
	if c.leader, err = readLeader(cfg.Dir); err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(c.servers, func(s pgServer) bool { return s.name == c.leader }) {
		return nil, fmt.Errorf("%s is the primary since it was promoted, but there are only %d replicas; ask for more, or start anew: loadline down --wipe", c.leader, cfg.Replicas)
	}
	want := 0
	if text, err := os.ReadFile(filepath.Join(c.dataDir(c.leader), "PG_VERSION")); err == nil {
		if want, err = strconv.Atoi(strings.TrimSpace(string(text))); err != nil {
			return nil, fmt.Errorf("%s is no PostgreSQL data directory that we know: %w", c.dataDir(c.leader), err)
		}
	}
	c.bin, err = FindPostgres(ctx, want)
	if err != nil && want > 0 {
		err = fmt.Errorf("%w; or start anew: loadline down --wipe", err)
	}
	return c, err
}

// clusterPath is where the name of the primary is written down once a promotion has
// changed it. Nothing in the data directories says which of two is the right one.
func clusterPath(dir string) string { return filepath.Join(dir, "cluster.json") }

type clusterRecord struct {
	Primary string `json:"primary"`
}

func readLeader(dir string) (string, error) {
	record := clusterRecord{Primary: "primary"}
	data, err := os.ReadFile(clusterPath(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return record.Primary, nil
	}
	if err != nil {
		return "", err
	}
	if err := json.Unmarshal(data, &record); err != nil {
		return "", fmt.Errorf("%s: %w", clusterPath(dir), err)
	}
	return record.Primary, nil
}

func (c *cluster) primary() pgServer {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.serverLocked(c.leader)
}

func (c *cluster) server(name string) pgServer {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.serverLocked(name)
}

func (c *cluster) serverLocked(name string) pgServer {
	return c.servers[slices.IndexFunc(c.servers, func(s pgServer) bool { return s.name == name })]
}

// replicas are all servers but the primary.
func (c *cluster) replicas() []pgServer {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(c.servers), func(s pgServer) bool { return s.name == c.leader })
}

func (c *cluster) role(name string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if name == c.leader {
		return "primary"
	}
	return "replica"
}

// setLeader writes down which server is the primary.
func (c *cluster) setLeader(name string) error {
	if err := WriteJSON(c.record, clusterRecord{Primary: name}); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.leader = name
	return nil
}

// set gives a server a setting that a fault needs, or takes it back when the value is
// empty. It takes effect when the server is told to reload, or starts.
func (c *cluster) set(server, name, value string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if value == "" {
		delete(c.settings[server], name)
		return
	}
	if c.settings[server] == nil {
		c.settings[server] = make(map[string]string)
	}
	c.settings[server][name] = value
}

// connect connects to a server itself as the superuser. Whoever does not answer soon
// on the loopback address is paused or hangs.
func (s pgServer) connect(ctx context.Context) (*pgx.Conn, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, connectPatience, fmt.Errorf("%s does not answer within %s", s.name, connectPatience))
	defer cancel()
	conn, err := pgx.Connect(ctx, SuperuserURL(s.direct()))
	if err != nil && ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return conn, err
}

// connectPatience is for a machine that is busy with other things as well.
const connectPatience = 10 * time.Second

// startPrimary makes the data directory when there is none and starts the server.
func (c *cluster) startPrimary(ctx context.Context, launch launcher, primary pgServer) error {
	dir := c.dataDir(primary.name)
	if !exists(filepath.Join(dir, "PG_VERSION")) {
		err := c.build(ctx, dir, func(unfinished string) error {
			return c.account.run(ctx, c.home, c.bin.program("initdb"), "--pgdata", unfinished, "--username", superuser,
				"--auth", "trust", "--encoding", "UTF8", "--no-locale", "--no-sync")
		})
		if err != nil {
			return fmt.Errorf("%s: %w", primary.name, err)
		}
	}
	_, err := c.start(ctx, launch, primary)
	return err
}

// prepare creates the application's role and database, and drops the slots and data of
// replicas that are no more, which would hold back WAL for nobody.
func (c *cluster) prepare(ctx context.Context, primary pgServer) error {
	conn, err := primary.connect(ctx)
	if err != nil {
		return err
	}
	defer closeSoon(conn)

	var hasRole, hasDatabase bool
	err = conn.QueryRow(ctx, `SELECT
		EXISTS (SELECT FROM pg_roles WHERE rolname = $1),
		EXISTS (SELECT FROM pg_database WHERE datname = $2)`, AppRole, appDatabase).Scan(&hasRole, &hasDatabase)
	if err != nil {
		return err
	}
	if !hasRole {
		if _, err := conn.Exec(ctx, "CREATE ROLE "+AppRole+" LOGIN"); err != nil {
			return err
		}
	}
	// As loadline check advises: package db sees then after a failover who follows whom.
	if _, err := conn.Exec(ctx, "GRANT pg_read_all_stats TO "+AppRole); err != nil {
		return err
	}
	if !hasDatabase {
		if _, err := conn.Exec(ctx, "CREATE DATABASE "+appDatabase+" OWNER "+AppRole); err != nil {
			return err
		}
	}
	for n := len(c.servers); n <= MaxReplicas; n++ {
		name := replicaName(n)
		_, err := conn.Exec(ctx, `SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots
			WHERE slot_name = $1 AND NOT active`, slotName(name))
		if err != nil {
			return err
		}
		if err := os.RemoveAll(c.dataDir(name)); err != nil {
			return err
		}
	}
	return nil
}

// build lets make fill a directory and gives it its name when it is complete, so
// that one which was cut short is never taken for a database.
func (c *cluster) build(ctx context.Context, dir string, fill func(unfinished string) error) error {
	unfinished := dir + ".unfinished"
	for _, old := range []string{unfinished, dir} {
		if err := os.RemoveAll(old); err != nil {
			return err
		}
	}
	if err := fill(unfinished); err != nil {
		return err
	}
	conf := filepath.Join(unfinished, "postgresql.conf")
	f, err := os.OpenFile(conf, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.WriteString("\ninclude_if_exists = 'loadline.conf'\n"); err != nil {
		return err
	}
	return os.Rename(unfinished, dir)
}

// start writes the server's settings, which depend on ports and so on the run,
// starts it and waits until it answers.
func (c *cluster) start(ctx context.Context, launch launcher, s pgServer) (*process, error) {
	dir := c.dataDir(s.name)
	if err := endServersIn(ctx, dir); err != nil {
		return nil, err
	}
	if err := removeStaleLock(filepath.Join(dir, "postmaster.pid")); err != nil {
		return nil, err
	}
	if err := c.writeSettings(s); err != nil {
		return nil, err
	}
	p, err := launch(processSpec{
		argv: []string{c.bin.program("postgres"), "-D", dir}, dir: dir,
		env: []string{"LC_ALL=C"}, user: c.account,
		stopSignal: syscall.SIGINT, // fast shutdown: ends sessions, writes a checkpoint
		isPostgres: true,
	})
	if err != nil {
		return nil, err
	}
	return p, await(ctx, p, 60*time.Second, func(ctx context.Context) error {
		conn, err := s.connect(ctx)
		if err != nil {
			return err
		}
		return conn.Close(ctx)
	})
}

// writeSettings writes a server's settings as its role and its faults have them now.
// They are made anew at every start, so what a fault has set ends with the run.
func (c *cluster) writeSettings(s pgServer) error {
	settings := []string{
		"listen_addresses = '127.0.0.1'",
		"unix_socket_directories = ''", // TCP alone: a socket's path is limited to 107 bytes
		fmt.Sprintf("port = %d", s.directPort()),
		"wal_level = logical",
		"max_wal_senders = 20",
		"max_replication_slots = 20",
		"hot_standby_feedback = on",
		"wal_receiver_status_interval = 1s",
		"wal_retrieve_retry_interval = 1s", // a replica that started before its primary tries again soon
		"max_standby_streaming_delay = 5s",
		"max_slot_wal_keep_size = 1GB", // a replica that stays away must not fill the disk
		"timezone = 'UTC'",
		"log_timezone = 'UTC'",
	}
	if c.noSync {
		settings = append(settings, "fsync = off")
	}
	c.mu.Lock()
	if primary := c.serverLocked(c.leader); primary != s {
		settings = append(settings,
			fmt.Sprintf("primary_conninfo = 'host=127.0.0.1 port=%d user=%s application_name=%s'", primary.directPort(), superuser, s.name),
			fmt.Sprintf("primary_slot_name = '%s'", slotName(s.name)))
	}
	for _, name := range slices.Sorted(maps.Keys(c.settings[s.name])) {
		settings = append(settings, fmt.Sprintf("%s = %s", name, c.settings[s.name][name]))
	}
	c.mu.Unlock()
	text := "# Written at every start, and by faults; ALTER SYSTEM goes before it.\n" + strings.Join(settings, "\n") + "\n"
	return c.account.writeFile(filepath.Join(c.dataDir(s.name), "loadline.conf"), text)
}

// systemIdentifier reads what initdb drew to tell clusters apart: the first eight
// bytes of pg_control, in the machine's byte order (src/include/catalog/pg_control.h).
func systemIdentifier(dir string) (uint64, error) {
	f, err := os.Open(filepath.Join(dir, "global", "pg_control"))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	var id uint64
	err = binary.Read(f, binary.NativeEndian, &id)
	return id, err
}

func (a *account) touch(path string) error { return a.writeFile(path, "") }

func (a *account) writeFile(path, text string) error {
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return err
	}
	if a == nil {
		return nil
	}
	return os.Chown(path, int(a.uid), int(a.gid))
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// SuperuserURL is the connection string of PostgreSQL's own role and database on
// one of the stack's servers.
func SuperuserURL(addr string) string {
	return fmt.Sprintf("postgres://%s@%s/postgres?sslmode=disable", superuser, addr)
}
