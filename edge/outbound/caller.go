package outbound

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/loadlinehq/loadline/edge"
)

// Defaults of [Config].
const (
	DefaultTimeout     = 2 * time.Second
	DefaultRetries     = 2
	DefaultRetryBudget = 0.1
	DefaultMaxDelay    = time.Second
	// DefaultFailures is which share of calls must fail, of DefaultCalls in DefaultWindow, for the service not to be asked.
	DefaultFailures = 0.5
	DefaultCalls    = 20
	DefaultWindow   = 10 * time.Second
	DefaultOpen     = 5 * time.Second

	firstDelay = 50 * time.Millisecond
	// probes must succeed before the service is asked by all again.
	probes = 3
	// maxDrain is how much of an answer that is not used is read, so that its connection can be.
	maxDrain   = 4 << 10
	drainLimit = 20 * time.Millisecond
	// transit is what is left for an answer to come back.
	transit = 5 * time.Millisecond
)

// Config needs a Name.
type Config struct {
	// Name of the service, in metrics and errors.
	Name string
	// Next makes the calls. Default http.DefaultTransport.
	Next http.RoundTripper
	// Timeout bounds each attempt until its answer begins. Default 2 s.
	Timeout time.Duration
	// Retries is how often a call is repeated at most that fails, or is answered with 429 or a status from 500 on but 501. Default 2;
	// negative: never.
	Retries int
	// RetryBudget is how many repetitions there may be for each call, over all of them, beside ten at the beginning. Default 0.1.
	RetryBudget float64
	// MaxDelay bounds the wait before a repetition, which doubles from 50 ms and is jittered, or is the answer's Retry-After:
	// one that is longer ends the call. Default 1 s.
	MaxDelay time.Duration
	// Failures is which share of at least Calls within Window must fail for the service not to be asked for the time of Open; then
	// three calls try. Defaults 0.5 of 20 within 10 s, and 5 s.
	Failures float64
	Calls    int
	Window   time.Duration
	Open     time.Duration
	// Retryable reports whether a request may be repeated. Default: GET, HEAD, OPTIONS, PUT, DELETE, and those with an
	// Idempotency-Key. One with a body and without GetBody never is.
	Retryable func(*http.Request) bool
	// Fallback answers what cannot be had, from a cache or with a default; the error says why. Default none. It may return err.
	Fallback func(r *http.Request, err error) (*http.Response, error)
	// MeterProvider is default otel.GetMeterProvider().
	MeterProvider metric.MeterProvider
}

func (c Config) withDefaults() Config {
	if c.Next == nil {
		c.Next = http.DefaultTransport
	}
	c.Timeout = cmp.Or(c.Timeout, DefaultTimeout)
	c.Retries = cmp.Or(c.Retries, DefaultRetries)
	c.RetryBudget = cmp.Or(c.RetryBudget, DefaultRetryBudget)
	c.MaxDelay = cmp.Or(c.MaxDelay, DefaultMaxDelay)
	c.Failures = cmp.Or(c.Failures, DefaultFailures)
	c.Calls = cmp.Or(c.Calls, DefaultCalls)
	c.Window = cmp.Or(c.Window, DefaultWindow)
	c.Open = cmp.Or(c.Open, DefaultOpen)
	if c.Retryable == nil {
		c.Retryable = mayRepeat
	}
	return c
}

func (c Config) validate() error {
	var errs []error
	if c.Name == "" {
		errs = append(errs, errors.New("outbound: Config.Name is missing: it is the service's, in metrics and errors"))
	}
	if c.Timeout < 0 || c.MaxDelay < firstDelay || c.Window < 0 || c.Open < 0 || c.Calls < 1 {
		errs = append(errs, fmt.Errorf("outbound: Config.Timeout (%v), Window (%v) and Open (%v) must not be negative, MaxDelay (%v) at least %v, and Calls (%d) 1", c.Timeout, c.Window, c.Open, c.MaxDelay, firstDelay, c.Calls))
	}
	if c.RetryBudget < 0 || c.RetryBudget > 1 || c.Failures <= 0 || c.Failures > 1 {
		errs = append(errs, fmt.Errorf("outbound: Config.RetryBudget (%g) and Failures (%g) are shares, from 0 to 1", c.RetryBudget, c.Failures))
	}
	return errors.Join(errs...)
}

// mayRepeat is RFC 9110, section 9.2.2.
func mayRepeat(r *http.Request) bool {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodPut, http.MethodDelete, "":
		return true
	}
	return r.Header.Get(edge.IdempotencyKeyHeader) != ""
}

// Caller is an http.RoundTripper. It may be used by several goroutines.
type Caller struct {
	c              Config
	budget         budget
	breaker        circuitbreaker.CircuitBreaker[*http.Response]
	calls, retries metric.Int64Counter
	target         attribute.KeyValue
	registration   metric.Registration
}

// OpenError: the service has failed, and is not asked. It is 503.
type OpenError struct {
	Name  string
	After time.Duration // when it will be
}

func (e *OpenError) Error() string {
	return fmt.Sprintf("outbound: %s has failed too often, and is not asked for %v", e.Name, e.After.Round(time.Millisecond))
}

