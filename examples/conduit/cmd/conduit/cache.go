package main

import (
	"github.com/loadlinehq/loadline/examples/conduit/caching"
	"github.com/loadlinehq/loadline/internal/invalid"
)

// cacheConfig says how much is cached, where there are Redis and NATS.
type cacheConfig struct {
	// MaxBytes bounds what one instance keeps in its memory. Redis has a bound of its own.
	MaxBytes int64 `yaml:"maxBytes" env:"CONDUIT_CACHE_MAX_BYTES"`
}

// Validate reports a bound that cannot be.
func (c cacheConfig) Validate() error {
	return invalid.If(c.MaxBytes < caching.MinMaxBytes, "maxBytes", "is %d: at least %d are needed", c.MaxBytes, caching.MinMaxBytes)
}
