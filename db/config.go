package db

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/loadlinehq/loadline/causal"
)

// Defaults of [Config] and [Pool].
const (
	DefaultPrimaryConns = 20 // DESIGN: what one of 20 instances may take of 400
	DefaultReplicaConns = 50
	DefaultIdleTime     = 30 * time.Second
	DefaultConnect      = 2 * time.Second
	DefaultQuery        = 5 * time.Second
	// DefaultQueueWait is a guess: less than what a client waits for a page.
	DefaultQueueWait = time.Second
	// DefaultQueuePerConn is a guess: four short queries per connection pass within
	// the wait.
	DefaultQueuePerConn = 4
	DefaultPollInterval = 250 * time.Millisecond
	// DefaultWait let 99.8 % of reads after a write find a replica without lag, and 90 %
	// with 50 ms of lag.
	DefaultWait = 20 * time.Millisecond
	// DefaultLagLimit is a guess: half of what GitLab's load balancer allows.
	DefaultLagLimit = 30 * time.Second
	// DefaultFallbackShare is a guess: half of the primary stays for writes.
	DefaultFallbackShare = 0.5
	// MaxReplicas bounds what each read looks at.
	MaxReplicas = 32

	// grace is what the server has to end a statement by its own timeout, or a client's
	// cancelled query to finish, before its connection is given up. Without it each
	// timeout costs a new connection; with it 3.8 times as many useful queries passed
	// under the same timeouts.
	grace = time.Second
)

// Config says where the servers are. Only Primary is required.
type Config struct {
	// Primary is the connection string of the primary, as pgx takes it. Which server is
	// the primary is asked, not believed: after a failover it may be one of the Replicas.
	// It must name one server; see Endpoints.
	Primary string
	// Replicas are those of streaming replicas, at most MaxReplicas with the Endpoints.
	Replicas []string
	// Endpoints are those of addresses that hide several replicas, such as a reader
	// endpoint or a Kubernetes service. How far the server behind a connection has come is
	// asked over that connection, in the round trip of the query that needs to know; a
	// server that is behind costs a round trip in vain. Name replicas singly where you
	// can. Not for poolers that give a connection now this server, now that.
	Endpoints []string

	// PrimaryPool bounds the connections to the primary, ReplicaPool those to each
	// replica. Each server has one connection more, to watch it.
	PrimaryPool Pool
	ReplicaPool Pool

	// PollInterval is how often each server is asked for its position while no reader
	// waits for one. Default 250 ms. Too small costs a query each; too large lets a
	// failure be noticed late.
	PollInterval time.Duration
	// Wait bounds how long a read waits for a replica to reach what the session has
	// seen, before it takes the primary. Default 20 ms; negative does not wait.
	Wait time.Duration
	// LagLimit keeps reads off a replica that is further behind. Default 30 s; negative
	// has no limit.
	LagLimit time.Duration
	// FallbackShare is the share of the primary's connections that may be held at once
	// by reads that should have gone to a replica; others queue. Default 0.5. Too large
	// and a fleet of lagging replicas takes the primary down; too small and reads fail
	// while it has room.
	FallbackShare float64

	// Configure may change each pool's configuration before it is opened: types, TLS,
	// credentials, tracers; which statements these see is in docs/db.md. The limits above
	// are set after it.
	Configure func(*pgxpool.Config)
	// LostWrite is told of each acknowledged write that a failover has lost, as soon as
	// that is known: of this process's own, and of those that sessions come with. What
	// has found it waits for it.
	LostWrite func(LostWrite)
	// MeterProvider gets the metrics. Default: the global one.
	MeterProvider metric.MeterProvider
	// TracerProvider gets spans of calls whose context has one that records. Default: the
	// global one.
	TracerProvider trace.TracerProvider
	// Logger gets what an operator should know. Default slog.Default().
	Logger *slog.Logger
}

// Pool bounds the connections to one server.
type Pool struct {
	// MaxConns is the most connections that are in use at once. Default 20 for a
	// primary, 50 for a replica.
	MaxConns int
	// IdleTime is how long a connection stays open unused. Default 30 s.
	IdleTime time.Duration
	// ConnectTimeout bounds making a connection. Default 2 s.
	ConnectTimeout time.Duration
	// QueryTimeout is the server's statement_timeout, and bounds calls whose context
	// has no earlier deadline. Default 5 s.
	QueryTimeout time.Duration
	// Queue is how many callers may wait for a connection, first come, first served.
	// Default 4 per connection; negative lets none wait.
	Queue int
	// QueueWait is how long each may wait. Default 1 s.
	QueueWait time.Duration
}