// HTTPStatus is for what asks errors for their status.
func (e *OpenError) HTTPStatus() int { return http.StatusServiceUnavailable }

// RetryAfter is for what asks errors when to try again.
func (e *OpenError) RetryAfter() time.Duration { return max(e.After, time.Second) }

// TimeoutError: the service has not begun to answer in time. It is 504.
type TimeoutError struct {
	Name  string
	Limit time.Duration
}

func (e *TimeoutError) Error() string {
	return fmt.Sprintf("outbound: %s has not answered within %v", e.Name, e.Limit)
}

// HTTPStatus is for what asks errors for their status.
func (e *TimeoutError) HTTPStatus() int { return http.StatusGatewayTimeout }

// Timeout is net.Error's.
func (e *TimeoutError) Timeout() bool { return true }

// Unwrap makes it a context.DeadlineExceeded.
func (e *TimeoutError) Unwrap() error { return context.DeadlineExceeded }

// New returns a caller. The metrics are loadline.outbound.calls{service, outcome}, ok, failed, timeout, open, fallback or given_up;
// loadline.outbound.retries{service}; and loadline.outbound.breaker{service}, 0 closed, 1 trying, 2 open. Close
// ends them.
func New(c Config) (*Caller, error) {
	c = c.withDefaults()
	if err := c.validate(); err != nil {
		return nil, err
	}
	caller := &Caller{c: c, target: attribute.String("service", c.Name)}
	if err := caller.measure(); err != nil {
		return nil, err
	}
	caller.breaker = circuitbreaker.NewBuilder[*http.Response]().
		WithFailureRateThreshold(c.Failures, uint(c.Calls), c.Window).
		WithSuccessThreshold(probes).WithDelay(c.Open).WithJitterFactor(0.2).Build()
	caller.budget.tokens.Store(reserve)
	return caller, nil
}

func (c *Caller) measure() error {
	provider := c.c.MeterProvider
	if provider == nil {
		provider = otel.GetMeterProvider()
	}
	meter := provider.Meter("github.com/loadlinehq/loadline/edge/outbound")
	var errs [4]error
	c.calls, errs[0] = meter.Int64Counter("loadline.outbound.calls", metric.WithUnit("{call}"), metric.WithDescription("Calls to other services."))
	c.retries, errs[1] = meter.Int64Counter("loadline.outbound.retries", metric.WithUnit("{call}"), metric.WithDescription("Repetitions of calls."))
	state, err := meter.Int64ObservableGauge("loadline.outbound.breaker", metric.WithDescription("0 closed, 1 trying, 2 open."))
	errs[2] = err
	c.registration, errs[3] = meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		n := int64(0)
		switch {
		case c.breaker.IsHalfOpen():
			n = 1
		case c.breaker.IsOpen():
			n = 2
		}
		o.ObserveInt64(state, n, metric.WithAttributes(c.target))
		return nil
	}, state)
	return errors.Join(errs[:]...)
}

// Close ends the metrics.
func (c *Caller) Close() error { return c.registration.Unregister() }

// RoundTrip implements http.RoundTripper. Its errors are *[OpenError], *[TimeoutError], and those of the transport. An answer is
// given as it is, whatever its status, when it is the last one.
func (c *Caller) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := c.repeat(r)
	outcome := "ok"
	switch {
	case r.Context().Err() != nil && err != nil:
		outcome = "given_up"
	case failed(answer, err):
		outcome = "failed"
	}
	if _, ok := errors.AsType[*OpenError](err); ok {
		outcome = "open"
	} else if _, ok := errors.AsType[*TimeoutError](err); ok {
		outcome = "timeout"
	}
	if c.c.Fallback != nil && outcome != "ok" && outcome != "given_up" {
		cause := err
		if cause == nil {
			cause = fmt.Errorf("outbound: %s has answered %s", c.c.Name, answer.Status)
		}
		if other, otherErr := c.c.Fallback(r, cause); otherErr == nil && other != nil {
			discard(answer)
			outcome, answer, err = "fallback", other, nil
		}
	}
	c.calls.Add(r.Context(), 1, metric.WithAttributes(c.target, attribute.String("outcome", outcome)))
	return answer, err
}

// repeat makes a call until there is an answer that is good, or no reason, time or budget for another try.
func (c *Caller) repeat(r *http.Request) (*http.Response, error) {
	c.budget.call(c.c.RetryBudget)
	mayRepeat := c.c.Retryable(r) && (r.Body == nil || r.Body == http.NoBody || r.GetBody != nil)
	for try := 0; ; try++ {
		answer, err := c.attempt(r)
		_, open := errors.AsType[*OpenError](err)
		if open || !mayRepeat || try >= c.c.Retries || !worthAnother(answer, err) || r.Context().Err() != nil {
			return answer, err
		}
		wait := waitOf(answer)
		if wait == 0 {
			wait = min(firstDelay<<min(try, 20), c.c.MaxDelay)
			wait = wait/2 + rand.N(wait)
		}
		if deadline, ok := r.Context().Deadline(); wait > c.c.MaxDelay+c.c.MaxDelay/2 || ok && time.Until(deadline) <= wait || !c.budget.take() {
			return answer, err
		}
		discard(answer)
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-r.Context().Done():
			timer.Stop()
			return nil, context.Cause(r.Context())
		}
		c.retries.Add(r.Context(), 1, metric.WithAttributes(c.target))
		if r.GetBody != nil {
			body, err := r.GetBody()
			if err != nil {
				return nil, err
			}
			r = r.Clone(r.Context()) // which is not ours to change
			r.Body = body
		}
	}
}

