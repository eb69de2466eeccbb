package cache

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/redis/rueidis"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"
)

// Defaults of [StoreConfig].
const (
	DefaultPrefix = "cache:"
	// DefaultTimeout is fifty times what Redis needs in the same data centre. Guess.
	DefaultTimeout = 50 * time.Millisecond
	// DefaultMaxLoads is about what one instance's pool of a database has. Guess.
	DefaultMaxLoads = 32
	// DefaultMaxWaiting is a guess: what has to wait behind a thousand others comes too late anyway.
	DefaultMaxWaiting = 1000
	// DefaultLagLimit is that of db.Config: replicas that lag more are not read.
	DefaultLagLimit = 30 * time.Second
	// DefaultLease bounds a load: who has not stored after it has lost the turn.
	DefaultLease = 5 * time.Second

	tombMargin = 10 * time.Second
)

// StoreConfig has a usable zero value: a cache in this process alone.
type StoreConfig struct {
	// Redis is the server that all processes share: 7.0 or later, a primary, alone or behind
	// Sentinel. Without it each process has a cache of its own, which learns of others' invalidations by
	// the end of a value's time alone. Connections, retries and client-side caching are the store's own.
	Redis *rueidis.ClientOption
	// Prefix begins all keys in Redis. Default "cache:".
	Prefix string
	// Timeout bounds one exchange with Redis. Default 50 ms. Small, and a slow Redis is taken for
	// one that is away; large, and readers wait for one that is.
	Timeout time.Duration

	// WithoutRelay is for applications without package outbox: processes open epochs themselves, and
	// a writer that dies between its commit and [Store.Invalidate] leaves what it has changed until
	// the value's time is over. Loads must read the primary: nobody says which database's positions are meant, so
	// there is no fence, and what a replica that is behind gives would be kept.
	WithoutRelay bool

	// MaxLoads bounds the loads that this process runs at once, of all caches. Default 32. They are what
	// the database gets when Redis is away.
	MaxLoads int
	// MaxWaiting bounds the readers that wait for a load, or for their turn to load. Those beyond get
	// [ErrOverloaded]. Default 1000.
	MaxWaiting int

	// LagLimit is the lag beyond which no replica is read: db.Config's. Default 30 s. A fence lasts longer
	// than that, and a load.
	LagLimit time.Duration
	// Lease is how long a load may take to be stored. Default 5 s.
	Lease time.Duration

	// Now is the clock by which values end in a store without Redis. Default time.Now; another is for tests, see
	// package cachetest.
	Now func() time.Time

	Logger        *slog.Logger         // default slog.Default()
	MeterProvider metric.MeterProvider // default: the global one
	// TracerProvider is of spans of what Redis or a load is asked for. Default: the global one.
	TracerProvider trace.TracerProvider
}

func (c StoreConfig) withDefaults() StoreConfig {
	def(&c.Prefix, DefaultPrefix)
	def(&c.Timeout, DefaultTimeout)
	def(&c.MaxLoads, DefaultMaxLoads)
	def(&c.MaxWaiting, DefaultMaxWaiting)
	def(&c.LagLimit, DefaultLagLimit)
	def(&c.Lease, DefaultLease)
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.MeterProvider == nil {
		c.MeterProvider = otel.GetMeterProvider()
	}
	if c.TracerProvider == nil {
		c.TracerProvider = otel.GetTracerProvider()
	}
	return c
}

func def[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// tomb is how long a fence lasts without a value: until no replica that is read can be behind
// it, nor a load that began before.
func (c *StoreConfig) tomb() time.Duration { return c.LagLimit + c.Lease + tombMargin }

// Validate reports all fields that cannot be.
func (c StoreConfig) Validate() error {
	d := c.withDefaults()
	var errs []error
	wrong := func(is bool, format string, args ...any) {
		if is {
			errs = append(errs, fmt.Errorf("cache: StoreConfig."+format, args...))
		}
	}
	wrong(c.Redis != nil && len(c.Redis.InitAddress) == 0, "Redis.InitAddress is empty")
	wrong(c.Redis != nil && c.Now != nil, "Now is set, and with Redis there is its clock, and time that passes without word from it")
	wrong(strings.ContainsAny(d.Prefix, "{} \r\n"), "Prefix is %q: braces and spaces are for others", d.Prefix)
	wrong(d.Timeout < time.Millisecond || d.Timeout > 10*time.Second, "Timeout is %v, and should be 1 ms to 10 s", d.Timeout)
	wrong(d.MaxLoads < 1, "MaxLoads is %d, less than 1", d.MaxLoads)
	wrong(d.MaxWaiting < 1, "MaxWaiting is %d, less than 1", d.MaxWaiting)
	wrong(d.LagLimit < 0, "LagLimit is %v, less than nothing", d.LagLimit)
	wrong(d.Lease < 10*time.Millisecond, "Lease is %v, less than 10 ms", d.Lease)
	return errors.Join(errs...)
}
