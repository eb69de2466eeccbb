package httpapi

import (
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/redis/rueidis"

	"github.com/loadlinehq/loadline/edge"
	"github.com/loadlinehq/loadline/edge/overload"
	"github.com/loadlinehq/loadline/edge/ratelimit"
)

// addressShare is how many users one address is expected to have, such as an office's.
const addressShare = 10

// LimitsConfig says how much may be asked of the server.
type LimitsConfig struct {
	// Redis counts for all instances; nil: each counts for itself.
	Redis rueidis.Client
	// Instances is how many there are: each allows its share while Redis is away.
	Instances int
	// PerMinute is how many requests a user may make in a minute, or an address those of whom nobody has logged in; all of one
	// address may make ten times as many. 0: there is no limit.
	PerMinute int
	// Loopback is the same for clients on this machine, by address and by user.
	Loopback int
	// MaxInFlight is how many requests are served at a time at most. 0: there is no limit.
	MaxInFlight int
	Log         *slog.Logger
}

// Limits refuse what is too much: of one client with 429, and of all together with 503.
type Limits struct {
	byAddress, byClient, shed edge.Middleware // nil: no limit
	close                     []func() error
}

// NewLimits needs to be closed.
func NewLimits(c LimitsConfig) (*Limits, error) {
	l := new(Limits)
	if c.PerMinute > 0 {
		limiter, err := ratelimit.New(ratelimit.Config{
			Redis: c.Redis, Prefix: "conduit:limit:", Instances: func() int { return c.Instances }, Errors: edgeErrors(c.Log), Logger: c.Log,
		}, policies(c.PerMinute, c.Loopback)...)
		if err != nil {
			return nil, err
		}
		l.byAddress, l.byClient = limiter.Only("address", "loopback").Handler, limiter.Only("client", "loopback-user").Handler
		l.close = append(l.close, limiter.Close)
	}
	if c.MaxInFlight > 0 {
		limiter, err := overload.New(overload.Config{Ceiling: c.MaxInFlight, Class: class, Errors: edgeErrors(c.Log)})
		if err != nil {
			return nil, errors.Join(err, l.Close())
		}
		l.shed = limiter.Handler
		l.close = append(l.close, limiter.Close)
	}
	return l, nil
}

// Close ends the limits' metrics.
func (l *Limits) Close() error {
	var errs []error
	for _, end := range l.close {
		errs = append(errs, end())
	}
	return errors.Join(errs...)
}

func policies(perMinute, loopback int) []ratelimit.Policy {
	// of counts requests from this machine, or from others.
	of := func(local bool, key func(*http.Request) string) func(*http.Request) string {
		return func(r *http.Request) string {
			if isHealth(r) || ratelimit.FromLoopback(r) != local {
				return ""
			}
			return key(r)
		}
	}
	client := func(r *http.Request) string {
		if principal := Principal(r); principal != "" {
			return principal
		}
		return ratelimit.ByAddress(r)
	}
	return []ratelimit.Policy{
		{Name: "address", Limit: addressShare * perMinute, Window: time.Minute, Key: of(false, ratelimit.ByAddress)},
		{Name: "client", Limit: perMinute, Window: time.Minute, Key: of(false, client)},
		{Name: "loopback", Limit: loopback, Window: time.Minute, Key: of(true, ratelimit.ByAddress)},
		{Name: "loopback-user", Limit: loopback, Window: time.Minute, Key: of(true, Principal)},
	}
}

// class exempts what must be answered, and what waits for its turn to hash a password: that has a queue of its own, and
// how long it takes says nothing of the database.
func class(r *http.Request) overload.Class {
	switch edge.RouteOf(r) {
	case "/api/users", "/api/users/login":
		return overload.Exempt
	}
	if isHealth(r) {
		return overload.Exempt
	}
	return overload.DefaultClass(r)
}

func isHealth(r *http.Request) bool {
	route := edge.RouteOf(r)
	return route == "/healthz" || route == "/readyz"
}
