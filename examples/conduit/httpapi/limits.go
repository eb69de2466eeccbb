package httpapi

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"os"
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
	// Loopback is the same for clients on this machine, by address and by user. 0: they are as others.
	Loopback int
	// MaxInFlight is how many requests are served at a time at most. 0: there is no limit.
	MaxInFlight int
	Log         *slog.Logger
}

// Limits refuse what is too much: of one client with 429, and of all together with 503.
type Limits struct {
	ofClient, shed edge.Middleware // nil: no limit
	close          []func() error
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
		l.ofClient = limiter.Handler
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

// stage is what a request is counted by, where that is not all in one place.
type stage int

const (
	byAddress stage = iota + 1
	byClient
)

type stageKey struct{}

func stageOf(r *http.Request) stage {
	s, _ := r.Context().Value(stageKey{}).(stage)
	return s
}

func at(s stage, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), stageKey{}, s)))
	})
}

// ByAddress counts requests by the client's address alone, for what stands before the API and costs something itself. The API does not count
// them by it again.
func (l *Limits) ByAddress(next http.Handler) http.Handler {
	if l.ofClient == nil {
		return next
	}
	return at(byAddress, l.ofClient(at(byClient, next)))
}

// policies are all looked at in one place, behind authentication, which takes microseconds: so an address does not pay for what is refused
// to one of its users.
func policies(perMinute, loopback int) []ratelimit.Policy {
	host, _ := os.Hostname()
	isHere := func(r *http.Request) bool { return loopback > 0 && ratelimit.FromLoopback(r) }
	// of counts requests from this machine, or from others, if they are not counted elsewhere.
	of := func(here bool, elsewhere stage, key func(*http.Request) string) func(*http.Request) string {
		return func(r *http.Request) string {
			if isHealth(r) || isHere(r) != here || stageOf(r) == elsewhere {
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
	all := []ratelimit.Policy{
		{Name: "address", Limit: addressShare * perMinute, Window: time.Minute, Key: of(false, byClient, ratelimit.ByAddress)},
		{Name: "client", Limit: perMinute, Window: time.Minute, Key: of(false, byAddress, client)},
	}
	if loopback > 0 {
		all = append(all,
			// Each machine's own: 127.0.0.1 is on all of them.
			ratelimit.Policy{Name: "loopback", Limit: loopback, Window: time.Minute, Key: of(true, byClient, func(r *http.Request) string { return host + " " + ratelimit.ByAddress(r) })},
			ratelimit.Policy{Name: "loopback-user", Limit: loopback, Window: time.Minute, Key: of(true, byAddress, Principal)})
	}
	return all
}

// class exempts what must be answered, and what waits for its turn to hash a password: that has a queue of its own, and
// how long it takes says nothing of the database, whose pools have theirs.
func class(r *http.Request) overload.Class {
	switch route := edge.RouteOf(r); {
	case isHealth(r), r.Method == http.MethodPost && (route == "/api/users" || route == "/api/users/login"), r.Method == http.MethodPut && route == "/api/user":
		return overload.Exempt
	}
	return overload.DefaultClass(r)
}

func isHealth(r *http.Request) bool {
	route := edge.RouteOf(r)
	return route == "/healthz" || route == "/readyz"
}
