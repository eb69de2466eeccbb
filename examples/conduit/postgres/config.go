package postgres

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/loadlinehq/loadline/db"
	"github.com/loadlinehq/loadline/internal/invalid"
)

// Bounds of the pool and of what runs in it.
const (
	// DefaultMaxConns is a guess that leaves room for several instances within
	// PostgreSQL's default of 100 connections.
	DefaultMaxConns = 20
	// DefaultReplicaMaxConns lets two instances share a replica of PostgreSQL's
	// default of 100 connections.
	DefaultReplicaMaxConns = 40
	// DefaultIdleTimeout keeps connections over the pauses of a busy service.
	DefaultIdleTimeout = 30 * time.Second
	// DefaultConnectTimeout is long for a network of one site: what takes longer is
	// down.
	DefaultConnectTimeout = 2 * time.Second
	// DefaultQueryTimeout is below the deadline of a request, so that the server
	// gives up first and the connection survives.
	DefaultQueryTimeout = 5 * time.Second

	// Less than a query's: who waits for a row holds a connection, and the pool must
	// not go to those who wait for one row.
	maxLockTimeout = 2 * time.Second
	// Who waits for a connection may wait for a part of what a request may take.
	queueWait = 3 * time.Second
	// A transaction that idles for longer has lost its client.
	idleInTxTimeout = 10 * time.Second
)

// Config configures a Primary or a Replicated. A value of zero is the default; URL has none.
type Config struct {
	// URL says where the server is, as libpq has it: a URL or keyword=value.
	URL string `yaml:"url" env:"DATABASE_URL"`
	// Replicas say where streaming replicas of it are, if there are any. A Primary
	// leaves them alone. After a failover one of them is the primary.
	Replicas []string `yaml:"replicas" env:"DATABASE_REPLICA_URLS"`
	// MaxConns bounds the pool. Default DefaultMaxConns. Too small, and
	// requests wait for a connection; too large, and all instances together
	// exceed the server's max_connections.
	MaxConns int32 `yaml:"max" env:"CONDUIT_POOL_MAX"`
	// ReplicaMaxConns bounds the pool to each replica. Default
	// DefaultReplicaMaxConns.
	ReplicaMaxConns int32 `yaml:"replicaMax" env:"CONDUIT_REPLICA_POOL_MAX"`
	// LagLimit keeps reads off a replica that is further behind. Default that of
	// package db, 30 s. Too short, and a busy moment sends all readers to the
	// primary; too long, and readers who have written nothing see the past for long.
	LagLimit time.Duration `yaml:"lagLimit" env:"CONDUIT_LAG_LIMIT"`
	// IdleTimeout is how long a connection that nobody uses is kept. Default
	// DefaultIdleTimeout. Too short, and each burst begins with connecting; too
	// long, and the server keeps processes for a burst that is over.
	IdleTimeout time.Duration `yaml:"idleTimeout"`
	// ConnectTimeout bounds connecting, to each address of the server. Default
	// DefaultConnectTimeout. Too short, and a busy server is taken for a dead one;
	// too long, and requests wait for a dead one.
	ConnectTimeout time.Duration `yaml:"connectTimeout"`
	// QueryTimeout bounds each statement, on the server. Default
	// DefaultQueryTimeout. Too short, and honest work is thrown away; longer than
	// the caller waits, and each timeout costs a connection. Waiting for a lock
	// is bounded by half of it, and by 2 s.
	QueryTimeout time.Duration `yaml:"queryTimeout"`
}

// WithDefaults returns c with defaults in place of zeros.
func (c Config) WithDefaults() Config {
	c.MaxConns = cmp.Or(c.MaxConns, DefaultMaxConns)
	c.ReplicaMaxConns = cmp.Or(c.ReplicaMaxConns, DefaultReplicaMaxConns)
	c.LagLimit = cmp.Or(c.LagLimit, db.DefaultLagLimit)
	c.IdleTimeout = cmp.Or(c.IdleTimeout, DefaultIdleTimeout)
	c.ConnectTimeout = cmp.Or(c.ConnectTimeout, DefaultConnectTimeout)
	c.QueryTimeout = cmp.Or(c.QueryTimeout, DefaultQueryTimeout)
	return c
}

