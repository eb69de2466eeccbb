package ratelimit

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/loadlinehq/loadline/edge"
)

// Limiter counts requests by policies. It may be used by several goroutines.
type Limiter struct {
	c        Config
	policies []Policy
	units    [maxPolicies]int64       // of policies: see Policy.interval
	header   [1 << maxPolicies]string // RateLimit-Policy of each set
	began    time.Time

	shared *shared // nil: none
	local  *local
	denied *local // who is refused until when, so that it costs no trip
	logged atomic.Bool

	decisions    [len(decisions)]atomic.Int64
	wait         metric.Float64Histogram
	registration metric.Registration
}

// set has a bit for each policy.
type set uint8

func (s set) has(policy int) bool { return s&(1<<policy) != 0 }

// decisions are the attributes decision and by.
var decisions = [...][2]string{allowedByRedis: {"allowed", "redis"}, deniedByRedis: {"denied", "redis"}, allowedHere: {"allowed", "local"}, deniedHere: {"denied", "local"}, deniedBefore: {"denied", "cache"}}

const (
	allowedByRedis = iota
	deniedByRedis
	allowedHere
	deniedHere
	deniedBefore
)

// Decision is what became of a request.
type Decision struct {
	Allowed bool
	// RetryAfter is when it would be allowed. 0 where it was.
	RetryAfter time.Duration
	// Waited is for how long the request has waited for Redis.
	Waited   time.Duration
	n        int
	by       set
	policies [maxPolicies]PolicyState
}

// Policies are those that the request was counted by, or refused by.
func (d *Decision) Policies() []PolicyState { return d.policies[:d.n] }

// PolicyState is what one policy says.
type PolicyState struct {
	Name  string
	Left  int64         // requests that could follow at once
	Reset time.Duration // until there is one more; 0: all are there
	// Exceeded: it is why the request is not allowed.
	Exceeded bool
}

// New checks policies. The metrics are loadline.ratelimit.decisions{decision, by}: allowed or denied, by redis, local, or
// cache, which is who was refused before; and loadline.ratelimit.wait, for how long requests have waited for Redis, in
// seconds. Close ends them.
func New(c Config, policies ...Policy) (*Limiter, error) {
	c = c.withDefaults()
	all := make([]Policy, len(policies))
	for i, p := range policies {
		all[i] = p.withDefaults()
	}
	if err := c.validate(all); err != nil {
		return nil, err
	}
	l := &Limiter{c: c, policies: all, began: time.Now(), local: newLocal(c.MaxKeys), denied: newLocal(c.MaxKeys)}
	var names []string
	for i, p := range all {
		names = append(names, p.Name)
		l.units[i] = p.interval()
	}
	for of := range set(1) << len(all) {
		var said []string
		for i, p := range all {
			if of.has(i) {
				said = append(said, fmt.Sprintf("%q;q=%d;w=%d", p.Name, p.Limit, seconds(p.Window.Microseconds())))
			}
		}
		l.header[of] = strings.Join(said, ", ")
	}
	if c.Redis != nil {
		l.shared = newShared(c.Redis, c.Prefix, names, c.Timeout)
	}
	if err := l.register(); err != nil {
		return nil, err
	}
	return l, nil
}

func (l *Limiter) register() error {
	provider := l.c.MeterProvider
	if provider == nil {
		provider = otel.GetMeterProvider()
	}
	meter := provider.Meter("github.com/loadlinehq/loadline/edge/ratelimit")
	var err error
	l.wait, err = meter.Float64Histogram("loadline.ratelimit.wait", metric.WithUnit("s"), metric.WithDescription("For how long a request has waited for Redis."),
		metric.WithExplicitBucketBoundaries(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.03, 0.05, 0.1))
	if err != nil {
		return err
	}
	// Observed and not added to, which allocates.
	counter, err := meter.Int64ObservableCounter("loadline.ratelimit.decisions", metric.WithUnit("{request}"), metric.WithDescription("Requests that were let in, or refused."))
	if err != nil {
		return err
	}
	l.registration, err = meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		for i, of := range decisions {
			o.ObserveInt64(counter, l.decisions[i].Load(), metric.WithAttributes(attribute.String("decision", of[0]), attribute.String("by", of[1])))
		}
		return nil
	}, counter)
	return err
}

// Close ends the metrics.
func (l *Limiter) Close() error { return l.registration.Unregister() }

// now is in microseconds, and never goes back.
func (l *Limiter) now() int64 { return int64(time.Since(l.began)/time.Microsecond) + 1 }

