package main

import (
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/loadlinehq/loadline/edge"
	"github.com/loadlinehq/loadline/examples/conduit/live"
	"github.com/loadlinehq/loadline/examples/conduit/web"
	"github.com/loadlinehq/loadline/internal/invalid"
)

// webConfig says how browsers get the page.
type webConfig struct {
	// Secure has them send its cookie by TLS alone: set it where they come by https.
	Secure bool `yaml:"secure" env:"CONDUIT_WEB_SECURE"`
}

// realtimeConfig says how many browsers are told what happens, where there is NATS.
type realtimeConfig struct {
	// MaxConnections bounds those of one instance; 0: they are told nothing.
	MaxConnections int `yaml:"maxConnections" env:"CONDUIT_REALTIME_MAX_CONNECTIONS"`
}

// Validate reports a bound that cannot be.
func (c realtimeConfig) Validate() error {
	return errors.Join(invalid.If(c.MaxConnections < 0, "maxConnections", "is %d: it is a number of connections, or 0", c.MaxConnections))
}

const (
	realtimePath = "/realtime"
	// minDrain is for a drainTimeout of nothing: package realtime takes zero for its default.
	minDrain = time.Millisecond
)

// withWeb has the page and its channels beside the API: what stays connected knows none of the API's bounds, and none of its counting.
func withWeb(api, page http.Handler, l *live.Live, trusted []string) (http.Handler, error) {
	address, err := edge.ClientAddress(edge.ClientAddressConfig{Trusted: trusted})
	if err != nil {
		return nil, err
	}
	channels := api // where it is not found
	if l != nil {
		channels = address(http.StripPrefix(realtimePath, l.Handler()))
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch path := r.URL.Path; {
		case web.Serves(path):
			page.ServeHTTP(w, r)
		case strings.HasPrefix(path, realtimePath+"/"):
			channels.ServeHTTP(w, r)
		default:
			api.ServeHTTP(w, r)
		}
	}), nil
}
