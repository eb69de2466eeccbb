package ratelimit

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/redis/rueidis"
	"go.opentelemetry.io/otel/metric"

	"github.com/loadlinehq/loadline/edge"
)

const (
	// DefaultTimeout is much more than Redis takes, and little for who waits. Guess.
	DefaultTimeout = 25 * time.Millisecond
	// DefaultMaxKeys take some 10 MB.
	DefaultMaxKeys = 100_000
	// DefaultPrefix begins the keys in Redis.
	DefaultPrefix = "limit:"
)

// Config has a usable zero value: each process counts for itself.
type Config struct {
	// Redis counts for all instances: one server, or a primary behind Sentinel. Without it each counts for itself, as
	// while Redis is away.
	Redis rueidis.Client
	// Prefix begins the keys in Redis. Default "limit:".
	Prefix string
	// Timeout bounds how long a request waits for Redis. Default 25 ms.
	Timeout time.Duration
	// Instances is how many instances there are: each allows its share while it counts for itself. Default 1, with which
	// the fleet allows as many times the limit as it has instances.
	Instances func() int
	// MaxKeys bounds what an instance remembers. Default 100,000. Beyond it, who was counted least has his burst back.
	MaxKeys int
	// Errors answers who is refused, with 429.
	Errors edge.Errors

	Logger        *slog.Logger         // default slog.Default()
	MeterProvider metric.MeterProvider // default: the global one
}

func (c Config) withDefaults() Config {
	if c.Prefix == "" {
		c.Prefix = DefaultPrefix
	}
	if c.Timeout == 0 {
		c.Timeout = DefaultTimeout
	}
	if c.MaxKeys == 0 {
		c.MaxKeys = DefaultMaxKeys
	}
	if c.Instances == nil {
		c.Instances = func() int { return 1 }
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}

func (c *Config) validate(policies []Policy) error {
	var errs []error
	if c.Timeout < time.Millisecond || c.Timeout > time.Minute {
		errs = append(errs, fmt.Errorf("ratelimit: Config.Timeout is %v, and should be 1 ms to 1 min", c.Timeout))
	}
	if c.MaxKeys < shards {
		errs = append(errs, fmt.Errorf("ratelimit: Config.MaxKeys is %d, less than %d", c.MaxKeys, shards))
	}
	if strings.ContainsAny(c.Prefix, "{} \r\n") {
		errs = append(errs, fmt.Errorf("ratelimit: Config.Prefix is %q: braces and spaces are for others", c.Prefix))
	}
	if len(policies) == 0 || len(policies) > maxPolicies {
		errs = append(errs, fmt.Errorf("ratelimit: there are %d policies, and should be 1 to %d", len(policies), maxPolicies))
	}
	names := make(map[string]bool)
	for i := range policies {
		errs = append(errs, policies[i].validate())
		if names[policies[i].Name] {
			errs = append(errs, fmt.Errorf("ratelimit: two policies are named %q", policies[i].Name))
		}
		names[policies[i].Name] = true
	}
	return errors.Join(errs...)
}
