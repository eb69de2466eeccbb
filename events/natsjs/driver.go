package natsjs

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.opentelemetry.io/otel/metric"

	"github.com/loadlinehq/loadline/events"
)

const (
	connectTimeout = 2 * time.Second
	// maxPending is how many publications may wait for their acknowledgement.
	maxPending = 4096
)

// Driver is an [events.Driver]. It may be used by several goroutines.
type Driver struct {
	c     Config
	log   *slog.Logger
	conn  *nats.Conn
	owned bool
	js    jetstream.JetStream

	stream  jetstream.Stream
	metrics metric.Registration

	mu    sync.Mutex
	stats stats
}

var _ events.Driver = (*Driver)(nil)

// Open connects, and makes the streams or checks them. It fails if the server cannot be
// reached before ctx is done, or if a stream is there and differs ([DriftError]).
func Open(ctx context.Context, c Config) (*Driver, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	c = c.withDefaults()
	d := &Driver{c: c, log: c.Logger, conn: c.Conn}
	if d.conn == nil {
		conn, err := nats.Connect(c.URL, append(d.options(), c.Options...)...)
		if err != nil {
			return nil, fmt.Errorf("natsjs: connect: %w", err)
		}
		d.conn, d.owned = conn, true
	}
	js, err := jetstream.New(d.conn, jetstream.WithPublishAsyncMaxPending(maxPending))
	if err != nil {
		d.Close()
		return nil, fmt.Errorf("natsjs: %w", err)
	}
	d.js = js
	if err := d.prepare(ctx); err != nil {
		d.Close()
		return nil, err
	}
	if err := d.observe(); err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

func (d *Driver) options() []nats.Option {
	return []nats.Option{
		nats.Name("loadline events"),
		nats.Timeout(connectTimeout),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(250 * time.Millisecond),
		nats.ReconnectJitter(250*time.Millisecond, 250*time.Millisecond),
		// What is published while the server is away must fail, and not wait in memory.
		nats.ReconnectBufSize(-1),
		nats.PingInterval(5 * time.Second), // a silent server is given up after three
		nats.MaxPingsOutstanding(2),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				d.log.Warn("natsjs: disconnected; reconnecting", "error", err)
			}
		}),
		nats.ReconnectHandler(func(conn *nats.Conn) {
			d.log.Info("natsjs: connected again", "server", conn.ConnectedUrlRedacted())
		}),
		nats.ErrorHandler(func(_ *nats.Conn, s *nats.Subscription, err error) {
			subject := ""
			if s != nil {
				subject = s.Subject
			}
			d.log.Warn("natsjs: the connection has a problem", "subject", subject, "error", err)
		}),
	}
}

// Close ends the connection, if it is the driver's own. Subscriptions must have ended.
func (d *Driver) Close() {
	if d.metrics != nil {
		if err := d.metrics.Unregister(); err != nil {
			d.log.Warn("natsjs: metrics", "error", err)
		}
	}
	if d.owned && d.conn != nil {
		d.conn.Close()
	}
}

// Capabilities implements [events.Driver].
func (d *Driver) Capabilities() events.Capabilities {
	return events.Capabilities{Name: "natsjs", DelayedRetry: true, PerMessageAck: true, BrokerDedupe: true, Ordered: true, Replay: true}
}

// subject is where a type's messages go.
func (d *Driver) subject(name string, partition int) string {
	subject := d.c.SubjectPrefix + "events." + name
	if partition >= 0 {
		subject += fmt.Sprintf(".P%02d", partition)
	}
	return subject
}

// parse is the reverse of subject.
func (d *Driver) parse(subject string) (name string, partition int) {
	name = strings.TrimPrefix(subject, d.c.SubjectPrefix+"events.")
	if i := strings.LastIndex(name, ".P"); i >= 0 {
		if p, err := strconv.Atoi(name[i+2:]); err == nil {
			return name[:i], p
		}
	}
	return name, -1
}

func (d *Driver) deadSubject(subscription, name string) string {
	return d.c.SubjectPrefix + "dead." + durable(subscription) + "." + name
}

// durable is a subscription's name as the server takes it: without dots. No name has an
// equals sign.
func durable(name string) string { return strings.ReplaceAll(name, ".", "=") }

func (d *Driver) eventsName() string   { return d.c.StreamPrefix + "EVENTS" }
func (d *Driver) deadName() string     { return d.c.StreamPrefix + "DEAD" }
func (d *Driver) advisoryName() string { return d.c.StreamPrefix + "ADVISORIES" }
