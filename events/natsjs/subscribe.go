package natsjs

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/loadlinehq/loadline/events"
)

const (
	pullExpiry = 30 * time.Second // nats.go's own
	// heartbeat is how often an idle server says that a request for messages is still
	// there; two that are missing, and the request is made again. A guess: it bounds how
	// long a subscription sleeps after the server has forgotten it.
	heartbeat = 2 * time.Second
	// drainLimit is how long a feed may take to give back what it holds, beside what is
	// being delivered.
	drainLimit = 2 * time.Second

	retryFirst = 50 * time.Millisecond
	retryLast  = time.Second
)

// Subscribe delivers messages until ctx is done; see [events.Driver]. What this member holds
// then and has not delivered goes to others at once. When the server is away it waits, for
// ever, and goes on. Its errors are a [*DriftError], [ErrClosed], and what the server says
// about a subscription that it does not make.
func (d *Driver) Subscribe(ctx context.Context, s events.Subscription, deliver func(events.Delivery)) error {
	want, err := d.consumerConfig(s)
	if err != nil {
		return err
	}
	f := &feed{d: d, ctx: ctx, name: s.Name, deliver: deliver}
	log := d.log.With("subscription", s.Name)
	delay, away, made := retryFirst, false, false
	for {
		err := f.run(ctx, want, max(1, min(s.Prefetch, want.MaxAckPending)), func() {
			if away {
				log.InfoContext(ctx, "natsjs: the subscription goes on")
			}
			delay, away, made = retryFirst, false, true
		})
		switch {
		case ctx.Err() != nil:
			return nil
		case d.isClosed():
			return fmt.Errorf("natsjs: subscription %s: %w", s.Name, ErrClosed)
		case err != nil && !passing(err) && !(made && errors.Is(err, jetstream.ErrStreamNotFound)):
			return fmt.Errorf("natsjs: subscription %s: %w", s.Name, err)
		}
		if !away {
			away = true
			log.WarnContext(ctx, "natsjs: the subscription is interrupted; it goes on when the server is back", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-d.closed:
		case <-time.After(delay):
		}
		delay = min(2*delay, retryLast)
	}
}

func (d *Driver) isClosed() bool {
	select {
	case <-d.closed:
		return true
	default:
		return d.conn.IsClosed()
	}
}

// feed is one Subscribe.
type feed struct {
	d       *Driver
	ctx     context.Context // of Subscribe
	name    string
	deliver func(events.Delivery)

	mu    sync.Mutex // held while a message is delivered: one after the other
	ended bool
}

// run has the server send messages until ctx is done, or something is wrong.
func (f *feed) run(ctx context.Context, want jetstream.ConsumerConfig, prefetch int, began func()) error {
	consumer, err := f.d.prepareConsumer(ctx, want)
	if err != nil {
		return err
	}
	trouble := make(chan error, 1)
	// Not Messages: its channel is as long as the prefetch, and while nobody reads, the
	// server's heartbeats fill it until messages are dropped.
	consuming, err := consumer.Consume(f.got,
		jetstream.PullMaxMessages(prefetch), jetstream.PullExpiry(pullExpiry), jetstream.PullHeartbeat(heartbeat),
		jetstream.ConsumeErrHandler(func(_ jetstream.ConsumeContext, err error) {
			select {
			case trouble <- err:
			default:
			}
		}))
	if err != nil {
		return err
	}
	began()
	defer f.end(consuming)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-f.d.closed:
			return ErrClosed
		case <-consuming.Closed():
			return errInterrupted(nil)
		case err := <-trouble:
			if errors.Is(err, jetstream.ErrConsumerLeadershipChanged) {
				continue // it has asked the new one already
			}
			return errInterrupted(err)
		}
	}
}

// errInterrupted is an error that passes.
func errInterrupted(cause error) error {
	return fmt.Errorf("%w: %w", jetstream.ErrNoHeartbeat, errors.Join(errors.New("natsjs: interrupted"), cause))
}

// end gives back what is held, and waits for what is being delivered.
func (f *feed) end(consuming jetstream.ConsumeContext) {
	consuming.Drain()
	drained := func() bool {
		limit := time.NewTimer(drainLimit)
		defer limit.Stop()
		select {
		case <-consuming.Closed():
			return true
		case <-limit.C:
			return false
		}
	}
	if f.d.conn.Status() == nats.CONNECTED && !drained() && !f.idle() {
		// A message was being delivered, and what is behind it had to wait.
		drained()
	}
	if f.ctx.Err() == nil {
		return // what is left is delivered, before what comes next
	}
	f.mu.Lock()
	f.ended = true
	f.mu.Unlock()
	if f.d.conn.Status() == nats.CONNECTED {
		_ = f.d.conn.FlushTimeout(time.Second)
	}
}

// idle waits until nothing is being delivered, and reports whether it was so already.
func (f *feed) idle() bool {
	already := f.mu.TryLock()
	if !already {
		f.mu.Lock()
	}
	defer f.mu.Unlock()
	return already
}

func (f *feed) got(m jetstream.Msg) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ended || f.ctx.Err() != nil {
		_ = m.Nak() // if it does not arrive, AckWait does
		return
	}
	delivery, err := f.d.delivery(f.name, m)
	if err != nil {
		f.d.log.ErrorContext(f.ctx, "natsjs: a message is none of JetStream's", "subject", m.Subject(), "error", err)
		return
	}
	f.deliver(delivery)
}
