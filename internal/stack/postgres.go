package stack

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
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
// stream from it.
type cluster struct {
	bin     Postgres
	account *account
	home    string // holds a data directory for each server
	noSync  bool
}

// pgServer is one PostgreSQL server of the cluster.
type pgServer struct {
	name string
	port int
}

func (c *cluster) dataDir(name string) string { return filepath.Join(c.home, name) }

// openCluster finds programs that fit the data directory, if there is one.
func openCluster(ctx context.Context, dir string, noSync bool) (*cluster, error) {
	account, err := postgresAccount()
	if err != nil {
		return nil, err
	}
	home, err := account.home(ctx, postgresHomes(dir))
	if err != nil {
		return nil, err
	}
	c := &cluster{account: account, home: home, noSync: noSync}
	want := 0
	if text, err := os.ReadFile(filepath.Join(c.dataDir("primary"), "PG_VERSION")); err == nil {
		if want, err = strconv.Atoi(strings.TrimSpace(string(text))); err != nil {
			return nil, fmt.Errorf("%s is no PostgreSQL data directory that we know: %w", c.dataDir("primary"), err)
		}
	}
	c.bin, err = FindPostgres(ctx, want)
	if err != nil && want > 0 {
		err = fmt.Errorf("%w; or start anew: loadline down --wipe", err)
	}
	return c, err
}

// startPrimary makes the data directory when there is none and starts the server.
func (c *cluster) startPrimary(ctx context.Context, launch launcher, primary pgServer, replicas int) error {
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
	if _, err := c.start(ctx, launch, primary, nil); err != nil {
		return err
	}
	if err := c.prepare(ctx, primary, replicas); err != nil {
		return fmt.Errorf("%s: %w", primary.name, err)
	}
	return nil
}

