package faultproxy

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/time/rate"
)

// Kind is what a fault does.
type Kind string

const (
	// Latency delays what is sent, and the making of connections, each way.
	Latency Kind = "latency"
	// Bandwidth limits the bytes per second, each way, of all connections together.
	Bandwidth Kind = "bandwidth"
	// Stall keeps connections open, accepts new ones, and passes nothing on. What was
	// sent meanwhile arrives when it ends, as after a partition.
	Stall Kind = "stall"
	// Cut is Stall in one direction.
	Cut Kind = "cut"
	// Reset resets the open connections, and new ones when they are made.
	Reset Kind = "reset"
	// Refuse refuses new connections. Open ones go on.
	Refuse Kind = "refuse"
)

// Direction is where bytes go.
type Direction string

const (
	Both     Direction = ""
	ToServer Direction = "to-server"
	ToClient Direction = "to-client"
)

// Bounds of a fault.
const (
	MaxDelay          = time.Hour
	MaxBytesPerSecond = 100 << 30
	// MaxFaults is how many a proxy may have at a time.
	MaxFaults = 32
)

// Fault is one thing that happens to connections. Several go together: delays add up,
// and of limits the lowest counts.
type Fault struct {
	Kind Kind
	// Direction limits Latency and Bandwidth to one direction. Cut needs it.
	Direction Direction
	// Delay is Latency's; each is longer or shorter by at most Jitter.
	Delay, Jitter time.Duration
	// BytesPerSecond is Bandwidth's.
	BytesPerSecond int64
}

// Validate reports everything that is wrong with the fault.
func (f Fault) Validate() error {
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	switch f.Kind {
	case Latency:
		if f.Delay <= 0 || f.Delay > MaxDelay {
			fail("delay: %s is not between 0 and %s", f.Delay, MaxDelay)
		}
		if f.Jitter < 0 || f.Jitter > f.Delay {
			fail("jitter: %s is not between 0 and the delay, %s", f.Jitter, f.Delay)
		}
	case Bandwidth:
		if f.BytesPerSecond < 1 || f.BytesPerSecond > MaxBytesPerSecond {
			fail("bytes per second: %d is not between 1 and %d", f.BytesPerSecond, int64(MaxBytesPerSecond))
		}
	case Cut:
		if f.Direction == Both {
			fail("direction: cut needs %s or %s; in both directions it is called %s", ToServer, ToClient, Stall)
		}
	case Stall, Reset, Refuse:
		if f.Direction != Both {
			fail("direction: %s has none", f.Kind)
		}
	default:
		fail("kind: there is no %q", f.Kind)
	}
	if f.Direction != Both && f.Direction != ToServer && f.Direction != ToClient {
		fail("direction: %q is neither %s nor %s", f.Direction, ToServer, ToClient)
	}
	if f.Kind != Latency && (f.Delay != 0 || f.Jitter != 0) {
		fail("delay and jitter: %s has none", f.Kind)
	}
	if f.Kind != Bandwidth && f.BytesPerSecond != 0 {
		fail("bytes per second: %s has none", f.Kind)
	}
	return errors.Join(errs...)
}

// way is an index of what is kept for each direction.
type way int

const (
	toServer way = iota
	toClient
)

func (d Direction) has(w way) bool {
	return d == Both || d == ToServer && w == toServer || d == ToClient && w == toClient
}

// weather is what all faults together do. It is never changed, only replaced.
type weather struct {
	delay, jitter [2]time.Duration
	limit         [2]*rate.Limiter
	stalled       [2]bool
	fair          [2]bool // nothing of the above
	reset, refuse bool
	changed       chan struct{} // closed when another has taken its place
}

// burst is what may be sent at once under a limit: a twentieth of a second's bytes, and
// not less than a packet.
func burst(bytesPerSecond int64) int {
	return int(min(max(bytesPerSecond/20, 1500), chunkSize))
}

func makeWeather(faults []namedFault) *weather {
	w := &weather{changed: make(chan struct{})}
	for _, f := range faults {
		for _, way := range []way{toServer, toClient} {
			if !f.Direction.has(way) {
				continue
			}
			switch f.Kind {
			case Latency:
				w.delay[way] += f.Delay
				w.jitter[way] += f.Jitter
			case Bandwidth:
				// Each fault has limiters of its own, which stay when others come and go.
				if w.limit[way] == nil || f.limit[way].Limit() < w.limit[way].Limit() {
					w.limit[way] = f.limit[way]
				}
			case Stall, Cut:
				w.stalled[way] = true
			}
		}
		w.reset = w.reset || f.Kind == Reset
		w.refuse = w.refuse || f.Kind == Refuse
	}
	for way := range w.fair {
		w.fair[way] = w.delay[way] == 0 && w.limit[way] == nil && !w.stalled[way]
	}
	return w
}

// namedFault is a fault as a proxy has it.
type namedFault struct {
	Fault
	id    string
	limit [2]*rate.Limiter
}

func name(id string, f Fault) namedFault {
	named := namedFault{Fault: f, id: id}
	if f.Kind == Bandwidth {
		for way := range named.limit {
			named.limit[way] = rate.NewLimiter(rate.Limit(f.BytesPerSecond), burst(f.BytesPerSecond))
		}
	}
	return named
}
