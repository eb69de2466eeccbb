package check

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// minPostgres: older ones are no longer maintained.
const minPostgres = 140000

// postgres is one server, and what it has said of itself.
type postgres struct {
	url     string
	replica bool // it should be one
	server  Server
	said    *pgFacts // nil: nothing
	took    time.Duration
	tables  []tableFact
}

// pgFacts is a row of factsSQL.
type pgFacts struct {
	VersionNumber int
	Version       string
	Standby       bool
	ReadOnly      bool
	System        string // the cluster's identifier: of the primary, and of all that were made from it
	Position      int64  // bytes that were written, or replayed
	Received      int64
	Age           float64 // seconds since the last transaction that was replayed; -1: none was
	Receivers     int
	Senders       int

	User       string
	Superuser  bool
	MayStats   bool
	RoleLimit  int
	DBLimit    int
	MaxConns   int
	Reserved   int
	Used       int
	WALLevel   string
	MaxSenders int

	Fsync, FullPages   string
	SynchronousCommit  string
	SynchronousNames   string
	StatementTimeout   string
	IdleInTransaction  string
	HotStandbyFeedback string
}

// Any role may run it.
const factsSQL = `
SELECT current_setting('server_version_num')::int,
       current_setting('server_version'),
       r.standby,
       current_setting('default_transaction_read_only')::bool,
       (SELECT system_identifier::text FROM pg_control_system()),
       (CASE WHEN r.standby THEN coalesce(pg_last_wal_replay_lsn(), '0/0') ELSE pg_current_wal_lsn() END - '0/0')::bigint,
       (coalesce(pg_last_wal_receive_lsn(), '0/0') - '0/0')::bigint,
       coalesce(extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()), -1)::float8,
       (SELECT count(*) FROM pg_stat_wal_receiver)::int,
       (SELECT count(*) FROM pg_stat_replication)::int,
       current_user::text,
       u.rolsuper,
       pg_has_role('pg_read_all_stats', 'USAGE'),
       u.rolconnlimit,
       (SELECT datconnlimit FROM pg_database WHERE datname = current_database()),
       current_setting('max_connections')::int,
       current_setting('superuser_reserved_connections')::int + coalesce(nullif(current_setting('reserved_connections', true), '')::int, 0),
       (SELECT count(*) FROM pg_stat_activity WHERE datid IS NOT NULL)::int,
       current_setting('wal_level'),
       current_setting('max_wal_senders')::int,
       current_setting('fsync'),
       current_setting('full_page_writes'),
       current_setting('synchronous_commit'),
       current_setting('synchronous_standby_names'),
       current_setting('statement_timeout'),
       current_setting('idle_in_transaction_session_timeout'),
       current_setting('hot_standby_feedback')
FROM (SELECT pg_is_in_recovery() AS standby) r, pg_roles u
WHERE u.rolname = current_user`

// tableFact is what is there of a package's tables.
type tableFact struct {
	Tables
	has int64 // 0: none
	err error // that is no answer to this
}

// ask asks for the facts, and has more asked on the same connection.
func (p *postgres) ask(ctx context.Context, c Config, more func(context.Context, *pgx.Conn) error) {
	config, err := pgx.ParseConfig(p.url)
	if err != nil {
		// Its own words may hold a piece of the password.
		p.server.add("reachable", Failed, "the connection string is not understood", "it is like postgres://user:password@127.0.0.1:5432/app, with special signs in the password escaped")
		return
	}
	p.server.Address = addresses(config)
	query := "select pg_is_in_recovery(), version()"
	if p.replica {
		query = "select pg_is_in_recovery(), pg_last_wal_replay_lsn(), now() - pg_last_xact_replay_timestamp()"
	}
	p.server.ByHand = psql(c, p.url, query)
	if config.ConnectTimeout == 0 || config.ConnectTimeout > c.Timeout {
		// So that there is time for the next of several.
		config.ConnectTimeout = c.Timeout / time.Duration(1+strings.Count(p.server.Address, ","))
	}
	config.RuntimeParams["application_name"] = "loadline check"
	began := time.Now()
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
			<-ctx.Done() // by the other's clock
		}
		p.server.unreachable(ctx, c, err)
		return
	}
	p.took = time.Since(began)
	defer func() {
		// The connection may hang by now: who says good-bye to it waits for nothing.
		ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), 100*time.Millisecond)
		defer cancel()
		_ = conn.Close(ending)
	}()
	rows, err := conn.Query(ctx, factsSQL)
	if err == nil {
		var said pgFacts
		if said, err = pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[pgFacts]); err == nil {
			p.said = &said
		}
	}
	if err == nil && !p.replica && !p.said.Standby {
		err = p.askTables(ctx, conn, c.Tables)
	}
	if err == nil && more != nil {
		err = more(ctx, conn)
	}
	if err != nil {
		p.said = nil
		p.server.unreachable(ctx, c, err)
	}
}