// prepare creates the application's role and database, and drops the slots of
// replicas that are no more, which would hold back WAL for nobody.
func (c *cluster) prepare(ctx context.Context, primary pgServer, replicas int) error {
	conn, err := pgx.Connect(ctx, SuperuserURL(primary.addr()))
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))

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
	if !hasDatabase {
		if _, err := conn.Exec(ctx, "CREATE DATABASE "+appDatabase+" OWNER "+AppRole); err != nil {
			return err
		}
	}
	for n := replicas + 1; n <= MaxReplicas; n++ {
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

// startReplica starts a streaming replica on the data that it has, when that
// still fits the primary, and on a fresh base backup otherwise.
func (c *cluster) startReplica(ctx context.Context, launch launcher, replica, primary pgServer) error {
	usable, err := c.usable(ctx, replica, primary)
	if err != nil {
		return fmt.Errorf("%s: %w", replica.name, err)
	}
	if usable {
		err := c.followPrimary(ctx, launch, replica, primary)
		if err == nil || ctx.Err() != nil {
			return err
		}
		// All that it has is the primary's: a copy that is of no use is made anew.
	}
	if err := c.cloneReplica(ctx, replica, primary); err != nil {
		return fmt.Errorf("%s: %w", replica.name, err)
	}
	if err := c.account.touch(filepath.Join(c.dataDir(replica.name), standbySignal)); err != nil {
		return err
	}
	return c.followPrimary(ctx, launch, replica, primary)
}

// standbySignal makes a server start as a standby; a promotion removes it.
const standbySignal = "standby.signal"

func (c *cluster) followPrimary(ctx context.Context, launch launcher, replica, primary pgServer) error {
	p, err := c.start(ctx, launch, replica, []string{
		fmt.Sprintf("primary_conninfo = 'host=127.0.0.1 port=%d user=%s application_name=%s'", primary.port, superuser, replica.name),
		fmt.Sprintf("primary_slot_name = '%s'", slotName(replica.name)),
	})
	if err == nil {
		err = c.waitStreaming(ctx, replica, primary, p)
	}
	if err != nil && p != nil {
		p.kill()
	}
	return err
}

// usable reports whether the replica's data is a copy of this primary, has not been
// promoted, and the slot still holds the WAL that it needs.
func (c *cluster) usable(ctx context.Context, replica, primary pgServer) (bool, error) {
	dir := c.dataDir(replica.name)
	if !exists(filepath.Join(dir, "PG_VERSION")) || !exists(filepath.Join(dir, standbySignal)) {
		return false, nil
	}
	mine, err := systemIdentifier(dir)
	if err != nil {
		return false, err
	}
	theirs, err := systemIdentifier(c.dataDir(primary.name))
	if err != nil || mine != theirs {
		return false, err
	}
	conn, err := pgx.Connect(ctx, SuperuserURL(primary.addr()))
	if err != nil {
		return false, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var kept bool
	err = conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_replication_slots
		WHERE slot_name = $1 AND coalesce(wal_status, '') NOT IN ('lost', 'unreserved'))`, slotName(replica.name)).Scan(&kept)
	return kept, err
}

func (c *cluster) cloneReplica(ctx context.Context, replica, primary pgServer) error {
	conn, err := pgx.Connect(ctx, SuperuserURL(primary.addr()))
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	// A new slot, that holds WAL from now on: the replica's first start may come
	// long after its backup.
	_, err = conn.Exec(ctx, `SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1`, slotName(replica.name))
	if err != nil {
		return err
	}
	if _, err := conn.Exec(ctx, `SELECT pg_create_physical_replication_slot($1, true)`, slotName(replica.name)); err != nil {
		return err
	}
	return c.build(ctx, c.dataDir(replica.name), func(unfinished string) error {
		// Without a fast checkpoint the backup waits minutes for the next one.
		return c.account.run(ctx, c.home, c.bin.program("pg_basebackup"), "--pgdata", unfinished,
			"--host", "127.0.0.1", "--port", strconv.Itoa(primary.port), "--username", superuser,
			"--slot", slotName(replica.name), "--wal-method", "stream", "--checkpoint", "fast", "--no-sync")
	})
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
func (c *cluster) start(ctx context.Context, launch launcher, s pgServer, extra []string) (*process, error) {
	dir := c.dataDir(s.name)
	settings := append([]string{
		"listen_addresses = '127.0.0.1'",
		"unix_socket_directories = ''", // TCP alone: a socket's path is limited to 107 bytes
		fmt.Sprintf("port = %d", s.port),
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
	}, extra...)
	if c.noSync {
		settings = append(settings, "fsync = off")
	}
	conf := filepath.Join(dir, "loadline.conf")
	text := "# Written at every start; ALTER SYSTEM goes before it.\n" + strings.Join(settings, "\n") + "\n"
	if err := c.account.writeFile(conf, text); err != nil {
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
		conn, err := pgx.Connect(ctx, SuperuserURL(s.addr()))
		if err != nil {
			return err
		}
		return conn.Close(ctx)
	})
}

func (c *cluster) waitStreaming(ctx context.Context, replica, primary pgServer, p *process) error {
	conn, err := pgx.Connect(ctx, SuperuserURL(primary.addr()))
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	return await(ctx, p, 30*time.Second, func(ctx context.Context) error {
		var streaming bool
		err := conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_stat_replication
			WHERE application_name = $1 AND state = 'streaming')`, replica.name).Scan(&streaming)
		if err == nil && !streaming {
			err = errors.New("does not stream from the primary")
		}
		return err
	})
}

func (s pgServer) addr() string { return loopback(s.port) }

func (s pgServer) appURL() string {
	return fmt.Sprintf("postgres://%s@%s/%s?sslmode=disable", AppRole, s.addr(), appDatabase)
}

func replicaName(n int) string { return fmt.Sprintf("replica-%d", n) }

// slotName: a slot's name may not hold a hyphen.
func slotName(name string) string { return strings.ReplaceAll(name, "-", "_") }

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
