package natsjs

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/loadlinehq/loadline/events"
)

// What is said to the server about a message (ADR-13 of nats-architecture-and-design).
const (
	sayAck      = "+ACK"
	sayNak      = "-NAK" // with a delay: {"delay": nanoseconds}
	sayTerm     = "+TERM"
	sayProgress = "+WPI"
)

// delivery is an [events.Delivery].
type delivery struct {
	d       *Driver
	name    string // of the subscription
	subject string
	reply   string // where the server listens
	meta    *nats.MsgMetadata
	raw     events.Raw
	heard   atomic.Int64 // when the server has got the last sign of life, in nanoseconds since the driver began

	mu      sync.Mutex // one word to the server after the other
	settled bool
}

func (d *Driver) delivery(name string, m *nats.Msg) (*delivery, error) {
	meta, err := m.Metadata()
	if err != nil {
		return nil, err
	}
	typ, partition := d.address(m.Subject)
	raw := events.Raw{ID: m.Header.Get(jetstream.MsgIDHeader), Type: typ, Partition: partition, Header: make(map[string]string, len(m.Header)), Body: m.Data}
	for name, values := range m.Header {
		if len(values) > 0 && !strings.HasPrefix(name, "Nats-") { // those are the server's
			raw.Header[name] = values[0]
		}
	}
	got := &delivery{d: d, name: name, subject: m.Subject, reply: m.Reply, meta: meta, raw: raw}
	got.heard.Store(int64(time.Since(d.began)))
	return got, nil
}

// silent is how long ago the server has got the last sign of life; not at all, when it is settled.
func (d *delivery) silent() time.Duration {
	d.mu.Lock()
	settled := d.settled
	d.mu.Unlock()
	if settled {
		return 0
	}
	return time.Since(d.d.began) - time.Duration(d.heard.Load())
}

func (d *delivery) Raw() events.Raw { return d.raw }
func (d *delivery) Attempt() int    { return int(d.meta.NumDelivered) }

func (d *delivery) say(word string) error {
	return unavailable(d.d.conn.Publish(d.reply, []byte(word)))
}

// settle says what becomes of the message, once.
func (d *delivery) settle(ctx context.Context, word string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.settled {
		return nil
	}
	if err := d.say(word); err != nil {
		return err
	}
	d.settled = true
	return nil
}

func (d *delivery) Ack(ctx context.Context) error { return d.settle(ctx, sayAck) }

func (d *delivery) Retry(ctx context.Context, after time.Duration) error {
	word := sayNak
	if after > 0 {
		word = fmt.Sprintf(`%s {"delay": %d}`, sayNak, after.Nanoseconds())
	}
	return d.settle(ctx, word)
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
	if err := d.say(sayProgress); err != nil {
		return err
	}
	d.heard.Store(int64(time.Since(d.d.began)))
	return nil
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
	return d.settle(ctx, sayTerm+" "+string(letter.Reason))
}
