package main

import (
	"errors"
	"net/url"
	"strings"

	"github.com/loadlinehq/loadline/internal/invalid"
)

// natsConfig says where NATS is, and how much it keeps.
type natsConfig struct {
	// URL is like nats://127.0.0.1:4222. Without it the effects of what happens are had in the
	// request.
	URL string `yaml:"url" env:"NATS_URL"`
	// MaxBytes bounds the events on its disk.
	MaxBytes int64 `yaml:"maxBytes" env:"CONDUIT_EVENTS_MAX_BYTES"`
}

// defaultEventBytes fits a laptop.
const defaultEventBytes = 1 << 30

// Validate reports all fields that cannot be.
func (c natsConfig) Validate() error {
	var bad error
	for part := range strings.SplitSeq(c.URL, ",") {
		u, err := url.Parse(strings.TrimSpace(part))
		if c.URL != "" && (err != nil || u.Scheme != "nats" && u.Scheme != "tls" || u.Host == "") {
			bad = invalid.If(true, "url", "is not understood: it is like nats://user:password@127.0.0.1:4222")
		}
	}
	return errors.Join(bad, invalid.If(c.MaxBytes < 1<<20, "maxBytes", "is %d: at least a megabyte is needed", c.MaxBytes))
}