// catchUp gives a replica that was asked before the primary a moment to come to where that was: what is written between the two
// answers is no lag.
func (p *postgres) catchUp(ctx context.Context, conn *pgx.Conn, primary *pgFacts) error {
	if primary == nil || primary.Standby || !p.said.Standby || primary.System != p.said.System {
		return nil
	}
	const moment, pause = 500 * time.Millisecond, 20 * time.Millisecond
	for limit := time.Now().Add(moment); p.said.Position < primary.Position && time.Now().Before(limit); {
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil
		}
		err := conn.QueryRow(ctx, `SELECT (coalesce(pg_last_wal_replay_lsn(), '0/0') - '0/0')::bigint,
			coalesce(extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()), -1)::float8`).Scan(&p.said.Position, &p.said.Age)
		if err != nil {
			return err
		}
	}
	return nil
}

// addresses are those of a connection string.
func addresses(c *pgx.ConnConfig) string {
	all := []string{net.JoinHostPort(c.Host, strconv.Itoa(int(c.Port)))}
	for _, f := range c.Fallbacks { // of which some are the same host without TLS
		if a := net.JoinHostPort(f.Host, strconv.Itoa(int(f.Port))); !slices.Contains(all, a) {
			all = append(all, a)
		}
	}
	return strings.Join(all, ",")
}

func (p *postgres) askTables(ctx context.Context, conn *pgx.Conn, wanted []Tables) error {
	for _, want := range wanted {
		fact := tableFact{Tables: want}
		table := pgx.Identifier{"loadline", "migrations_" + want.Name}.Sanitize()
		err := conn.QueryRow(ctx, "SELECT coalesce(max(version_id), 0) FROM "+table+" WHERE is_applied").Scan(&fact.has)
		if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
			if pg.Code != "42P01" && pg.Code != "3F000" {
				fact.err = errors.New(pg.Message)
			}
		} else if err != nil {
			return err
		}
		p.tables = append(p.tables, fact)
	}
	return nil
}

// judge turns what the server has said into findings.
func (p *postgres) judge(c Config, all []*postgres) {
	if p.said == nil {
		return
	}
	p.server.add("reachable", OK, fmt.Sprintf("PostgreSQL %s, connected in %v", p.said.Version, p.took.Round(time.Millisecond)), "")
	if p.said.VersionNumber < minPostgres {
		p.server.add("version", Failed, "PostgreSQL "+p.said.Version+" is too old", "14 is the oldest that Loadline knows")
	}
	if p.replica {
		p.judgeReplica(c, all[0])
		return
	}
	if !p.judgePrimaryRole() {
		return
	}
	p.judgeRights(len(c.Replicas) > 0)
	p.judgeDurability()
	p.judgeReplication(len(c.Replicas))
	p.judgeConnections(c.Instances, c.PoolConns, 2, "database.max") // the watcher, and the relay
	p.judgeTimeouts()
	p.judgeTables()
}

func (p *postgres) judgePrimaryRole() (is bool) {
	switch {
	case p.said.Standby:
		p.server.add("role", Failed, "a standby, where nothing can be written", "let DATABASE_URL lead to the primary; or name all servers in it, with target_session_attrs=read-write")
		return false
	case p.said.ReadOnly:
		p.server.add("role", Failed, "the primary, but transactions are read-only by default", "set default_transaction_read_only to off, for the server, the database and the role")
		return false
	}
	p.server.add("role", OK, "primary", "")
	return true
}

func (p *postgres) judgeRights(hasReplicas bool) {
	switch f := p.said; {
	case f.Superuser:
		p.server.add("rights", Warning, f.User+" is a superuser: whoever finds a hole in the application has the server", "give the application a role that owns its database and no more")
	case hasReplicas && !f.MayStats:
		p.server.add("rights", Warning, f.User+" may not read all statistics: after a failover a replica may be left alone for up to checkpoint_timeout", "as a superuser: GRANT pg_read_all_stats TO "+pgx.Identifier{f.User}.Sanitize())
	default:
		p.server.add("rights", OK, f.User+", not a superuser", "")
	}
}

func (p *postgres) judgeDurability() {
	f := p.said
	switch {
	case f.Fsync == "off":
		p.server.add("durability", Warning, "fsync is off: a crash of the machine may destroy the database", "set fsync to on, unless the data may be thrown away")
	case f.FullPages == "off":
		p.server.add("durability", Warning, "full_page_writes is off: a crash of the machine may tear pages", "set full_page_writes to on, unless the disk never tears them")
	case f.SynchronousCommit == "off":
		p.server.add("durability", Warning, "synchronous_commit is off: a crash loses what was acknowledged just before", "set synchronous_commit to on, or accept it for this role")
	case f.SynchronousNames == "":
		p.server.add("durability", Note, "synchronous_commit "+f.SynchronousCommit+", no synchronous standby: a failover may lose the last commits, and package db reports them", "")
	default:
		p.server.add("durability", OK, "synchronous_commit "+f.SynchronousCommit+", synchronous standbys "+f.SynchronousNames, "")
	}
}

