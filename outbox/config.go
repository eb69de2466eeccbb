package outbox

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/loadlinehq/loadline/events"
)

// Poison says what becomes of a key when an event of it has died.
type Poison string

const (
	// Skip goes on with the key's next event.
	Skip Poison = "skip"
	// Block holds the key's events until somebody calls [Revive] or [Discard].
	Block Poison = "block"
)

// Defaults of [RelayConfig].
const (
	// DefaultBatch is where draining a backlog was near its fastest.
	DefaultBatch         = 500
	DefaultMaxBatchBytes = 8 << 20
	DefaultPoll          = time.Second
	// DefaultPublishTimeout is that of [events.DefaultPublishTimeout].
	DefaultPublishTimeout = events.DefaultPublishTimeout
	// DefaultStatementTimeout bounds a transaction of the relay's.
	DefaultStatementTimeout = 10 * time.Second
	// DefaultLeaseTTL is longer than a statement may take and a renewal be late.
	DefaultLeaseTTL    = 15 * time.Second
	DefaultMaxAttempts = 5
	// DefaultRetryDelay gives 1, 4, 16, 64 s: somebody can make the stream that is missing.
	DefaultRetryDelay = time.Second
	DefaultRetention  = 72 * time.Hour
	// DefaultApplyTimeout is a guess: a cache that takes longer is away.
	DefaultApplyTimeout = time.Second

	retryFactor        = 4
	probeMin, probeMax = 100 * time.Millisecond, 5 * time.Second
	probeBatch         = 10   // rows that are tried while the broker is away
	invalidationBatch  = 1000 // records
	scanShare          = 20   // full scans take at most a twentieth of the time
	roundCheck         = 10 * time.Millisecond
	leaseCheck         = 5 * time.Second // a backend that is told to end, ends within
	maxHeld            = 100_000         // rows of outbox_held that are kept in memory
	defaultSource      = "/"
)

// Hints go between processes, and may be lost.
type Hints interface {
	// Send sends one. It does not block.
	Send()
	// Receive calls f after each, or many, until ctx is done; it returns nil then.
	Receive(ctx context.Context, f func()) error
}

// RelayConfig says what a relay reads and where it publishes. One of Pool and DSN is required, and one of
// Driver and Invalidator.
type RelayConfig struct {
	// Pool or DSN lead to the primary. The relay takes one connection for itself, for as long
	// as it runs. It must be the server's own, not one of a pooler that changes servers'
	// connections between transactions. After a failover it connects again: let the DSN
	// name all servers, with target_session_attrs=read-write.
	Pool *pgxpool.Pool
	DSN  string
	// Driver is the broker. Without one, which an Invalidator makes sense of, events wait as they do
	// while the broker is away.
	Driver events.Driver
	// Source says who writes the events: a URI reference such as /conduit. Default "/".
	Source string
	// Hints wake the relay that has the lease when [Relay.Wake] is called on one that stands by,
	// in another process; a natsjs.Driver has some. Without them it looks after Poll.
	Hints Hints
	// Invalidator is the cache, if there is one. Only the relay of shard 0 may have it.
	Invalidator Invalidator

	// Shard is which share of the events this relay publishes; see Config.Shards.
	Shard int
	// Batch is how many rows are published at once. Default 500. Small, and a backlog drains
	// slowly; large, and more is published twice after a crash.
	Batch int
	// MaxBatchBytes bounds a batch's payloads, in memory and on the wire; a batch has at least
	// one. Default 8 MiB.
	MaxBatchBytes int
	// Poll is how often the relay looks without having been woken. Default 1 s. It is also
	// how often a relay that stands by looks, and the tick of Invalidator.Drained.
	Poll time.Duration
	// PublishTimeout bounds one call of the driver. Default 5 s. No transaction is open meanwhile.
	PublishTimeout time.Duration
	// StatementTimeout bounds a transaction of the relay's. Default 10 s.
	StatementTimeout time.Duration
	// LeaseTTL is after how long without a renewal a relay that stands by ends this one's
	// backend and takes over; a backend that is gone is succeeded at once. Default 15 s, and at
	// least StatementTimeout and Poll together, or relays with a slow database take turns.
	LeaseTTL time.Duration
	// MaxAttempts is how often a message that the broker rejects is tried. Default 5.
	MaxAttempts int
	// RetryDelay is before the second attempt; each of the others waits four times as long as the one
	// before. Default 1 s.
	RetryDelay time.Duration
	// OnPoison says what becomes of the key of an event that has died. Default Skip.
	OnPoison Poison
	// Retention is how long the archive of sent events lasts, in whole days at least. Default
	// 72 h; negative: no archive.
	Retention time.Duration
	// ApplyTimeout bounds a call of the Invalidator. Default 1 s.
	ApplyTimeout time.Duration

	// Name says in the lease who holds it. Default the host's name and the process.
	Name           string
	Logger         *slog.Logger         // default slog.Default()
	MeterProvider  metric.MeterProvider // default: the global one
	TracerProvider trace.TracerProvider // default: the global one
}

