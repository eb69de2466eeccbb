package natsjs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/loadlinehq/loadline/events"
)

const (
	// openLimit bounds Open where its context does not.
	openLimit = 30 * time.Second
	// requestLimit bounds a question to the server. 5 s is nats.go's own.
	requestLimit = 5 * time.Second
	// A server that does not answer two pings is taken for gone: nats.go's default of
	// 2 min would leave a half-open connection alone for four.
	pingInterval = 10 * time.Second
	// writeLimit ends a connection whose server takes nothing.
	writeLimit = 5 * time.Second
	closeLimit = 5 * time.Second
)

// ErrClosed: the driver, or the application's connection, has been closed.
var ErrClosed = errors.New("natsjs: closed")

// Driver is an [events.Driver] on JetStream.
type Driver struct {
	c      Config
	log    *slog.Logger
	conn   *nats.Conn
	js     jetstream.JetStream
	events string // of each subject of events, what comes first; with a dot
	dead   string // likewise of dead letters
	drift  []Drift
	began  time.Time
	failed atomic.Pointer[error] // why the last attempt to connect has

	publisher *publisher
	metrics   metrics
	status    chan nats.Status
	watching  sync.WaitGroup
	closing   sync.Once
	closed    chan struct{}
}

var _ events.Driver = (*Driver)(nil)

// Open connects, and makes the streams or checks them. It waits for a server that is away
// until ctx is done, 30 s where it has no deadline. Its errors are a [*DriftError], and what the server says.
func Open(ctx context.Context, c Config) (*Driver, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	c = c.withDefaults()
	if _, limited := ctx.Deadline(); !limited {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, openLimit)
		defer cancel()
	}
	d := &Driver{
		c: c, log: c.Logger, conn: c.Conn, closed: make(chan struct{}), began: time.Now(),
		events: c.SubjectPrefix + "events.", dead: c.SubjectPrefix + "dlq.",
	}
	var err error
	if d.metrics, err = newMetrics(c.MeterProvider, c.Stream); err != nil {
		return nil, err
	}
	if d.conn == nil {
		if d.conn, err = d.connect(); err != nil {
			return nil, fmt.Errorf("natsjs: connect: %w", err)
		}
	}
	if d.publisher, err = newPublisher(d.conn); err != nil {
		if c.Conn == nil {
			d.conn.Close()
		}
		return nil, fmt.Errorf("natsjs: %w", err)
	}
	d.status = d.conn.StatusChanged(nats.CONNECTED, nats.RECONNECTING, nats.CLOSED)
	d.watching.Go(d.watch)
	if err := d.open(ctx); err != nil {
		_ = d.Close()
		return nil, err
	}
	return d, nil
}

func (d *Driver) open(ctx context.Context) error {
	for d.conn.Status() != nats.CONNECTED {
		select {
		case <-ctx.Done():
			return fmt.Errorf("natsjs: %w: no server answers: %w", events.ErrUnavailable, errors.Join(ctx.Err(), d.whyAway()))
		case <-time.After(10 * time.Millisecond):
		}
		if d.conn.IsClosed() {
			return fmt.Errorf("natsjs: connect: %w", errors.Join(ErrClosed, d.conn.LastError()))
		}
	}
	var err error
	if d.js, err = jetstream.New(d.conn, jetstream.WithDefaultTimeout(requestLimit)); err != nil {
		return fmt.Errorf("natsjs: %w", err)
	}
	d.publisher.maxPayload.Store(d.conn.MaxPayload())
	return d.prepareStreams(ctx)
}

// whyAway is what a server has refused, or else why none was reached.
func (d *Driver) whyAway() error {
	if err := d.conn.LastError(); err != nil {
		return err
	}
	if err := d.failed.Load(); err != nil {
		return *err
	}
	return nil
}

func (d *Driver) connect() (*nats.Conn, error) {
	c := d.c
	options := append([]nats.Option{
		nats.Name(c.Name),
		nats.RetryOnFailedConnect(true),
		nats.MaxReconnects(-1),
		nats.CustomReconnectDelay(func(attempts int) time.Duration { return min(10*time.Millisecond<<min(attempts, 8), 2*time.Second) }),
		// What cannot be sent is an error for its sender, not a surprise for readers later.
		nats.ReconnectBufSize(-1),
		nats.Timeout(2 * time.Second),
		nats.PingInterval(pingInterval), nats.MaxPingsOutstanding(2),
		nats.FlusherTimeout(writeLimit),
		nats.DrainTimeout(closeLimit),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) { d.failed.Store(&err) }),
		nats.ErrorHandler(func(_ *nats.Conn, s *nats.Subscription, err error) {
			if s != nil {
				c.Logger.Warn("natsjs: an error of a subscription", "subject", s.Subject, "error", err)
			} else {
				c.Logger.Warn("natsjs: an error of the connection", "error", err)
			}
		}),
	}, c.Options...)
	return nats.Connect(c.URL, options...)
}

// watch tells of changes, and those that wait for answers that there will be none.
func (d *Driver) watch() {
	away := false
	for {
		select {
		case <-d.closed:
			return
		case s, open := <-d.status:
			switch {
			case !open || s == nats.CLOSED:
				d.publisher.connectionLost()
				return
			case s == nats.RECONNECTING && !away:
				away = true
				d.log.Warn("natsjs: the server is away; connecting again until it is back", "error", d.conn.LastError())
				d.publisher.connectionLost()
			case s == nats.RECONNECTING:
				d.publisher.connectionLost()
			case s == nats.CONNECTED && away:
				away = false
				d.log.Info("natsjs: the server is back", "url", d.conn.ConnectedUrlRedacted())
			}
		}
	}
}

// asking bounds questions to the server. The answer to one that was asked on a connection
// which is lost never comes.
func (d *Driver) asking(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	gone := d.publisher.lost()
	go func() {
		select {
		case <-gone:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

// Close ends the driver's connection, after what it has still to send, or leaves the
// application's. Subscriptions should have ended before. It may be called more than once.
func (d *Driver) Close() error {
	d.closing.Do(func() {
		close(d.closed)
		d.watching.Wait()
		d.conn.RemoveStatusListener(d.status)
		d.publisher.close()
		if d.c.Conn != nil {
			return
		}
		if d.conn.Status() == nats.CONNECTED {
			_ = d.conn.FlushTimeout(closeLimit)
		}
		d.conn.Close()
		d.publisher.writers.Wait() // what they write to is closed
	})
	return nil
}

// Capabilities says what JetStream can do.
func (d *Driver) Capabilities() events.Capabilities {
	return events.Capabilities{Name: "natsjs", DelayedRetry: true, PerMessageAck: true, BrokerDedupe: true, Ordered: true, Replay: true}
}

// Drift lists where the streams differ from what the configuration asks for, in ways that
// no guarantee depends on: others are Open's error.
func (d *Driver) Drift() []Drift { return d.drift }

// Lag is how many messages a subscription has not settled: those that wait, and those that
// its members have got.
func (d *Driver) Lag(ctx context.Context, subscription string) (int64, error) {
	consumer, err := d.js.Consumer(ctx, d.c.Stream, Durable(subscription))
	if err != nil {
		return 0, fmt.Errorf("natsjs: subscription %s: %w", subscription, unavailable(err))
	}
	info := consumer.CachedInfo() // just asked for
	return int64(info.NumPending) + int64(info.NumAckPending), nil
}
