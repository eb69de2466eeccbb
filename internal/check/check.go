package check

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"
)

// DefaultTimeout is for a server at the other end of a continent that is busy: a guess.
const DefaultTimeout = 5 * time.Second

// Level is what a finding means.
type Level string

const (
	OK      Level = "ok"
	Note    Level = "note"    // good to know; nothing has to be done
	Warning Level = "warning" // it works, until it does not
	Failed  Level = "failed"  // an application does not work with it
)

// Finding is the result of one check.
type Finding struct {
	Check string `json:"check"`
	Level Level  `json:"level"`
	Found string `json:"found"`
	Do    string `json:"do,omitempty"` // what to do about it
}

// Server is what was found of one server.
type Server struct {
	Name     string    `json:"name"` // primary, replica-1, redis, nats
	Address  string    `json:"address"`
	Findings []Finding `json:"findings"`
	ByHand   string    `json:"byHand"` // a command that asks the server a little of this; empty where the address is none
}

func (s *Server) add(check string, level Level, found, do string) {
	s.Findings = append(s.Findings, Finding{Check: check, Level: level, Found: found, Do: do})
}

// Tables are those of a package: the version that its newest migration has.
type Tables struct {
	Name    string // of the package: outbox
	Version int64
}

// Stream is one that an application needs in JetStream.
type Stream struct {
	Name     string
	MaxBytes int64 // that it sets aside when it is made
}

// Config says where the servers are, and what will be asked of them. What has no address is
// left out.
type Config struct {
	// Primary is the connection string of PostgreSQL's primary, and Replicas are those of
	// its streaming replicas.
	Primary  string
	Replicas []string
	// Redis is redis://user:password@host:port/0.
	Redis string
	// NATS is nats://host:port, or several with commas between them. NATSOptions are those of
	// the connection.
	NATS        string
	NATSOptions []nats.Option
	// NATSFlags are the options as the nats program has them, for Server.ByHand.
	NATSFlags []string

	// Instances of the application, and the connections that each opens at most to the
	// primary and to each replica. Default: none, and connections are not counted.
	Instances               int
	PoolConns, ReplicaConns int
	// LagLimit is from where on a replica is not read from. Default: none.
	LagLimit time.Duration
	// Tables should be in the primary's database.
	Tables []Tables
	// Streams should be in JetStream, or have room there.
	Streams []Stream

	// Timeout bounds what is asked of one server. Default [DefaultTimeout].
	Timeout time.Duration
	// Redact hides passwords in errors and commands. Default: nothing is hidden.
	Redact func(string) string
}

// Run asks all servers at once and returns what it has found, in the order of the
// configuration. When ctx is done it returns soon, with findings that mean nothing.
func Run(ctx context.Context, c Config) []Server {
	if c.Timeout <= 0 {
		c.Timeout = DefaultTimeout
	}
	if c.Redact == nil {
		c.Redact = func(s string) string { return s }
	}
	var databases []*postgres
	if c.Primary != "" {
		databases = append(databases, &postgres{url: c.Primary, server: Server{Name: "primary"}})
	}
	for i, url := range c.Replicas {
		databases = append(databases, &postgres{url: url, replica: true, server: Server{Name: fmt.Sprintf("replica-%d", i+1)}})
	}
	var all []*Server
	var running sync.WaitGroup
	start := func(s *Server, do func(context.Context)) {
		all = append(all, s)
		running.Go(func() {
			ctx, cancel := context.WithTimeoutCause(ctx, c.Timeout, errSilent)
			defer cancel()
			do(ctx)
		})
	}
	answered := make(chan struct{}) // by the primary, or not at all
	for _, p := range databases {
		start(&p.server, func(ctx context.Context) {
			if !p.replica {
				defer close(answered)
				p.ask(ctx, c, nil)
				return
			}
			p.ask(ctx, c, func(ctx context.Context, conn *pgx.Conn) error {
				if c.Primary == "" {
					return nil
				}
				select {
				case <-answered:
					return p.catchUp(ctx, conn, databases[0].said)
				case <-ctx.Done():
					return nil // what is known is enough
				}
			})
		})
	}
	if c.Redis != "" {
		s := &Server{Name: "redis"}
		start(s, func(ctx context.Context) { checkRedis(ctx, c, s) })
	}
	if c.NATS != "" {
		s := &Server{Name: "nats"}
		start(s, func(ctx context.Context) { checkNATS(ctx, c, s) })
	}
	running.Wait()
	// What a replica is to be compared with, the primary has said by now.
	for _, p := range databases {
		p.judge(c, databases)
	}
	found := make([]Server, len(all))
	for i, s := range all {
		found[i] = *s
	}
	return found
}

// errSilent ends what is asked of a server that does not answer.
var errSilent = errors.New("no answer")

// unreachable is the finding of a server that cannot be asked.
func (s *Server) unreachable(ctx context.Context, c Config, err error) {
	found, do := explain(ctx, err)
	if errors.Is(context.Cause(ctx), errSilent) {
		found = fmt.Sprintf("no answer within %v", c.Timeout)
	}
	s.add("reachable", Failed, c.Redact(found), do)
}
