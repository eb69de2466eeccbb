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
	ctx, cancel := context.WithCancel(ctx)
	f := newFeed(d, s.Name, want.AckWait)
	var delivering sync.WaitGroup
	delivering.Go(func() { f.run(ctx, deliver) })
	delivering.Go(func() { f.signs(ctx) })
	defer func() {
		cancel()
		f.giveBack()
		delivering.Wait()
		if d.conn.Status() == nats.CONNECTED {
			_ = d.conn.FlushTimeout(time.Second)
		}
	}()
	log := d.log.With("subscription", s.Name)
	delay, away, made := retryFirst, false, false
	for {
		for f.isHanging() && ctx.Err() == nil {
			select {
			case <-f.went:
			case <-ctx.Done():
			}
		}
		err := d.pull(ctx, f, want, max(1, min(s.Prefetch, want.MaxAckPending)), func() {
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
		case errors.Is(err, errHangs):
			continue
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
