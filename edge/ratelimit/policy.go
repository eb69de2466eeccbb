package ratelimit

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/loadlinehq/loadline/edge"
)

// Policy is how many requests somebody may make.
type Policy struct {
	// Name is the policy's in headers, metrics and keys: letters, digits, - and _.
	Name string
	// Limit is how many requests there may be in a Window, in the long run. Default 120.
	Limit int
	// Window is default a minute.
	Window time.Duration
	// Burst is how many may come at once. Default Limit.
	Burst int
	// Key says whose request it is; "" is nobody's, and not counted.
	Key func(r *http.Request) string
	// Cost is how much a request counts. Default 1 for each; 0 or less is not counted.
	Cost func(r *http.Request) int
}

const (
	// DefaultLimit and DefaultWindow are for people; programs need policies of their own.
	DefaultLimit  = 120
	DefaultWindow = time.Minute

	maxLimit  = 1_000_000_000
	maxWindow = 24 * time.Hour
	// maxPolicies is as many as one request is looked up for: address, user, tenant, and one more.
	maxPolicies = 4
)

// ByAddress is the key of policies by edge.ClientAddress: of IPv6 the /64, which one client has for himself.
func ByAddress(r *http.Request) string {
	network := edge.ClientNetwork(edge.ClientAddr(r.Context()))
	if !network.IsValid() {
		return ""
	}
	return network.Addr().String()
}

// FromLoopback reports whether the request comes from this machine, and is nobody else's: a developer's, a load generator's, a test's. They can be
// given a policy of their own. What a proxy on this machine passes on is not, if it adds one of the usual headers: have it do so.
func FromLoopback(r *http.Request) bool {
	for _, forwarded := range []string{"X-Forwarded-For", "Forwarded", "X-Real-Ip", "Via"} {
		if len(r.Header[forwarded]) > 0 {
			return false
		}
	}
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	return err == nil && from.Addr().Unmap().IsLoopback()
}

func (p Policy) withDefaults() Policy {
	if p.Limit == 0 {
		p.Limit = DefaultLimit
	}
	if p.Window == 0 {
		p.Window = DefaultWindow
	}
	if p.Burst == 0 {
		p.Burst = p.Limit
	}
	return p
}

func (p *Policy) validate() error {
	var errs []error
	wrong := func(is bool, format string, args ...any) {
		if is {
			errs = append(errs, fmt.Errorf("ratelimit: Policy %q: "+format, append([]any{p.Name}, args...)...))
		}
	}
	wrong(p.Name == "" || strings.ContainsFunc(p.Name, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_')
	}), "Name has letters, digits, - and _")
	wrong(p.Limit < 1 || p.Limit > maxLimit, "Limit is %d, and should be 1 to %d", p.Limit, maxLimit)
	wrong(p.Window < time.Millisecond || p.Window > maxWindow, "Window is %v, and should be 1 ms to %v", p.Window, maxWindow)
	wrong(p.Burst < 1 || p.Burst > maxLimit, "Burst is %d, and should be 1 to %d", p.Burst, maxLimit)
	wrong(p.Key == nil, "Key is missing: whose request is it?")
	wrong(p.Limit > 0 && int64(p.Window/time.Microsecond) < int64(p.Limit), "%d in %v is more than one in a microsecond, which is not counted", p.Limit, p.Window)
	wrong(p.Limit > 0 && p.Window > 0 && int64(p.Burst) > int64(maxWindow/time.Microsecond)/max(1, p.interval()), "Burst is %d, which takes longer than %v to come back", p.Burst, maxWindow)
	return errors.Join(errs...)
}

// interval is the time that one request stands for, in microseconds. Rounded up: what is said is not exceeded.
func (p *Policy) interval() int64 {
	return (int64(p.Window/time.Microsecond) + int64(p.Limit) - 1) / int64(p.Limit)
}

// cell is one policy's question: the interval times the cost, and how far ahead of now a key may be.
type cell struct {
	who
	cost  int64 // microseconds
	ahead int64
	unit  int64 // interval
}

// who is a policy's key.
type who struct {
	policy int
	key    string
}

// state is what became of a cell, in microseconds.
type state struct {
	left  int64
	retry int64 // until this request would have been let in; 0: it was
	reset int64 // until there is one more; 0: all are there
	known bool
}

// after is the state of a cell whose theoretical arrival time is so far ahead.
func (c *cell) after(ahead int64) state {
	s := state{left: max(0, (c.ahead-ahead)/c.unit), known: true}
	if ahead > 0 {
		s.reset = ahead + (s.left+1)*c.unit - c.ahead
	}
	return s
}