func (c RelayConfig) withDefaults() RelayConfig {
	c.Source = cmp.Or(c.Source, defaultSource)
	c.Batch = cmp.Or(c.Batch, DefaultBatch)
	c.MaxBatchBytes = cmp.Or(c.MaxBatchBytes, DefaultMaxBatchBytes)
	c.Poll = cmp.Or(c.Poll, DefaultPoll)
	c.PublishTimeout = cmp.Or(c.PublishTimeout, DefaultPublishTimeout)
	c.StatementTimeout = cmp.Or(c.StatementTimeout, DefaultStatementTimeout)
	c.LeaseTTL = cmp.Or(c.LeaseTTL, DefaultLeaseTTL)
	c.MaxAttempts = cmp.Or(c.MaxAttempts, DefaultMaxAttempts)
	c.RetryDelay = cmp.Or(c.RetryDelay, DefaultRetryDelay)
	c.OnPoison = cmp.Or(c.OnPoison, Skip)
	c.Retention = cmp.Or(c.Retention, DefaultRetention)
	c.ApplyTimeout = cmp.Or(c.ApplyTimeout, DefaultApplyTimeout)
	if c.Name == "" {
		host, _ := os.Hostname()
		c.Name = fmt.Sprintf("%s:%d", host, os.Getpid())
	}
	if c.Driver == nil {
		c.Driver = noDriver{}
	}
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

// Validate reports all fields that cannot be.
func (c RelayConfig) Validate() error {
	d := c.withDefaults()
	var errs []error
	wrong := func(is bool, format string, args ...any) {
		if is {
			errs = append(errs, fmt.Errorf("outbox: RelayConfig."+format, args...))
		}
	}
	wrong((c.Pool == nil) == (c.DSN == ""), "Pool and DSN: one of them is needed, and not both")
	wrong(c.Driver == nil && c.Invalidator == nil, "Driver: there is none, and no Invalidator")
	wrong(c.Shard < 0 || c.Shard >= MaxShards, "Shard is %d, and should be 0 to %d", c.Shard, MaxShards-1)
	wrong(c.Invalidator != nil && d.Poll > time.Second, "Poll is %v, and with an Invalidator at most 1 s: caches go by it", d.Poll)
	wrong(c.Shard != 0 && c.Invalidator != nil, "Invalidator: it belongs to shard 0")
	wrong(d.Batch < 1 || d.Batch > 10_000, "Batch is %d, and should be 1 to 10000", c.Batch)
	wrong(d.MaxBatchBytes < 1 || d.MaxBatchBytes > math.MaxInt32, "MaxBatchBytes is %d", c.MaxBatchBytes)
	wrong(d.MaxAttempts < 1, "MaxAttempts is %d", c.MaxAttempts)
	wrong(d.Poll < time.Millisecond, "Poll is %v, less than a millisecond", c.Poll)
	wrong(d.PublishTimeout < time.Millisecond || d.ApplyTimeout < time.Millisecond, "PublishTimeout (%v) and ApplyTimeout (%v) must be at least a millisecond", c.PublishTimeout, c.ApplyTimeout)
	wrong(d.StatementTimeout < time.Millisecond, "StatementTimeout is %v, less than a millisecond", c.StatementTimeout)
	wrong(d.RetryDelay < 0, "RetryDelay is %v", c.RetryDelay)
	wrong(d.LeaseTTL < d.StatementTimeout+d.Poll, "LeaseTTL (%v) is less than StatementTimeout (%v) and Poll (%v) together: a relay with a slow database would lose it", d.LeaseTTL, d.StatementTimeout, d.Poll)
	wrong(d.OnPoison != Skip && d.OnPoison != Block, "OnPoison is %q, and should be %q or %q", c.OnPoison, Skip, Block)
	return errors.Join(errs...)
}

// noDriver is that of a relay for a cache alone.
type noDriver struct{}

var errNoDriver = fmt.Errorf("%w: RelayConfig.Driver is not set", events.ErrUnavailable)

func (noDriver) Publish(_ context.Context, messages []events.Raw) []error {
	return slices.Repeat([]error{errNoDriver}, len(messages))
}

func (noDriver) Subscribe(context.Context, events.Subscription, func(events.Delivery)) error {
	return errNoDriver
}

func (noDriver) Capabilities() events.Capabilities { return events.Capabilities{Name: "none"} }
