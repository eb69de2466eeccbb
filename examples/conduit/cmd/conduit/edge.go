package main

import (
	"errors"

	"github.com/loadlinehq/loadline/edge"
	"github.com/loadlinehq/loadline/examples/conduit/postgres"
	"github.com/loadlinehq/loadline/internal/invalid"
)

// edgeConfig says what may be asked of the server.
type edgeConfig struct {
	// TrustedProxies are networks of load balancers, whose X-Forwarded-For is believed.
	TrustedProxies []string `yaml:"trustedProxies" env:"CONDUIT_TRUSTED_PROXIES"`
	// Instances share a limit while Redis is away.
	Instances int `yaml:"instances" env:"CONDUIT_INSTANCES"`
	// RateLimit is how many requests a user may make in a minute: see httpapi.LimitsConfig. 0 is no limit.
	RateLimit int `yaml:"rateLimit" env:"CONDUIT_RATE_LIMIT"`
	// LoopbackRateLimit is the same for clients on this machine; 0: they are as others.
	LoopbackRateLimit int `yaml:"loopbackRateLimit" env:"CONDUIT_LOOPBACK_RATE_LIMIT"`
	// MaxInFlight is how many requests are served at a time; 0 is twice the connections, -1 no limit.
	MaxInFlight int `yaml:"maxInFlight" env:"CONDUIT_MAX_IN_FLIGHT"`
}

func defaultEdgeConfig() edgeConfig {
	return edgeConfig{Instances: 1, RateLimit: 120, LoopbackRateLimit: 6000}
}

// Validate reports all fields that cannot be.
func (c edgeConfig) Validate() error {
	var errs []error
	for i, network := range c.TrustedProxies {
		_, err := edge.ClientAddress(edge.ClientAddressConfig{Trusted: []string{network}})
		errs = append(errs, invalid.If(err != nil, "trustedProxies", "number %d, %q, is no network, like 10.0.0.0/8 and without more bits than its length says, and no address", i+1, network))
	}
	return errors.Join(append(errs,
		invalid.If(c.Instances < 1, "instances", "is %d: there is one at least", c.Instances),
		invalid.If(c.RateLimit < 0 || c.RateLimit > 1_000_000, "rateLimit", "is %d, not between 0 and 1000000", c.RateLimit),
		invalid.If(c.LoopbackRateLimit < 0 || c.LoopbackRateLimit > 10_000_000, "loopbackRateLimit", "is %d, not between 0 and 10000000", c.LoopbackRateLimit),
		invalid.If(c.MaxInFlight < -1, "maxInFlight", "is %d: it is a number of requests, 0, or -1", c.MaxInFlight),
	)...)
}

// maxInFlight is such that each connection has one request at work, and one that does something else.
func (c edgeConfig) maxInFlight(d postgres.Config) int {
	if c.MaxInFlight == 0 {
		return 2 * (int(d.MaxConns) + len(d.Replicas)*int(d.ReplicaMaxConns))
	}
	return max(0, c.MaxInFlight)
}