func (p *postgres) judgeReplication(replicas int) {
	f := p.said
	found := fmt.Sprintf("wal_level %s, %d of %d senders in use", f.WALLevel, f.Senders, f.MaxSenders)
	switch {
	case f.WALLevel == "minimal" && replicas > 0:
		p.server.add("replication", Failed, found+": no replica can follow", "set wal_level to replica, and restart the server")
	case f.Senders < replicas:
		p.server.add("replication", Warning, fmt.Sprintf("%s, and %d replicas are configured", found, replicas), "look at the log of the replica that does not stream; see below which")
	case replicas == 0:
		p.server.add("replication", Note, found+"; no replica is configured", "")
	default:
		p.server.add("replication", OK, found, "")
	}
}

// judgeConnections compares what may be opened with what there is.
func (p *postgres) judgeConnections(instances, each, beside int, key string) {
	f := p.said
	room, by := f.MaxConns-f.Reserved, "max_connections"
	for name, limit := range map[string]int{"the role's connection limit": f.RoleLimit, "the database's connection limit": f.DBLimit} {
		if limit >= 0 && limit < room && !f.Superuser {
			room, by = limit, name
		}
	}
	found := fmt.Sprintf("%d in use of %d", f.Used, room)
	if instances <= 0 || each <= 0 {
		p.server.add("connections", Note, found, "")
		return
	}
	need := instances * (each + beside)
	found = fmt.Sprintf("%s; %d %s may open %d", found, instances, plural(instances, "instance"), need)
	if need > room {
		p.server.add("connections", Warning, found, fmt.Sprintf("raise %s, or lower %s (%d, and %d beside it)", by, key, each, beside))
		return
	}
	if f.Used+need > room {
		p.server.add("connections", Warning, found, fmt.Sprintf("if those in use are not this application's: raise %s, or lower %s (%d, and %d beside it)", by, key, each, beside))
		return
	}
	p.server.add("connections", OK, found, "")
}

func (p *postgres) judgeTimeouts() {
	name := func(v string) string {
		if v == "0" {
			return "none"
		}
		return v
	}
	// Whoever uses package db has them by connection.
	p.server.add("timeouts", Note, fmt.Sprintf("of the role: statement %s, idle in transaction %s", name(p.said.StatementTimeout), name(p.said.IdleInTransaction)), "")
}

func (p *postgres) judgeTables() {
	var there, missing []string
	for _, t := range p.tables {
		switch {
		case t.err != nil:
			p.server.add("tables", Warning, t.Name+": "+t.err.Error(), "let the role that the application uses run: loadline migrate")
		case t.has == 0:
			missing = append(missing, t.Name)
		case t.has < t.Version:
			missing = append(missing, t.Name+" (an older version)")
		default:
			there = append(there, t.Name)
		}
	}
	if len(missing) > 0 {
		p.server.add("tables", Warning, "not there: "+strings.Join(missing, ", "), "if the application uses these packages: loadline migrate")
	}
	if len(there) > 0 {
		p.server.add("tables", OK, "up to date: "+strings.Join(there, ", "), "")
	}
}

func (p *postgres) judgeReplica(c Config, primary *postgres) {
	f := p.said
	if !f.Standby {
		p.server.add("role", Failed, "no standby: it is a primary, and what is written there is lost to the others, or it is read as if it never lagged", "let DATABASE_REPLICA_URLS lead to streaming replicas alone")
		return
	}
	p.server.add("role", OK, "standby", "")
	known := !primary.replica && primary.said != nil && !primary.said.Standby
	if known && primary.said.System != f.System {
		p.server.add("origin", Failed, "it belongs to another primary: its system identifier is "+f.System+", and the primary's "+primary.said.System, "correct the address, or make it anew with pg_basebackup from the primary")
		return
	}
	behind := f.Received - f.Position
	if known {
		behind = primary.said.Position - f.Position
	}
	p.judgeLag(max(behind, 0), c.LagLimit)
	if f.HotStandbyFeedback == "off" {
		p.server.add("conflicts", Note, "hot_standby_feedback is off: long reads may be ended in favour of replay", "")
	}
	p.judgeConnections(c.Instances, c.ReplicaConns, 1, "database.replicaMax") // the watcher
}

func (p *postgres) judgeLag(bytes int64, limit time.Duration) {
	// The time of the last transaction tells of lag only while there is something to replay.
	lag := time.Duration(0)
	if bytes > 0 && p.said.Age > 0 {
		lag = time.Duration(p.said.Age * float64(time.Second))
	}
	found := fmt.Sprintf("%s behind", size(bytes))
	if lag > 0 {
		found = fmt.Sprintf("%s behind, its last transaction is %v old", size(bytes), lag.Round(time.Millisecond))
	}
	switch {
	case p.said.Receivers == 0:
		p.server.add("lag", Warning, found+"; it does not stream from any server", "look at its log, and at primary_conninfo and the slot")
	case limit > 0 && lag > limit:
		p.server.add("lag", Warning, fmt.Sprintf("%s: more than %v, so that it is not read from", found, limit), "look for a long query on it (hot standby conflicts), its disk, and the network")
	default:
		p.server.add("lag", OK, found, "")
	}
}