// Take counts a request, by all its policies or by none.
func (l *Limiter) Take(r *http.Request) (d Decision) {
	var cells [maxPolicies]cell
	n := 0
	for i := range l.policies {
		p := &l.policies[i]
		cost := 1
		if p.Cost != nil {
			cost = p.Cost(r)
		}
		key := p.Key(r)
		if cost <= 0 || key == "" {
			continue
		}
		unit := l.units[i]
		cells[n] = cell{who: who{i, short(key)}, cost: unit * int64(min(cost, p.Burst)), ahead: unit * int64(p.Burst), unit: unit}
		d.by |= 1 << i
		n++
	}
	if n == 0 {
		d.Allowed = true
		return d
	}
	var states [maxPolicies]state
	d.Allowed = l.take(r.Context(), cells[:n], states[:n], &d.Waited)
	for i := range n {
		s, p := &states[i], &d.policies[d.n]
		if !s.known { // another has refused it
			continue
		}
		d.n++
		p.Name, p.Left, p.Reset = l.policies[cells[i].policy].Name, s.left, time.Duration(s.reset)*time.Microsecond
		p.Exceeded = !d.Allowed && s.retry > 0
		d.RetryAfter = max(d.RetryAfter, time.Duration(s.retry)*time.Microsecond)
	}
	return d
}

// short is a key that is no longer than one in Redis should be.
func short(key string) string {
	if len(key) <= 64 {
		return key
	}
	sum := sha256.Sum256([]byte(key))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

func (l *Limiter) take(ctx context.Context, cells []cell, states []state, waited *time.Duration) (ok bool) {
	now := l.now()
	if l.shared == nil || l.shared.away() {
		return l.alone(now, cells, states)
	}
	refused := false
	for i := range cells {
		if until := l.denied.until(cells[i].who); until > now {
			refused = true
			states[i] = state{retry: until - now, reset: until - now, known: true}
		}
	}
	if refused {
		l.decisions[deniedBefore].Add(1)
		return false
	}
	began := time.Now()
	ok, err := l.shared.take(ctx, cells, states)
	*waited = time.Since(began)
	l.wait.Record(ctx, waited.Seconds())
	if err != nil {
		if l.shared.failures.Load() >= maxFailures && !l.logged.Swap(true) {
			l.c.Logger.WarnContext(ctx, "ratelimit: Redis is away; each instance counts for itself until it is back", "error", err)
		}
		return l.alone(now, cells, states)
	}
	l.logged.Store(false)
	if ok {
		l.decisions[allowedByRedis].Add(1)
		return true
	}
	l.decisions[deniedByRedis].Add(1)
	for i, c := range cells {
		// What is too much for one may be little enough for another.
		if states[i].retry > 0 && c.cost == c.unit {
			l.denied.note(now, c.who, now+states[i].retry)
		}
	}
	return false
}

// alone counts in this process, by its share, which cells are made of.
func (l *Limiter) alone(now int64, cells []cell, states []state) bool {
	if n := int64(max(1, l.c.Instances())); n > 1 {
		for i := range cells {
			c := &cells[i]
			burst := max(1, c.ahead/c.unit/n)
			cost := min(burst, c.cost/c.unit)
			c.unit *= n
			c.cost, c.ahead = c.unit*cost, c.unit*burst
		}
	}
	ok := l.local.take(now, cells, states)
	if ok {
		l.decisions[allowedHere].Add(1)
	} else {
		l.decisions[deniedHere].Add(1)
	}
	return ok
}

// Handler lets in what the policies allow, and answers what they do not with 429.
func (l *Limiter) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		d := l.Take(r)
		if d.n > 0 {
			// Lists, of which another limiter may have said the beginning.
			w.Header().Add("RateLimit-Policy", l.header[d.by])
			w.Header().Add("RateLimit", d.header())
		}
		if d.Allowed {
			next.ServeHTTP(w, r)
			return
		}
		l.c.Errors.Answer(w, r, d.problem())
	})
}

// header is draft-ietf-httpapi-ratelimit-headers-10's RateLimit.
func (d *Decision) header() string {
	var b strings.Builder
	for _, p := range d.Policies() {
		if b.Len() > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%q;r=%d;t=%d", p.Name, p.Left, seconds(p.Reset.Microseconds()))
	}
	return b.String()
}

func (d *Decision) problem() *edge.Problem {
	var names []string
	for _, p := range d.Policies() {
		if p.Exceeded {
			names = append(names, p.Name)
		}
	}
	return &edge.Problem{
		Type: "https://iana.org/assignments/http-problem-types#quota-exceeded", Title: "Request cannot be satisfied as assigned quota has been exceeded",
		Status: http.StatusTooManyRequests, After: max(d.RetryAfter, time.Second), Extensions: map[string]any{"violated-policies": names},
	}
}

// seconds rounds up: who comes back then is not refused for a fraction.
func seconds(microseconds int64) int64 { return (microseconds + 999_999) / 1_000_000 }