// attempt makes a call, if the service is asked at all.
func (c *Caller) attempt(r *http.Request) (*http.Response, error) {
	waits := c.c.Timeout
	if deadline, ok := r.Context().Deadline(); ok {
		if waits = min(waits, time.Until(deadline)); waits < 2*transit { // which is not the service's fault
			if r.Body != nil {
				r.Body.Close() // as RoundTripper must
			}
			return nil, fmt.Errorf("outbound: there is no time left to call %s: %w", c.c.Name, context.DeadlineExceeded)
		}
	}
	if !c.breaker.TryAcquirePermit() {
		if r.Body != nil {
			r.Body.Close() // as RoundTripper must
		}
		return nil, &OpenError{c.c.Name, c.breaker.RemainingDelay()}
	}
	ctx, cancel := context.WithCancelCause(r.Context())
	late := &TimeoutError{c.c.Name, c.c.Timeout}
	timer := time.AfterFunc(c.c.Timeout, func() { cancel(late) })
	told := r.Clone(ctx) // which is not ours to change
	told.Header.Set(edge.TimeoutHeader, strconv.FormatInt((waits-transit).Milliseconds(), 10))
	answer, err := c.c.Next.RoundTrip(told)
	if !timer.Stop() && context.Cause(ctx) == error(late) {
		discard(answer)
		answer, err = nil, late
	}
	switch {
	case r.Context().Err() != nil && err != nil: // who calls has gone, and has seen neither
		if c.breaker.IsHalfOpen() {
			c.breaker.RecordFailure() // or nobody else would be let try
		}
	case failed(answer, err):
		c.breaker.RecordFailure()
	default:
		c.breaker.RecordSuccess()
	}
	if err != nil {
		cancel(nil)
		return nil, err
	}
	answer.Body = &body{answer.Body, cancel}
	return answer, nil
}

// body ends its attempt's context when it is closed.
type body struct {
	io.ReadCloser
	cancel context.CancelCauseFunc
}

func (b *body) Close() error {
	defer b.cancel(nil)
	return b.ReadCloser.Close()
}

// Write is io.Writer's, for a connection that was switched to another protocol.
func (b *body) Write(p []byte) (int, error) {
	if w, ok := b.ReadCloser.(io.Writer); ok {
		return w.Write(p)
	}
	return 0, errors.ErrUnsupported
}

// discard closes an answer that is not used, so that its connection can be.
func discard(r *http.Response) {
	if r != nil {
		enough := time.AfterFunc(drainLimit, func() { _ = r.Body.Close() })
		_, _ = io.CopyN(io.Discard, r.Body, maxDrain)
		enough.Stop()
		_ = r.Body.Close()
	}
}

// failed is what speaks against the service. A caller that has gone does not.
func failed(r *http.Response, err error) bool {
	if err != nil {
		return !errors.Is(err, context.Canceled)
	}
	return r != nil && r.StatusCode >= http.StatusInternalServerError && r.StatusCode != http.StatusNotImplemented
}

func worthAnother(r *http.Response, err error) bool {
	return failed(r, err) || r != nil && r.StatusCode == http.StatusTooManyRequests
}

// waitOf is an answer's Retry-After in seconds; a date is not looked at.
func waitOf(r *http.Response) time.Duration {
	if r == nil {
		return 0
	}
	seconds, err := strconv.ParseUint(r.Header.Get("Retry-After"), 10, 31)
	if err != nil {
		return 0
	}
	return time.Duration(seconds) * time.Second
}

// budget lets repetitions be a share of the calls, whatever fails: each call brings a part of one, and each repetition takes
// one. failsafe-go's budget goes by how many are under way, and those that wait for their repetition are: with it, nearly
// each of 1,500 calls that failed after 5 ms was repeated at a rate of 0.1 (TestBudget). As Finagle's RetryBudget, it has a
// reserve, for a service that is seldom called.
type budget struct{ tokens atomic.Int64 }

const (
	token   = 1000 // a repetition, so that calls can bring parts of it
	reserve = 10 * token
	most    = 100 * token
)

func (b *budget) call(rate float64) {
	part := int64(rate * token)
	for {
		now := b.tokens.Load()
		if now >= most || b.tokens.CompareAndSwap(now, min(most, now+part)) {
			return
		}
	}
}

func (b *budget) take() bool {
	for {
		now := b.tokens.Load()
		if now < token {
			return false
		}
		if b.tokens.CompareAndSwap(now, now-token) {
			return true
		}
	}
}
