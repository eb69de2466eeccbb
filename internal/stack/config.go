package stack

import (
	"cmp"
	"errors"
	"fmt"
)

const (
	// DefaultDir is where a stack keeps data, logs and its state.
	DefaultDir = ".loadline"
	// MaxReplicas is bounded by the port layout and by max_wal_senders.
	MaxReplicas = 8
	// MaxInstances is bounded by the port layout.
	MaxInstances = 30
	// AnyPortBase asks for a range of free ports instead of a fixed one.
	AnyPortBase = -1
	// DefaultPortBase puts the application at http://127.0.0.1:8080.
	DefaultPortBase = 8080
)

// Config says which servers to start, and where. The zero value is a primary
// without replicas, Redis and NATS, with data under [DefaultDir] and ports from
// [DefaultPortBase].
type Config struct {
	// Dir holds data, logs and state. It is created when missing, and refused
	// when others' data is in its place; two stacks cannot share one. Default [DefaultDir].
	Dir string

	// PortBase is the application's port; the status page has the next one, the
	// servers those above (see [Ports]). Default [DefaultPortBase];
	// [AnyPortBase] takes a free range.
	PortBase int

	// Replicas is the number of streaming replicas, at most [MaxReplicas].
	Replicas int

	// DisableSync lets PostgreSQL run without fsync: commits are several times
	// faster and survive the death of any process, but not of the machine. For
	// tests whose data is thrown away.
	DisableSync bool

	// NATSCommand is the command line that runs [RunNATS] in a child process.
	// The loadline binary runs itself. Required.
	NATSCommand []string

	// Notify is told what happens to each service, from several goroutines; it
	// must not block. Default: nobody is told.
	Notify func(Event)
}

func (c Config) withDefaults() (Config, error) {
	c.Dir = cmp.Or(c.Dir, DefaultDir)
	c.PortBase = cmp.Or(c.PortBase, DefaultPortBase)
	if c.Notify == nil {
		c.Notify = func(Event) {}
	}
	var errs []error
	if c.Replicas < 0 || c.Replicas > MaxReplicas {
		errs = append(errs, fmt.Errorf("replicas: %d is not between 0 and %d", c.Replicas, MaxReplicas))
	}
	if c.PortBase != AnyPortBase && (c.PortBase < 1 || c.PortBase > 65535-portSpan) {
		errs = append(errs, fmt.Errorf("port base: %d is not between 1 and %d", c.PortBase, 65535-portSpan))
	}
	if len(c.NATSCommand) == 0 {
		errs = append(errs, errors.New("NATS command: is missing"))
	}
	if err := errors.Join(errs...); err != nil {
		return c, fmt.Errorf("stack: bad configuration: %w", err)
	}
	dir, err := resolve(c.Dir)
	if err != nil {
		return c, fmt.Errorf("stack: data directory %s: %w", c.Dir, err)
	}
	c.Dir = dir
	return c, nil
}

// State is where a service is in its life.
type State string

const (
	Starting State = "starting"
	Ready    State = "ready"
	Exited   State = "exited" // it ended without having been asked to
	Stopped  State = "stopped"
)

// Event is a change in a service's state.
type Event struct {
	Service Service
	// Err says how the process ended; only with [Exited].
	Err error
}

// Service is one server or instance of the stack.
type Service struct {
	Name  string `json:"name"` // primary, replica-1, redis, nats, app-1
	Role  string `json:"role"` // primary, replica, redis, nats, app
	PID   int    `json:"pid"`
	Addr  string `json:"addr"` // what clients dial
	State State  `json:"state"`
	Log   string `json:"log"`
	// StartID tells this process from a later one with the same number.
	StartID string `json:"start_id,omitempty"`
}
