package main

import (
	"github.com/redis/rueidis"

	"github.com/loadlinehq/loadline/internal/invalid"
)

// redisConfig says where Redis is.
type redisConfig struct {
	// URL is like redis://user:password@127.0.0.1:6379/0. It may be left out where there
	// are no replicas.
	URL string `yaml:"url" env:"REDIS_URL"`
}

// Validate reports an address that cannot be.
func (c redisConfig) Validate() error {
	if c.URL == "" {
		return nil
	}
	_, err := rueidis.ParseURL(c.URL)
	// Not in the client's words, which may quote the password.
	return invalid.If(err != nil, "url", "is not understood: it is like redis://user:password@127.0.0.1:6379/0")
}
