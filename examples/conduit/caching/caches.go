package caching

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"

	"github.com/loadlinehq/loadline/cache"
	"github.com/loadlinehq/loadline/causal"
)

const (
	// DefaultPrefix begins the keys in Redis.
	DefaultPrefix = "conduit:cache:"
	// DefaultMaxBytes holds some ten thousand articles. Guess.
	DefaultMaxBytes = 128 << 20
	// MinMaxBytes leaves each kind of entry some room.
	MinMaxBytes = 1 << 20

	openMin, openMax = 100 * time.Millisecond, 5 * time.Second // between two tries
)

// Config says where Redis is, and how much is kept. Redis is required.
type Config struct {
	// Redis is where all instances have what they keep together.
	Redis rueidis.ClientOption
	// Prefix begins the keys there. Default DefaultPrefix.
	Prefix string
	// MaxBytes bounds what this process keeps. Default DefaultMaxBytes.
	MaxBytes int64
	// LagLimit is the database's: a replica that is further behind is not read from. Default that of package cache, 30 s.
	LagLimit time.Duration
	// Timeout bounds an exchange with Redis. Default that of package cache, 50 ms.
	Timeout       time.Duration
	Log           *slog.Logger         // default slog.Default()
	MeterProvider metric.MeterProvider // default: the global one
}

// Caches are the tiers of this process. They may be used before Run, and while Redis is away, when nothing is kept.
type Caches struct {
	c Config
	// keys are of caches that keep nothing: what a write ends has a name also while Redis has not been reached yet, and
	// other instances may have it.
	keys *tiers
	open atomic.Pointer[tiers] // nil until Redis has been reached
}

// New checks the configuration. It does not wait for Redis, which Run does.
func New(c Config) (*Caches, error) {
	if c.Prefix == "" {
		c.Prefix = DefaultPrefix
	}
	if c.MaxBytes == 0 {
		c.MaxBytes = DefaultMaxBytes
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	var small error
	if c.MaxBytes < MinMaxBytes {
		small = fmt.Errorf("Config.MaxBytes is %d, less than %d", c.MaxBytes, MinMaxBytes)
	}
	if err := errors.Join(c.store().Validate(), small); err != nil {
		return nil, fmt.Errorf("caching: %w", err)
	}
	nowhere, err := cache.OpenStore(context.Background(), cache.StoreConfig{Logger: c.Log, MeterProvider: noop.NewMeterProvider()})
	if err != nil {
		return nil, fmt.Errorf("caching: %w", err)
	}
	keys, err := newTiers(nowhere, c.MaxBytes)
	if err != nil {
		return nil, fmt.Errorf("caching: %w", err)
	}
	return &Caches{c: c, keys: keys}, nil
}

func (c Config) store() cache.StoreConfig {
	redis := c.Redis
	return cache.StoreConfig{
		Redis: &redis, Prefix: c.Prefix, LagLimit: c.LagLimit, Timeout: c.Timeout, Logger: c.Log, MeterProvider: c.MeterProvider,
	}
}

// Run reaches Redis, however long that takes, and then takes part in what the instances keep, until ctx is done.
func (c *Caches) Run(ctx context.Context) error {
	for pause := openMin; ; pause = min(2*pause, openMax) {
		store, err := cache.OpenStore(ctx, c.c.store())
		if err == nil {
			return c.run(ctx, store)
		}
		if ctx.Err() != nil {
			return nil
		}
		c.c.Log.WarnContext(ctx, "nothing is cached; Redis is tried again", slog.Duration("after", pause), slog.Any("error", err))
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause/2 + rand.N(pause)):
		}
	}
}

func (c *Caches) run(ctx context.Context, store *cache.Store) error {
	t, err := newTiers(store, c.c.MaxBytes)
	if err != nil {
		store.Close()
		return fmt.Errorf("caching: %w", err)
	}
	c.open.Store(t)
	return store.Run(ctx)
}

// Close waits for loads that go on without their readers. Run must have ended.
func (c *Caches) Close() {
	if t := c.open.Swap(nil); t != nil {
		t.store.Close()
	}
	c.keys.store.Close()
}

// Active reports whether this process keeps anything, and reads what others keep.
func (c *Caches) Active() bool {
	t := c.open.Load()
	return t != nil && t.store.Active()
}

// tiersFor returns the tiers for a reader, nil where they have nothing for him: then one statement for the whole costs the
// database less than one for each part.
func (c *Caches) tiersFor(ctx context.Context) *tiers {
	t := c.open.Load()
	if t == nil || !t.store.Active() && hasSeen(ctx) {
		return nil
	}
	return t
}

// hasSeen reports whether a reader must see something that he has seen before.
func hasSeen(ctx context.Context) bool {
	session := causal.FromContext(ctx)
	if session == nil {
		return false
	}
	_, _, incomplete := session.Mark(0)
	return incomplete || !session.Token().IsZero()
}

var errNotOpen = errors.New("caching: Redis has not been reached yet")

// Apply, Drained and Tick implement outbox.Invalidator. Until Redis has been reached, invalidations wait in the outbox.

// Apply implements outbox.Invalidator.
func (c *Caches) Apply(ctx context.Context, fence causal.Mark, records [][]byte) (causal.Mark, error) {
	t := c.open.Load()
	if t == nil {
		return causal.Mark{}, errNotOpen
	}
	return t.store.Apply(ctx, fence, records)
}

// Drained implements outbox.Invalidator.
func (c *Caches) Drained(ctx context.Context, upTo causal.Mark) error {
	t := c.open.Load()
	if t == nil {
		return errNotOpen
	}
	return t.store.Drained(ctx, upTo)
}

// Tick implements outbox.Invalidator.
func (c *Caches) Tick(ctx context.Context, now causal.Mark) (epoch uint64, err error) {
	t := c.open.Load()
	if t == nil {
		return 0, errNotOpen
	}
	return t.store.Tick(ctx, now)
}
