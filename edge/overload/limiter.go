package overload

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/failsafe-go/failsafe-go/adaptivelimiter"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/loadlinehq/loadline/edge"
)

// Defaults of [Config].
const (
	DefaultFloor = 4
	// DefaultQueue lets what is served wait for as long again as it takes. Guess.
	DefaultQueue = 1.0
	// DefaultWait is what a page can wait for. Guess.
	DefaultWait       = 100 * time.Millisecond
	DefaultRetryAfter = time.Second
)

// Config needs a Ceiling.
type Config struct {
	// Ceiling is how many requests are served at a time at most: see the package's comment.
	Ceiling int
	// Floor is how many are at least; the start is Ceiling. Default 4, or Ceiling if that is less.
	Floor int
	// Queue is how many requests may wait, as a multiple of how many are served. Default 1. The classes share it: background
	// requests wait in the first quarter of it only, writes in all of it.
	Queue float64
	// Wait is how long one may wait. Default 100 ms.
	Wait time.Duration
	// Class says what a request is. Default [DefaultClass].
	Class func(*http.Request) Class
	// RetryAfter is what who is shed is told. Default a second.
	RetryAfter time.Duration
	// Errors answers.
	Errors edge.Errors
	// MeterProvider is default otel.GetMeterProvider().
	MeterProvider metric.MeterProvider
}

func (c Config) withDefaults() Config {
	if c.Floor == 0 {
		c.Floor = min(DefaultFloor, max(1, c.Ceiling))
	}
	if c.Queue == 0 {
		c.Queue = DefaultQueue
	}
	if c.Wait == 0 {
		c.Wait = DefaultWait
	}
	if c.Class == nil {
		c.Class = DefaultClass
	}
	if c.RetryAfter == 0 {
		c.RetryAfter = DefaultRetryAfter
	}
	return c
}

func (c Config) validate() error {
	var errs []error
	if c.Ceiling < 1 {
		errs = append(errs, fmt.Errorf("overload: Config.Ceiling is %d: say how many requests can be served at a time, such as twice the connections of the database's pools", c.Ceiling))
	}
	if c.Floor < 1 || c.Floor > max(1, c.Ceiling) {
		errs = append(errs, fmt.Errorf("overload: Config.Floor is %d: it is 1 at least, and at most Ceiling (%d)", c.Floor, c.Ceiling))
	}
	if c.Queue < 0 || c.Wait < 0 || c.RetryAfter < 0 {
		errs = append(errs, fmt.Errorf("overload: Config.Queue (%g), Wait (%v) and RetryAfter (%v) must not be negative", c.Queue, c.Wait, c.RetryAfter))
	}
	return errors.Join(errs...)
}

// Limiter bounds how many requests are served at a time. It may be used by several goroutines.
type Limiter struct {
	c            Config
	limit        adaptivelimiter.AdaptiveLimiter[any]
	requests     metric.Int64Counter
	served, shed [classes]metric.MeasurementOption
	registration metric.Registration
}

// New returns a limiter. The metrics are loadline.overload.requests{class, outcome}, served or shed, and
// loadline.overload.limit, .in_flight and .queued. Close ends them.
func New(c Config) (*Limiter, error) {
	c = c.withDefaults()
	if err := c.validate(); err != nil {
		return nil, err
	}
	l := &Limiter{c: c}
	l.limit = adaptivelimiter.NewBuilder[any]().WithLimits(uint(c.Floor), uint(c.Ceiling), uint(c.Ceiling)).
		WithMaxLimitStabilizationWindow(time.Minute).Build()
	provider := c.MeterProvider
	if provider == nil {
		provider = otel.GetMeterProvider()
	}
	meter := provider.Meter("github.com/loadlinehq/loadline/edge/overload")
	var errs [5]error
	l.requests, errs[0] = meter.Int64Counter("loadline.overload.requests", metric.WithUnit("{request}"), metric.WithDescription("Requests that were served, or shed."))
	var gauges [3]metric.Int64ObservableGauge
	for i, g := range [...][2]string{{"limit", "Requests that may be served at a time."}, {"in_flight", "Requests that are served."}, {"queued", "Requests that wait."}} {
		gauges[i], errs[1+i] = meter.Int64ObservableGauge("loadline.overload."+g[0], metric.WithUnit("{request}"), metric.WithDescription(g[1]))
	}
	l.registration, errs[4] = meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		o.ObserveInt64(gauges[0], int64(l.limit.Limit()))
		o.ObserveInt64(gauges[1], int64(l.limit.Inflight()))
		o.ObserveInt64(gauges[2], int64(l.limit.Queued()))
		return nil
	}, gauges[0], gauges[1], gauges[2])
	for i := range classes {
		class := attribute.String("class", Class(i).String())
		l.served[i] = metric.WithAttributeSet(attribute.NewSet(class, attribute.String("outcome", "served")))
		l.shed[i] = metric.WithAttributeSet(attribute.NewSet(class, attribute.String("outcome", "shed")))
	}
	return l, errors.Join(errs[:]...)
}

// Close ends the metrics.
func (l *Limiter) Close() error { return l.registration.Unregister() }

// errShed is what acquire returns beside the context's errors.
var errShed = errors.New("overload: there is no room")

func (l *Limiter) acquire(ctx context.Context, class Class) (adaptivelimiter.Permit, error) {
	if permit, ok := l.limit.TryAcquirePermit(); ok {
		return permit, nil
	}
	room := l.c.Queue * float64(l.limit.Limit()) * float64(class+1) / float64(classes)
	if float64(l.limit.Queued()) >= room {
		return nil, errShed
	}
	permit, err := l.limit.AcquirePermitWithMaxWait(ctx, l.c.Wait)
	if errors.Is(err, adaptivelimiter.ErrExceeded) {
		err = errShed
	}
	return permit, err
}

// Handler serves requests for which there is room, and answers the others with 503 and Retry-After.
func (l *Limiter) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		class := l.c.Class(r)
		if class < 0 || class >= Exempt {
			next.ServeHTTP(w, r)
			return
		}
		permit, err := l.acquire(r.Context(), class)
		if err != nil {
			l.requests.Add(r.Context(), 1, l.shed[class])
			if errors.Is(err, errShed) {
				err = &edge.Problem{Status: http.StatusServiceUnavailable, Detail: "the service is asked for more than it can do", After: l.c.RetryAfter}
			}
			l.c.Errors.Answer(w, r, err)
			return
		}
		l.requests.Add(r.Context(), 1, l.served[class])
		// What was refused or has failed, was given up, or has become another's connection says nothing of how long service takes.
		s := &status{ResponseWriter: w}
		says := false
		defer func() {
			if says && s.code < http.StatusBadRequest && !s.hijacked && r.Context().Err() == nil {
				permit.Record()
			} else {
				permit.Drop()
			}
		}()
		next.ServeHTTP(s, r)
		says = true
	})
}
