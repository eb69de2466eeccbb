package edge

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// TimeoutHeader says how many milliseconds a caller still waits for the answer.
const TimeoutHeader = "X-Request-Timeout-Ms"

const (
	// DefaultDeadline is what an interactive client waits for. Guess.
	DefaultDeadline = 10 * time.Second
	// transit is what is left for an answer to come back.
	transit = 5 * time.Millisecond
	// readSlack has a request end by its context, if it can, and not as if its client had gone.
	readSlack = time.Second
)

// DeadlineConfig has a usable zero value: ten seconds for all.
type DeadlineConfig struct {
	// Default is how long a request may take. Default 10 s; negative: as long as it takes.
	Default time.Duration
	// Route is how long the request's route may take: 0 for Default, negative for as long as it takes, which streams,
	// WebSockets and long polls need. Do not go by what the request says of itself.
	Route func(r *http.Request) time.Duration
	// Trusts reports whether the caller's [TimeoutHeader] is heeded: a service of one's own, known by its address or
	// certificate. Default: nobody's. It only ever shortens.
	Trusts func(r *http.Request) bool
	// Errors answers what is too late: 504.
	Errors Errors
}

// Deadline gives each request's context a deadline, and reading its body one a second later. Where a handler returns after it without an answer, the answer is 504.
// A request whose caller does not wait any more is answered so at once.
func Deadline(c DeadlineConfig) func(http.Handler) http.Handler {
	if c.Default == 0 {
		c.Default = DefaultDeadline
	}
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			limit := c.Default
			if c.Route != nil {
				if of := c.Route(r); of != 0 {
					limit = of
				}
			}
			if c.Trusts != nil && c.Trusts(r) {
				if left, ok := callerWaits(r); ok && (limit < 0 || left < limit) {
					if limit = left; limit <= 0 {
						c.Errors.Answer(w, r, &Problem{Status: http.StatusGatewayTimeout, Detail: "the caller does not wait for it any more"})
						return
					}
				}
			}
			if limit < 0 {
				next.ServeHTTP(w, r)
				return
			}
			ctx, cancel := context.WithTimeoutCause(r.Context(), limit, fmt.Errorf("edge: the request has taken longer than %v: %w", limit, context.DeadlineExceeded))
			defer cancel()
			// A body that comes a byte at a time must not outlast it: reading knows nothing of the context.
			_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(limit + readSlack)) // where that is supported
			b := &begun{ResponseWriter: w}
			r = r.WithContext(ctx)
			next.ServeHTTP(b, r)
			if !b.is && errors.Is(ctx.Err(), context.DeadlineExceeded) {
				c.Errors.Answer(w, r, context.Cause(ctx))
			}
		})
	}
}

// callerWaits is what a caller's header says. One that is no number says nothing.
func callerWaits(r *http.Request) (time.Duration, bool) {
	ms, err := strconv.ParseInt(r.Header.Get(TimeoutHeader), 10, 64)
	if err != nil || ms > int64(24*time.Hour/time.Millisecond) {
		return 0, false
	}
	return time.Duration(ms) * time.Millisecond, true
}

// PassDeadline tells services that are called how long the request's context still has, less what the answer needs to
// come back, and does not call them when that is nothing. Next is http.DefaultTransport if nil.
func PassDeadline(next http.RoundTripper) http.RoundTripper {
	if next == nil {
		next = http.DefaultTransport
	}
	return passDeadline{next}
}

type passDeadline struct{ next http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (p passDeadline) RoundTrip(r *http.Request) (*http.Response, error) {
	deadline, ok := r.Context().Deadline()
	if !ok {
		return p.next.RoundTrip(r)
	}
	left := time.Until(deadline) - transit
	if left < time.Millisecond {
		if r.Body != nil {
			r.Body.Close() // as RoundTripper must
		}
		return nil, fmt.Errorf("edge: there is no time left to call %s: %w", r.URL.Host, context.DeadlineExceeded)
	}
	r = r.Clone(r.Context()) // which is not ours to change
	r.Header.Set(TimeoutHeader, strconv.FormatInt(left.Milliseconds(), 10))
	return p.next.RoundTrip(r)
}
