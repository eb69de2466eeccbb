package edge

import (
	"net/http"

	"github.com/rs/cors"
)

// DefaultMaxBody bounds a request's body in a [Chain], in bytes.
const DefaultMaxBody = 1 << 20

// Middleware is what a [Chain] is made of.
type Middleware = func(http.Handler) http.Handler

// ChainConfig says what stands in front of an application. Its zero value recovers, gives ids, sets security headers, and
// bounds bodies and time. Each part that is nil is left out.
type ChainConfig struct {
	// Errors answers, unless a part has its own.
	Errors Errors
	// Mux finds the route, for those parts that go by it: see [RouteOf].
	Mux *http.ServeMux
	// Telemetry traces and measures, such as telemetry.Telemetry's HTTP, or otelhttp.NewMiddleware. What is refused further in is measured as well.
	Telemetry Middleware
	// Address finds the client's address.
	Address ClientAddressConfig
	// CORS answers preflights before they are counted by a limit; see github.com/rs/cors.
	CORS *cors.Options
	// Headers are set in each answer.
	Headers SecurityHeaders
	// MaxBody bounds a request's body, in bytes. Default 1 MiB; negative: none.
	MaxBody int64
	// LimitByAddress is counted before anything costs anything, such as a ratelimit.Limiter's Handler.
	LimitByAddress Middleware
	// Shed refuses what is too much, such as an overload.Limiter's Handler. It is before authentication, whose
	// work would not be shed otherwise.
	Shed Middleware
	// Deadline bounds requests.
	Deadline DeadlineConfig
	// Authenticate is the application's.
	Authenticate Middleware
	// CrossOrigin protects users of cookies; see [CrossOrigin].
	CrossOrigin *http.CrossOriginProtection
	// Tenant puts the tenant into the context, such as by tenancy.With.
	Tenant Middleware
	// Limit is by user, or tenant.
	Limit Middleware
	// Session gives requests a causal session, as causal.HTTP's Handler.
	Session Middleware
	// Idempotency runs a request with a key once.
	Idempotency *IdempotencyConfig
	// Caching sets the headers for caches, as [Caching]'s Handler.
	Caching Middleware
}

// Chain puts an application behind the parts of the configuration, outermost first: [Recover], [Keys], telemetry,
// [ClientAddress], security headers, CORS, [MaxBody], the limit by address, shedding, [Deadline], authentication,
// [CrossOrigin], tenant, the limit by user, the causal session, [Idempotency], and caching.
func Chain(c ChainConfig) (Middleware, error) {
	address, err := ClientAddress(c.Address)
	if err != nil {
		return nil, err
	}
	deadline := c.Deadline
	if deadline.Errors.isZero() {
		deadline.Errors = c.Errors
	}
	parts := []Middleware{Recover(c.Errors), Keys(c.Errors)}
	add := func(m Middleware) {
		if m != nil {
			parts = append(parts, m)
		}
	}
	if c.Mux != nil {
		add(Routes(c.Mux))
	}
	if c.Telemetry != nil {
		// Once more inside, so that a panic is measured as what it is answered with, and logged with the request's id.
		add(c.Telemetry)
		add(Recover(c.Errors))
	}
	add(address)
	add(c.Headers.Handler)
	if c.CORS != nil {
		add(cors.New(*c.CORS).Handler)
	}
	if c.MaxBody == 0 {
		c.MaxBody = DefaultMaxBody
	}
	if c.MaxBody > 0 {
		add(MaxBody(c.MaxBody, c.Errors))
	}
	add(c.LimitByAddress)
	add(c.Shed)
	add(Deadline(deadline))
	add(c.Authenticate)
	if c.CrossOrigin != nil {
		add(CrossOrigin(c.CrossOrigin, c.Errors))
	}
	add(c.Tenant)
	add(c.Limit)
	add(c.Session)
	if c.Idempotency != nil {
		config := *c.Idempotency
		if config.Errors.isZero() {
			config.Errors = c.Errors
		}
		idempotent, err := Idempotency(config)
		if err != nil {
			return nil, err
		}
		add(idempotent)
	}
	add(c.Caching)
	return func(next http.Handler) http.Handler {
		for i := len(parts) - 1; i >= 0; i-- {
			next = parts[i](next)
		}
		return next
	}, nil
}

func (e Errors) isZero() bool { return e.Write == nil && e.Log == nil }
