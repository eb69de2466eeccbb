package db

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/loadlinehq/loadline/causal"
)

// node is one server: its pool, and what is known of it.
type node struct {
	name   string // host:port, for people
	host   string
	port   int
	index  int // in Router.nodes
	router *Router
	pool   *pgxpool.Pool
	gate   *gate
	limits Pool // as what it was configured; the gate goes by the role it has
	hidden bool // its address hides several servers; see Config.Endpoints

	state atomic.Pointer[state] // never nil
	// lag is how long ago the primary has been where this node is, in nanoseconds.
	lag  atomic.Int64
	kick chan struct{}
	// best is the furthest that any server behind a hidden one's address has been seen.
	best    atomic.Uint64
	triedAt atomic.Int64 // see mayTry
	// chosen counts why calls have come here.
	chosen [reasons]atomic.Int64

	// standbySince is the start time of the server when it was last seen as a standby,
	// standbyTimeline the one that it was on, and standbyBefore the one before that in the
	// same life. Guarded by Router.mu.
	// diverged is a timeline that it cannot follow, since it has replayed the one before past
	// the fork.
	diverged        uint32
	standbySince    time.Time
	standbyTimeline uint32
	standbyBefore   uint32

	// conn watches the server. It belongs to the goroutine that polls.
	conn     *pgx.Conn
	timeline uint32 // the newest that was seen over conn
	// received is the timeline that its receiver asks for, and receivedAt what it had
	// replayed when that was first seen over conn.
	received   uint32
	receivedAt causal.LSN
	silent     time.Time // since when it accepts and does not answer

	mu    sync.Mutex
	conns map[*netConn]struct{}
}

// state is what one poll has found. It does not change.
type state struct {
	// at is when the question was sent: the server has been where it says at some
	// moment after it.
	at       time.Time
	err      error // not nil: nothing is known
	hidden   bool  // it is the state of one of several servers, which one is not known
	primary  bool
	timeline uint32     // 0: not known
	received uint32     // that a standby's receiver asks for; 0: there is none
	lsn      causal.LSN // replayed; on a primary, flushed
	// replayed is, on a primary, where its recovery has ended.
	replayed causal.LSN
	started  time.Time // of the postmaster
}

var errNotAsked = errors.New("has not been asked yet")

// connInfo is what was true of a connection's server when it was made or, of one of
// several behind an address, when it was asked last.
type connInfo struct {
	// since is a moment at which the connection existed. Its server runs without
	// interruption from then until the connection breaks, so that a position polled
	// later, and no other, is the position of the server that this connection talks to.
	// The start time of the postmaster does not serve for that: a crash of one backend
	// sends all of the server back to its last restart point, and keeps that time.
	since time.Time
	state state
}

// life is that of the connection's server.
func (i *connInfo) life() life { return life{i.state.started, i.state.replayed} }

const infoKey = "loadline"

func infoOf(conn *pgx.Conn) *connInfo {
	info, _ := conn.PgConn().CustomData()[infoKey].(*connInfo)
	return info
}

func newNode(r *Router, dsn string, limits Pool, hidden bool) (*node, error) {
	c, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return nil, err
	}
	if n := len(c.ConnConfig.Fallbacks); n > 0 {
		for _, f := range c.ConnConfig.Fallbacks {
			if f.Host != c.ConnConfig.Host || f.Port != c.ConnConfig.Port {
				return nil, fmt.Errorf("db: %s:%d and %s:%d are two servers in one connection string: the router must know which it talks to, so name each by itself",
					c.ConnConfig.Host, c.ConnConfig.Port, f.Host, f.Port)
			}
		}
	}
	if r.config.Configure != nil {
		r.config.Configure(c)
	}
	n := &node{
		name: fmt.Sprintf("%s:%d", c.ConnConfig.Host, c.ConnConfig.Port), host: c.ConnConfig.Host, port: int(c.ConnConfig.Port), router: r, limits: limits, hidden: hidden,
		kick:  make(chan struct{}, 1),
		conns: make(map[*netConn]struct{}),
	}
	n.state.Store(&state{err: errNotAsked})
	n.gate = newGate(n.name, limits.MaxConns, limits.Queue)

	// Whatever role the server gets: the gate is what limits by role.
	c.MaxConns = int32(max(r.config.PrimaryPool.MaxConns, r.config.ReplicaPool.MaxConns))
	c.MinConns = min(c.MinConns, c.MaxConns)
	c.MaxConnIdleTime = limits.IdleTime
	c.HealthCheckPeriod = max(limits.IdleTime/2, time.Second)
	c.PingTimeout = limits.ConnectTimeout
	cc := c.ConnConfig
	cc.ConnectTimeout = limits.ConnectTimeout
	if cc.RuntimeParams["application_name"] == "" {
		cc.RuntimeParams["application_name"] = "loadline"
	}
	cc.RuntimeParams["statement_timeout"] = milliseconds(limits.QueryTimeout)
	// Reads are read-only on the primary as well, so that a write among them does not
	// wait for production to fail; each write begins its transaction READ WRITE. On a
	// replica that is promoted this holds, too.
	cc.RuntimeParams["default_transaction_read_only"] = "on"
	if hidden {
		// A snapshot that is kept may be older than the position that is asked for after it.
		cc.RuntimeParams["default_transaction_isolation"] = "read committed"
	}
	cc.BuildContextWatcherHandler = func(conn *pgconn.PgConn) ctxwatch.Handler {
		return &pgconn.DeadlineContextWatcherHandler{Conn: conn.Conn(), DeadlineDelay: grace}
	}
	dial := cc.DialFunc
	cc.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return n.track(conn), nil
	}
	after := c.AfterConnect
	c.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error {
		if err := n.identify(ctx, conn); err != nil {
			return err
		}
		if after != nil {
			return after(ctx, conn)
		}
		return nil
	}
	n.pool, err = pgxpool.NewWithConfig(context.Background(), c)
	return n, err
}

