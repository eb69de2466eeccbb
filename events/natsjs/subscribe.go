package natsjs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/loadlinehq/loadline/events"
)

const (
	// minPull keeps a request waiting at the server while the one message that may be in
	// flight is handled.
	minPull = 8
	// The pauses before a broken subscription is made anew.
	minPause, maxPause = 100 * time.Millisecond, 5 * time.Second
	// pullHeartbeat is after how long without a word, times two, a pull is given up.
	pullHeartbeat = 5 * time.Second
	pullExpiry    = 30 * time.Second
)

// Subscribe implements [events.Driver]. The consumer is made, or changed where this
// subscription differs from it: a type that a group has come to handle, for example.
func (d *Driver) Subscribe(ctx context.Context, s events.Subscription, deliver func(events.Delivery)) error {
	pause, first := minPause, true
	for ctx.Err() == nil {
		consumer, err := d.consumer(ctx, s)
		if err == nil {
			if !first {
				d.log.InfoContext(ctx, "natsjs: a subscription goes on", "subscription", s.Name)
			}
			first, pause = false, minPause
			err = d.pull(ctx, consumer, s, deliver)
		}
		if ctx.Err() != nil {
			return nil
		}
		if first && permanent(err) {
			return fmt.Errorf("natsjs: subscription %s: %w", s.Name, err)
		}
		d.log.WarnContext(ctx, "natsjs: a subscription has broken; it is made anew", "subscription", s.Name, "after", pause, "error", err)
		first = false
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, maxPause)
	}
	return nil
}

// permanent: the server has answered, and will answer the same again.
func permanent(err error) bool {
	api, ok := errors.AsType[*jetstream.APIError](err)
	return ok && api.Code < 500
}

func (d *Driver) consumer(ctx context.Context, s events.Subscription) (jetstream.Consumer, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	want := jetstream.ConsumerConfig{
		Durable: durable(s.Name), AckPolicy: jetstream.AckExplicitPolicy, DeliverPolicy: jetstream.DeliverAllPolicy,
		AckWait: s.AckWait, MaxDeliver: s.MaxDeliveries, MaxAckPending: s.MaxInFlight,
		// No BackOff: its first delay would silently take the place of AckWait.
	}
	for _, f := range s.Filters {
		want.FilterSubjects = append(want.FilterSubjects, d.subject(f.Type, f.Partition))
	}
	slices.Sort(want.FilterSubjects)
	consumer, err := d.js.Consumer(ctx, d.eventsName(), want.Durable)
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		return d.js.CreateConsumer(ctx, d.eventsName(), want)
	}
	if err != nil {
		return nil, err
	}
	have := consumer.CachedInfo().Config
	filters := have.FilterSubjects
	if have.FilterSubject != "" {
		filters = []string{have.FilterSubject}
	}
	slices.Sort(filters)
	same := slices.Equal(filters, want.FilterSubjects) && have.AckWait == want.AckWait && have.MaxDeliver == want.MaxDeliver &&
		have.MaxAckPending == want.MaxAckPending && have.AckPolicy == want.AckPolicy && len(have.BackOff) == 0
	if same {
		return consumer, nil
	}
	d.log.InfoContext(ctx, "natsjs: a consumer is changed", "consumer", want.Durable, "subjects", strings.Join(want.FilterSubjects, " "))
	have.FilterSubject, have.FilterSubjects = "", want.FilterSubjects
	have.AckPolicy, have.AckWait, have.MaxDeliver, have.MaxAckPending, have.BackOff = want.AckPolicy, want.AckWait, want.MaxDeliver, want.MaxAckPending, nil
	return d.js.UpdateConsumer(ctx, d.eventsName(), have)
}

// pull delivers until ctx is done, or the subscription breaks.
func (d *Driver) pull(ctx context.Context, consumer jetstream.Consumer, s events.Subscription, deliver func(events.Delivery)) error {
	messages, err := consumer.Messages(jetstream.PullMaxMessages(pullSize(s)), jetstream.PullExpiry(pullExpiry), jetstream.PullHeartbeat(pullHeartbeat))
	if err != nil {
		return err
	}
	// What has come and was not begun with is given back, and not kept until AckWait is over.
	stop := context.AfterFunc(ctx, messages.Drain)
	defer func() {
		if stop() {
			messages.Stop()
		}
	}()
	for {
		m, err := messages.Next()
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			_ = m.Nak() // or it comes after AckWait
			continue
		}
		delivery, err := d.delivery(m, s.Name)
		if err != nil {
			d.log.WarnContext(ctx, "natsjs: a message that is none of a stream", "subject", m.Subject(), "error", err)
			continue
		}
		deliver(delivery)
	}
}

// pullSize is how many messages may have come to this member.
func pullSize(s events.Subscription) int {
	if s.MaxInFlight == 1 {
		return minPull
	}
	return max(s.Prefetch, 1)
}
