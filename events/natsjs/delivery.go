package natsjs

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/loadlinehq/loadline/events"
)

// delivery is an [events.Delivery].
type delivery struct {
	d    *Driver
	name string // of the subscription
	m    jetstream.Msg
	meta *jetstream.MsgMetadata
	raw  events.Raw

	mu      sync.Mutex // one word to the server after the other
	settled bool
}

func (d *Driver) delivery(name string, m jetstream.Msg) (*delivery, error) {
	meta, err := m.Metadata()
	if err != nil {
		return nil, err
	}
	typ, partition := d.address(m.Subject())
	raw := events.Raw{ID: m.Headers().Get(jetstream.MsgIDHeader), Type: typ, Partition: partition, Header: make(map[string]string, len(m.Headers())), Body: m.Data()}
	for name, values := range m.Headers() {
		if len(values) > 0 && !strings.HasPrefix(name, "Nats-") { // those are the server's
			raw.Header[name] = values[0]
		}
	}
	return &delivery{d: d, name: name, m: m, meta: meta, raw: raw}, nil
}

func (d *delivery) Raw() events.Raw { return d.raw }
func (d *delivery) Attempt() int    { return int(d.meta.NumDelivered) }

// settle says what becomes of the message, once.
func (d *delivery) settle(ctx context.Context, say func() error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.settled {
		return nil
	}
	if err := say(); err != nil {
		return unavailable(err)
	}
	d.settled = true
	return nil
}

func (d *delivery) Ack(ctx context.Context) error { return d.settle(ctx, d.m.Ack) }

func (d *delivery) Retry(ctx context.Context, after time.Duration) error {
	return d.settle(ctx, func() error {
		if after <= 0 {
			return d.m.Nak()
		}
		return d.m.NakWithDelay(after)
	})
}

// Extend does nothing to a message that is settled: the server would take it for one that
// is being worked on, and forget when it is to come back.
func (d *delivery) Extend(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.settled {
		return nil
	}
	return unavailable(d.m.InProgress())
}

func (d *delivery) Dead(ctx context.Context, letter events.DeadLetter) error {
	d.mu.Lock()
	settled := d.settled
	d.mu.Unlock()
	if settled {
		return nil
	}
	if err := d.d.bury(ctx, d, letter); err != nil {
		return err
	}
	return d.settle(ctx, func() error { return d.m.TermWithReason(string(letter.Reason)) })
}