// identify asks a new connection who its server is, and where.
func (n *node) identify(ctx context.Context, conn *pgx.Conn) error {
	var system uint64
	var aurora bool
	// Numbers above 2^63 are negative in PostgreSQL's bigint.
	var signed int64
	ctx, cancel := context.WithTimeout(ctx, n.limits.ConnectTimeout)
	defer cancel()
	err := conn.QueryRow(ctx, `SELECT system_identifier, to_regproc('pg_catalog.aurora_version') IS NOT NULL FROM pg_control_system()`).Scan(&signed, &aurora)
	if err != nil && sqlState(err) != "" && !elsewhere(err, false) {
		return fmt.Errorf("db: %s: %w: it does not say which cluster it belongs to: %w", n.name, ErrUnsupported, err)
	} else if err != nil {
		return fmt.Errorf("db: %s: %w", n.name, err)
	}
	system = uint64(signed)
	if aurora {
		return fmt.Errorf("db: %s: %w: Amazon Aurora's readers do not replay WAL, so their position says nothing of what they show", n.name, ErrUnsupported)
	}
	if err := n.router.belongs(n, system); err != nil {
		return err
	}
	s, err := ask(ctx, conn)
	if err != nil {
		return fmt.Errorf("db: %s: %w", n.name, err)
	}
	conn.PgConn().CustomData()[infoKey] = &connInfo{since: time.Now(), state: s}
	return nil
}

// proven reports whether the connection's server, as a replica, is at or past a
// position on the timeline, going by what a poll has said of the node.
func (i *connInfo) proven(s *state, timeline uint32, target causal.LSN) bool {
	if s.hidden {
		// Nobody knows which server was polled. Its address may lead to the primary, too,
		// which stays on its timeline until it stops.
		return i.state.timeline == timeline && (i.state.primary || i.state.lsn >= target)
	}
	if s.err != nil || s.at.Before(i.since) {
		s = &i.state // of an earlier life of the server, perhaps
	}
	return !s.primary && s.timeline == timeline && s.lsn >= target
}

// acquire takes a place and a connection. Who gets one calls release.
func (n *node) acquire(ctx context.Context) (*pgxpool.Conn, error) {
	return n.acquireWithin(ctx, n.limits.QueueWait)
}

func (n *node) acquireWithin(ctx context.Context, wait time.Duration) (*pgxpool.Conn, error) {
	if err := n.gate.enter(ctx, wait); err != nil {
		return nil, err
	}
	conn, err := n.pool.Acquire(ctx)
	if err != nil {
		n.gate.leave()
		if ctx.Err() == nil {
			n.suspect()
		}
		return nil, err
	}
	return conn, nil
}

func (n *node) release(conn *pgxpool.Conn) {
	if conn.Conn().IsClosed() {
		n.suspect()
	}
	conn.Release()
	n.gate.leave()
}

// suspect has the server asked at once.
func (n *node) suspect() {
	select {
	case n.kick <- struct{}{}:
	default:
	}
}

// load is how busy the node is.
func (n *node) load() int { return int(n.gate.busy.Load()) }

func (n *node) close() {
	n.pool.Close()
}

// netConn is a connection that the node can cut when its server has gone silent.
type netConn struct {
	net.Conn
	node *node
}

func (n *node) track(conn net.Conn) net.Conn {
	c := &netConn{conn, n}
	n.mu.Lock()
	n.conns[c] = struct{}{}
	n.mu.Unlock()
	return c
}

func (c *netConn) Close() error {
	c.node.mu.Lock()
	delete(c.node.conns, c)
	c.node.mu.Unlock()
	return c.Conn.Close()
}

// cut ends all connections, so that reads which wait for a server that does not
// answer go elsewhere now and not at their deadline.
func (n *node) cut() {
	n.mu.Lock()
	conns := make([]*netConn, 0, len(n.conns))
	for c := range n.conns {
		conns = append(conns, c)
	}
	n.mu.Unlock()
	for _, c := range conns {
		_ = c.Conn.Close() // whoever uses it sees that, and closes c
	}
}

func milliseconds(d time.Duration) string { return strconv.FormatInt(max(1, d.Milliseconds()), 10) }