func (p Pool) withDefaults(conns int) Pool {
	def(&p.MaxConns, conns)
	def(&p.IdleTime, DefaultIdleTime)
	def(&p.ConnectTimeout, DefaultConnect)
	def(&p.QueryTimeout, DefaultQuery)
	def(&p.Queue, DefaultQueuePerConn*p.MaxConns)
	def(&p.QueueWait, DefaultQueueWait)
	return p
}

func (c Config) withDefaults() Config {
	c.PrimaryPool = c.PrimaryPool.withDefaults(DefaultPrimaryConns)
	c.ReplicaPool = c.ReplicaPool.withDefaults(DefaultReplicaConns)
	def(&c.PollInterval, DefaultPollInterval)
	def(&c.Wait, DefaultWait)
	def(&c.LagLimit, DefaultLagLimit)
	def(&c.FallbackShare, DefaultFallbackShare)
	if c.MeterProvider == nil {
		c.MeterProvider = otel.GetMeterProvider()
	}
	if c.TracerProvider == nil {
		c.TracerProvider = otel.GetTracerProvider()
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}

func def[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Validate reports all fields that cannot be.
func (c Config) Validate() error {
	var errs []error
	wrong := func(is bool, format string, args ...any) {
		if is {
			errs = append(errs, fmt.Errorf("db: Config."+format, args...))
		}
	}
	d := c.withDefaults()
	if c.Primary == "" {
		wrong(true, "Primary is empty: it is the connection string of the primary, such as postgres://user@host/database")
	} else if _, err := pgxpool.ParseConfig(c.Primary); err != nil {
		wrong(true, "Primary: %w", err)
	}
	if n := len(c.Replicas) + len(c.Endpoints); n > MaxReplicas {
		wrong(true, "Replicas and Endpoints: %d are more than %d", n, MaxReplicas)
	}
	for name, addresses := range map[string][]string{"Replicas": c.Replicas, "Endpoints": c.Endpoints} {
		for i, address := range addresses {
			if _, err := pgxpool.ParseConfig(address); err != nil || address == "" {
				wrong(true, "%s[%d]: %w", name, i, errors.Join(err, emptyIs(address)))
			}
		}
	}
	for _, p := range []struct {
		name string
		Pool
	}{{"PrimaryPool", d.PrimaryPool}, {"ReplicaPool", d.ReplicaPool}} {
		wrong(p.MaxConns < 1 || p.MaxConns > 10_000, "%s.MaxConns is %d, not between 1 and 10000", p.name, p.MaxConns)
		wrong(p.IdleTime < 0, "%s.IdleTime is %v, less than nothing", p.name, p.IdleTime)
		wrong(p.ConnectTimeout < 0, "%s.ConnectTimeout is %v, less than nothing", p.name, p.ConnectTimeout)
		wrong(p.QueryTimeout < time.Millisecond, "%s.QueryTimeout is %v, less than the server's millisecond", p.name, p.QueryTimeout)
		wrong(p.QueueWait < 0, "%s.QueueWait is %v, less than nothing", p.name, p.QueueWait)
	}
	wrong(d.PollInterval < time.Millisecond || d.PollInterval > time.Minute, "PollInterval is %v, not between 1 ms and 1 min", d.PollInterval)
	wrong(d.LagLimit > 0 && d.LagLimit < d.PollInterval, "LagLimit is %v, less than PollInterval (%v): no replica could show that it keeps it", d.LagLimit, d.PollInterval)
	wrong(d.FallbackShare <= 0 || d.FallbackShare > 1, "FallbackShare is %v, not above 0 and at most 1", d.FallbackShare)
	return errors.Join(errs...)
}

func emptyIs(dsn string) error {
	if dsn == "" {
		return errors.New("is empty")
	}
	return nil
}

// LostWrite is an acknowledged write that is not in the timeline that a failover has
// begun, as far as its mark says: that lies at or some hundred bytes past the commit's
// record, so that of writes right at the fork one may be reported that has survived. None
// is left out.
type LostWrite struct {
	Mark causal.Mark // where the write was acknowledged
	// Fork is where the new timeline has left the old one. Zero when the server that was
	// promoted has been restarted since and cannot say: then the write may be lost.
	Fork causal.LSN
	// Timeline is the new one.
	Timeline uint32
}
