package caching

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/redis/rueidis"
	"go.opentelemetry.io/otel/metric"

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

// Caches are the tiers of this process, and what the outbox's relay must have for its Invalidator. While Redis is away
// nothing is kept.
type Caches struct {
	*cache.Store
	*tiers
	log *slog.Logger
}

// New returns the tiers, also while Redis is away. They keep nothing before Run.
func New(ctx context.Context, c Config) (*Caches, error) {
	if c.Prefix == "" {
		c.Prefix = DefaultPrefix
	}
	if c.MaxBytes == 0 {
		c.MaxBytes = DefaultMaxBytes
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if c.MaxBytes < MinMaxBytes {
		return nil, fmt.Errorf("caching: Config.MaxBytes is %d, less than %d", c.MaxBytes, MinMaxBytes)
	}
	store, err := cache.OpenStore(ctx, c.store())
	if err != nil {
		return nil, fmt.Errorf("caching: %w", err)
	}
	tiers, err := newTiers(store, c.MaxBytes)
	if err != nil {
		store.Close()
		return nil, fmt.Errorf("caching: %w", err)
	}
	return &Caches{store, tiers, c.Log}, nil
}

func (c Config) store() cache.StoreConfig {
	redis := c.Redis
	return cache.StoreConfig{
		Redis: &redis, Prefix: c.Prefix, LagLimit: c.LagLimit, Timeout: c.Timeout, Logger: c.Log, MeterProvider: c.MeterProvider,
	}
}

// tiersFor returns the tiers for a reader, nil where they have nothing for him: then one statement for the whole costs the
// database less than one for each part.
func (c *Caches) tiersFor(ctx context.Context) *tiers {
	if !c.Active() && hasSeen(ctx) {
		return nil
	}
	return c.tiers
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
