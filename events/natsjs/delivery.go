package natsjs

import (
	"context"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/loadlinehq/loadline/events"
)

// delivery is an [events.Delivery].
type delivery struct {
	d       *Driver
	name    string // of the subscription
	m       jetstream.Msg
	meta    *jetstream.MsgMetadata
	raw     events.Raw
	settled atomic.Bool
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
	if d.settled.Swap(true) {
		return nil
	}
	if err := say(); err != nil {
		d.settled.Store(false)
		return unavailable(err)
	}
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
	if err := ctx.Err(); err != nil || d.settled.Load() {
		return err
	}
	return unavailable(d.m.InProgress())
}

func (d *delivery) Dead(ctx context.Context, letter events.DeadLetter) error {
	if d.settled.Load() {
		return nil
	}
	if err := d.d.bury(ctx, d, letter); err != nil {
		return err
	}
	return d.settle(ctx, func() error { return d.m.TermWithReason(string(letter.Reason)) })
}
