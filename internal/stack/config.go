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
	// DefaultLogMaxBytes is a guess: days of an idle stack, minutes of one that
	// logs every statement.
	DefaultLogMaxBytes = 10 << 20
	// MinLogMaxBytes keeps the end of a log that an error message quotes.
	MinLogMaxBytes = 64 << 10
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

	// PortBase is the application's port; the admin port is the next one, the
	// servers those above (see [Ports]). Default [DefaultPortBase];
	// [AnyPortBase] takes a free range.
	PortBase int

	// Replicas is the number of streaming replicas, at most [MaxReplicas].
	Replicas int

	// DisableSync lets PostgreSQL run without fsync: commits are several times
	// faster and survive the death of any process, but not of the machine. For
	// tests whose data is thrown away.
	DisableSync bool

	// SyncNATS has NATS write each message to the disk before it is acknowledged
	// (sync_interval: always); otherwise it does so every two minutes, and what it has
	// acknowledged since dies with the machine. Each message that is published takes a
	// write to the disk then, unless many come in one atomic batch.
	SyncNATS bool

	// Restart has a process that dies started again, after a delay that grows from
	// 0.1 to 10 s while it goes on dying. When false its death is reported, and
	// [Stack.RemoveFault] or a new start of the stack brings it back.
	Restart bool

	// LogMaxBytes is the size at which a service's log is cut and what it held kept
	// as NAME.log.1, of which there are at most three. Default
	// [DefaultLogMaxBytes], at least [MinLogMaxBytes]. When it is small, what led to a failure
	// may be gone; it bounds the disk that logs take to four times as much per service.
	LogMaxBytes int64

	// NATSCommand is the command line of a program that calls [ServeNATS], with nats-server
	// as its last word. The loadline binary runs itself. Required.
	NATSCommand []string

	// Notify is told what happens to each service, from several goroutines; it
	// must not block. Default: nobody is told.
	Notify func(Event)
}

func (c Config) withDefaults() (Config, error) {
	c.Dir = cmp.Or(c.Dir, DefaultDir)
	c.PortBase = cmp.Or(c.PortBase, DefaultPortBase)
	c.LogMaxBytes = cmp.Or(c.LogMaxBytes, DefaultLogMaxBytes)
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
	if c.LogMaxBytes < MinLogMaxBytes {
		errs = append(errs, fmt.Errorf("log size: %d bytes is less than %d", c.LogMaxBytes, MinLogMaxBytes))
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

// Event is a change in a service's state, or a fault that was added or removed.
type Event struct {
	Service Service
	// Err says how the process ended, or why it could not be started; only with
	// [Exited].
	Err error
	// Fault is set when a fault was added, or, with its Phase [FaultRemoved], removed.
	Fault *ActiveFault
	// Note is set when the stack itself has changed something about the service.
	Note string
}

// Service is one server or instance of the stack.
type Service struct {
	// Name stays with the server: primary, replica-1, redis, nats, app-1.
	Name string `json:"name"`
	// Role is what it does now: primary, replica, redis, nats, app. A promotion
	// changes it.
	Role   string `json:"role"`
	PID    int    `json:"pid"`
	Addr   string `json:"addr"`            // what clients dial: its fault proxy
	Direct string `json:"direct"`          // where the process listens, behind the proxy
	Admin  string `json:"admin,omitempty"` // where an instance may serve its metrics
	State  State  `json:"state"`
	Log    string `json:"log"`
	// StartID tells this process from a later one with the same number.
	StartID string `json:"start_id,omitempty"`
}
