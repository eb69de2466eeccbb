package load

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

const (
	// DefaultTimeout is a guess: ten seconds is where a person's attention ends
	// (Nielsen, Usability Engineering, 1993, section 5.5).
	DefaultTimeout = 10 * time.Second
	// DefaultMaxInFlight bounds memory: a goroutine with a request takes about 20 kB.
	DefaultMaxInFlight = 10_000
	// DefaultMaxConns is the size of a load balancer's keep-alive pool. Without a
	// bound a stall of some milliseconds opens thousands of connections, and dialling
	// them prolongs the stall.
	DefaultMaxConns = 256
	// DefaultWarmConns is a guess.
	DefaultWarmConns = 32
	// DefaultDrainTimeout leaves time for journeys of several requests.
	DefaultDrainTimeout = 30 * time.Second
	// DefaultMaxBody is a guess.
	DefaultMaxBody = 16 << 20
	// DefaultMaxLag is the least bound on the send lag. On two busy cores honest rates
	// showed a p99 of 2 ms, at times 4 ms; a starved generator shows tens and hundreds.
	DefaultMaxLag = 5 * time.Millisecond
	// DefaultMaxCPU is the share of its own cores at which a generator starts to
	// queue for them: at 70 % a single queue waits twice its service time.
	DefaultMaxCPU = 0.7
	// DefaultMaxMachineCPU is the share of a machine beyond which a generator takes
	// what the server on the same machine would have used. A guess.
	DefaultMaxMachineCPU = 0.3
	// DefaultMaxErrors is a guess: three nines.
	DefaultMaxErrors = 0.001

	// maxLatency is the end of the histograms' scale.
	maxLatency = 120 * time.Second
	// maxRate is far beyond what one process sends honestly.
	maxRate = 1e6
	// maxArrivals bounds the memory of a schedule and its outcomes: 24 bytes each.
	maxArrivals = 5_000_000
	// maxSteps, maxJourneys and maxRoutes bound the histograms, 150 kB each.
	maxSteps    = 1000
	maxJourneys = 1000
	maxRoutes   = 64
	maxUsers    = 10_000_000
)

// Weighted is a journey and its share of the arrivals.
type Weighted struct {
	Name   string
	Weight float64 // relative to the other weights; zero means 1
	Run    Journey
}

// SLO is what the run is held to, over all requests of a step. The zero value asks
// for nothing. An arrival that was dropped counts as a miss.
type SLO struct {
	P95 time.Duration `json:"p95_ns,omitempty"` // zero: not checked
	P99 time.Duration `json:"p99_ns,omitempty"` // zero: not checked
	// MaxErrors is the share of the arrivals that may fail or be dropped. Zero means
	// [DefaultMaxErrors] where another limit is set; negative means none may.
	MaxErrors float64 `json:"max_errors,omitempty"`
}

func (s SLO) given() bool { return s != SLO{} }

// Config describes a run. Journeys and Steps are required.
type Config struct {
	// Target is the base URL, such as http://127.0.0.1:8080, of [User.NewRequest].
	// It may be empty where journeys only use [User.Time].
	Target string
	// AllowRemote names the hosts, beside the loopback addresses, that may be put
	// under load, as they stand in the URL and without port. A load test of a
	// stranger's server is an accident: anything else is refused when dialling.
	AllowRemote []string

	Journeys []Weighted
	Steps    []Step
	Arrivals Arrivals
	// Seed decides the arrivals, the mix, and the random numbers of each journey.
	Seed uint64
	// Users is the size of the population that arrivals are drawn from; what [State]
	// holds lives as long as the user. Zero: every arrival is somebody new.
	Users int
	// Cookies gives each user a cookie jar.
	Cookies bool

	SLO SLO
	// Timeout is for each request, from the time it was wanted: the wait for a
	// connection is part of it. At most 120 s, the end of the histograms' scale. Too
	// short, and an overload shows as errors only; too long, and it outlives the drain.
	Timeout time.Duration
	// MaxInFlight is how many journeys run at once. The excess is dropped and
	// counted; nothing ever waits for a free place. Too small, and the server is
	// spared; too large, and the generator runs out of memory before the server fails.
	MaxInFlight int
	// MaxConns is how many connections are open at once. Requests wait for one, and
	// the wait is counted. Too small, and the run is void, for the client is the limit.
	MaxConns int
	// WarmConns is how many connections are opened, by a HEAD request each, before
	// the first step; negative: none. At most MaxConns.
	WarmConns int
	// WarmPath is what these requests ask for; any answer will do. Default "/".
	WarmPath string
	// DrainTimeout is how long the end of the run waits for what is in flight.
	DrainTimeout time.Duration
	// MaxBody is the largest answer; a longer one is an error.
	MaxBody int64
	// Failed decides whether an answer is an error. Default: a status of 400 or more.
	Failed func(*http.Response) bool

	// MaxLag is the largest honest p99 of the send lag. Default: 5 % of the SLO's p99
	// (or p95), at least [DefaultMaxLag]. Negative: lateness is not checked.
	MaxLag time.Duration
	// MaxCPU is the largest honest share of the cores that this process may use.
	// Negative: not checked.
	MaxCPU float64
	// MaxMachineCPU is the same of the whole machine, checked when the target is on
	// it. Negative: not checked.
	MaxMachineCPU float64

	// Progress is called once a second, from one goroutine.
	Progress func(Progress)

	// wait replaces the clock in tests.
	wait waiter
}