// The least that PostgreSQL and pgx can count with.
const (
	minQueryTimeout = 2 * time.Millisecond // half of it is the lock's
	minIdleTimeout  = 2 * time.Millisecond // half of it is a ticker's
	minLagLimit     = time.Second          // replicas are asked four times in it
)

// Validate reports all fields, of a Config with its defaults, that cannot be.
func (c Config) Validate() error {
	_, err := pgconn.ParseConfig(c.URL)
	// Not in the words of pgx, which may quote a piece of the password.
	const notUnderstood = "is like postgres://user:password@127.0.0.1:5432/conduit, and special signs in the password are escaped (%%40 for @, %%2F for /, %%3A for :)"
	var replicas error
	for i, replica := range c.Replicas {
		if _, err := pgconn.ParseConfig(replica); err != nil || replica == "" {
			replicas = errors.Join(replicas, invalid.If(true, "replicas", "number %d is not understood: it "+notUnderstood, i+1))
		}
	}
	return errors.Join(
		invalid.If(c.URL == "", "url", "is not set: it says where PostgreSQL is, such as postgres://user:password@127.0.0.1:5432/conduit"),
		invalid.If(c.URL != "" && err != nil, "url", "is not understood: it "+notUnderstood),
		replicas,
		invalid.If(len(c.Replicas) > db.MaxReplicas, "replicas", "are %d, more than %d", len(c.Replicas), db.MaxReplicas),
		invalid.If(c.ReplicaMaxConns < 1, "replicaMax", "is %d: at least one connection is needed", c.ReplicaMaxConns),
		invalid.If(c.LagLimit < minLagLimit, "lagLimit", "is %s: at least %s is needed", c.LagLimit, minLagLimit),
		invalid.If(c.MaxConns < 1, "max", "is %d: at least one connection is needed", c.MaxConns),
		invalid.If(c.IdleTimeout < minIdleTimeout, "idleTimeout", "is %s: at least %s is needed", c.IdleTimeout, minIdleTimeout),
		invalid.If(c.ConnectTimeout <= 0, "connectTimeout", "is %s: without a bound, requests wait for a dead server", c.ConnectTimeout),
		invalid.If(c.QueryTimeout < minQueryTimeout, "queryTimeout", "is %s: at least %s is needed", c.QueryTimeout, minQueryTimeout),
	)
}

// setSession sets what holds for each connection.
func (c Config) setSession(params map[string]string) {
	params["application_name"] = "conduit"
	// The planner takes a LIMIT it does not know for a tenth of the table, and
	// would compile a plan for longer than a page takes.
	params["jit"] = "off"
	params["statement_timeout"] = milliseconds(c.QueryTimeout)
	params["lock_timeout"] = milliseconds(c.lockTimeout())
	params["idle_in_transaction_session_timeout"] = milliseconds(idleInTxTimeout)
}

func milliseconds(d time.Duration) string { return fmt.Sprint(d.Milliseconds()) }

// AnyPrimary is a connection string that leads to whichever of the servers is the primary.
// All must have the same user and database.
func (c Config) AnyPrimary() string {
	u, err := url.Parse(c.URL)
	if err != nil || u.Host == "" || len(c.Replicas) == 0 {
		return c.URL // of libpq's other form, or alone
	}
	hosts := []string{u.Host}
	for _, replica := range c.Replicas {
		if r, err := url.Parse(replica); err == nil && r.Host != "" {
			hosts = append(hosts, r.Host)
		}
	}
	u.Host = strings.Join(hosts, ",")
	query := u.Query()
	query.Set("target_session_attrs", "read-write")
	u.RawQuery = query.Encode()
	return u.String()
}

func (c Config) lockTimeout() time.Duration { return min(maxLockTimeout, c.QueryTimeout/2) }
