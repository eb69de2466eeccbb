// Package redisrecent remembers in Redis what an inbox has handled, so that repeats of the
// last minutes are answered without a transaction. It is worth its round trip where repeats
// are many, after a rewind or while a broker delivers twice; otherwise it costs each event one.
//
//	recent, err := redisrecent.New(client, redisrecent.Config{})
//	in, err := inbox.New(inbox.Config{DB: router, Recent: recent})
//	go in.Follow(ctx, consumer) // without it, no note is believed
//
// No guarantee depends on it: what it does not know the database does, and what it knows from
// before a failover does not count.
package redisrecent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/rueidis"
)

const (
	// DefaultPrefix begins all keys.
	DefaultPrefix = "inbox:"
	// DefaultTTL is longer than the retries of an event take, and a redelivery.
	DefaultTTL = 10 * time.Minute
)

// Config has a usable zero value.
type Config struct {
	// Prefix begins all keys. Default [DefaultPrefix]. Databases that share a Redis need one each.
	Prefix string
	// TTL is how long an event is remembered. Default [DefaultTTL]. Each takes about 120 bytes.
	TTL time.Duration
}

// Recent is an inbox.Recent.
type Recent struct {
	client rueidis.Client
	c      Config
}

// New returns a Recent that uses the client, and does not close it.
func New(client rueidis.Client, c Config) (*Recent, error) {
	if c.Prefix == "" {
		c.Prefix = DefaultPrefix
	}
	if c.TTL == 0 {
		c.TTL = DefaultTTL
	}
	if c.TTL < time.Millisecond {
		return nil, fmt.Errorf("redisrecent: Config.TTL is %v, less than Redis's millisecond", c.TTL)
	}
	return &Recent{client, c}, nil
}

// Get returns what was put under each of the keys, and "" where there is nothing.
func (r *Recent) Get(ctx context.Context, keys []string) ([]string, error) {
	commands := make(rueidis.Commands, len(keys))
	for i, key := range keys {
		commands[i] = r.client.B().Get().Key(r.c.Prefix + key).Build()
	}
	values := make([]string, len(keys))
	for i, answer := range r.client.DoMulti(ctx, commands...) {
		value, err := answer.ToString()
		if err != nil && !rueidis.IsRedisNil(err) {
			return nil, fmt.Errorf("redisrecent: %w", err)
		}
		values[i] = value
	}
	return values, nil
}

// Put keeps a value under each of the keys for the TTL.
func (r *Recent) Put(ctx context.Context, keys []string, value string) error {
	commands := make(rueidis.Commands, len(keys))
	for i, key := range keys {
		commands[i] = r.client.B().Set().Key(r.c.Prefix + key).Value(value).Px(r.c.TTL).Build()
	}
	var errs []error
	for _, answer := range r.client.DoMulti(ctx, commands...) {
		errs = append(errs, answer.Error())
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("redisrecent: %w", err)
	}
	return nil
}