func (c Config) withDefaults() Config {
	c.Journeys = slices.Clone(c.Journeys)
	for i := range c.Journeys {
		c.Journeys[i].Weight = cmp.Or(c.Journeys[i].Weight, 1)
	}
	c.Timeout = cmp.Or(c.Timeout, DefaultTimeout)
	c.MaxInFlight = cmp.Or(c.MaxInFlight, DefaultMaxInFlight)
	c.MaxConns = cmp.Or(c.MaxConns, DefaultMaxConns)
	c.WarmConns = min(cmp.Or(c.WarmConns, DefaultWarmConns), c.MaxConns)
	c.WarmPath = cmp.Or(c.WarmPath, "/")
	c.DrainTimeout = cmp.Or(c.DrainTimeout, DefaultDrainTimeout)
	c.MaxBody = cmp.Or(c.MaxBody, DefaultMaxBody)
	c.MaxLag = cmp.Or(c.MaxLag, max(DefaultMaxLag, cmp.Or(c.SLO.P99, c.SLO.P95)/20))
	c.MaxCPU = cmp.Or(c.MaxCPU, DefaultMaxCPU)
	c.MaxMachineCPU = cmp.Or(c.MaxMachineCPU, DefaultMaxMachineCPU)
	if c.SLO.given() {
		c.SLO.MaxErrors = cmp.Or(c.SLO.MaxErrors, DefaultMaxErrors)
	}
	if c.Failed == nil {
		c.Failed = func(r *http.Response) bool { return r.StatusCode >= 400 }
	}
	if c.wait == nil {
		c.wait = newWaiter()
	}
	return c
}

// Validate reports everything that is wrong, joined. Run and FindKnee call it.
func (c Config) Validate() error {
	errs := c.validateLimits()
	if len(c.Steps) == 0 || len(c.Steps) > maxSteps {
		errs = append(errs, fmt.Errorf("load: %d steps, want 1 to %d", len(c.Steps), maxSteps))
	}
	total := 0.0
	for i, step := range c.Steps {
		if err := step.validate(); err != nil {
			errs = append(errs, fmt.Errorf("load: step %d: %w", i+1, err))
			continue
		}
		total += step.expected(step.Duration)
	}
	if total > maxArrivals {
		errs = append(errs, fmt.Errorf("load: the steps make %.3g arrivals, more than %d", total, maxArrivals))
	}
	return errors.Join(errs...)
}

// validateLimits checks all but the steps.
func (c Config) validateLimits() []error {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf("load: "+format, args...)) }
	if err := c.validateTarget(); err != nil {
		errs = append(errs, err)
	}
	if len(c.Journeys) == 0 || len(c.Journeys) > maxJourneys {
		wrong("%d journeys, want 1 to %d", len(c.Journeys), maxJourneys)
	}
	for i, j := range c.Journeys {
		if j.Run == nil {
			wrong("journey %d (%s) has no function", i+1, j.Name)
		}
		if j.Weight < 0 || math.IsNaN(j.Weight) || math.IsInf(j.Weight, 0) {
			wrong("journey %d (%s): weight %v", i+1, j.Name, j.Weight)
		}
	}
	if c.Arrivals < Poisson || c.Arrivals > Uniform {
		wrong("unknown %v", c.Arrivals)
	}
	if c.Users < 0 || c.Users > maxUsers {
		wrong("Users %d is not within 0 and %d", c.Users, maxUsers)
	}
	if c.Timeout < 0 || c.Timeout > maxLatency {
		wrong("Timeout %v is not within 0 and %v", c.Timeout, maxLatency)
	}
	for _, limit := range []struct {
		name  string
		value int64
	}{
		{"MaxInFlight", int64(c.MaxInFlight)},
		{"MaxConns", int64(c.MaxConns)},
		{"DrainTimeout", int64(c.DrainTimeout)},
		{"MaxBody", c.MaxBody},
		{"SLO.P95", int64(c.SLO.P95)},
		{"SLO.P99", int64(c.SLO.P99)},
	} {
		if limit.value < 0 {
			wrong("%s is negative", limit.name)
		}
	}
	for name, share := range map[string]float64{
		"MaxCPU": c.MaxCPU, "MaxMachineCPU": c.MaxMachineCPU, "SLO.MaxErrors": c.SLO.MaxErrors,
	} {
		if !(share <= 1) {
			wrong("%s is %v, a share is at most 1", name, share)
		}
	}
	if limit := max(c.SLO.P95, c.SLO.P99); limit > cmp.Or(c.Timeout, DefaultTimeout) {
		wrong("the SLO's %v is beyond the time-out: no request could miss it", limit)
	}
	return errs
}

func (c Config) validateTarget() error {
	if c.Target == "" {
		return nil
	}
	u, err := url.Parse(c.Target)
	switch {
	case err != nil:
		return fmt.Errorf("load: target: %w", err)
	case (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "":
		return fmt.Errorf("load: target %q is not an http URL with a host", c.Target)
	case !c.allowed(u.Hostname()) && !local(u.Hostname()):
		return fmt.Errorf("load: target %s: %w", u.Hostname(), ErrRemote)
	}
	return nil
}

// ErrRemote is the refusal to put load on a host that is not this machine and was
// not named in [Config.AllowRemote].
var ErrRemote = errors.New("load: not a loopback address, and not in AllowRemote")

func (c Config) allowed(host string) bool {
	return slices.ContainsFunc(c.AllowRemote, func(name string) bool { return strings.EqualFold(name, host) })
}

// local reports whether a host may be on this machine, as far as its name tells;
// what it resolves to is checked when dialling.
func local(host string) bool {
	ip := net.ParseIP(host)
	return strings.EqualFold(host, "localhost") || (ip != nil && ip.IsLoopback())
}
