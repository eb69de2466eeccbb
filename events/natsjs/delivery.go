package natsjs

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/loadlinehq/loadline/events"
)

// Headers of a dead letter, beside the event's own.
const (
	HeaderReason       = "Loadline-Dead-Reason"
	HeaderError        = "Loadline-Dead-Error"
	HeaderAttempts     = "Loadline-Dead-Attempts"
	HeaderGroup        = "Loadline-Dead-Group"
	HeaderHandler      = "Loadline-Dead-Handler"
	HeaderTime         = "Loadline-Dead-Time"
	HeaderSubscription = "Loadline-Dead-Subscription"
	HeaderSubject      = "Loadline-Dead-Subject"
	HeaderSequence     = "Loadline-Dead-Sequence"

	// maxError bounds what is kept of an error.
	maxError = 1024
)

// delivery is an [events.Delivery].
type delivery struct {
	d            *Driver
	subscription string
	m            jetstream.Msg
	meta         *jetstream.MsgMetadata
	raw          events.Raw
}

func (d *Driver) delivery(m jetstream.Msg, subscription string) (*delivery, error) {
	meta, err := m.Metadata()
	if err != nil {
		return nil, err
	}
	name, partition := d.parse(m.Subject())
	raw := events.Raw{ID: m.Headers().Get(jetstream.MsgIDHeader), Type: name, Partition: partition, Header: make(map[string]string, len(m.Headers())), Body: m.Data()}
	for header, values := range m.Headers() {
		if len(values) > 0 && !strings.HasPrefix(header, "Nats-") { // the server's own
			raw.Header[header] = values[0]
		}
	}
	return &delivery{d, subscription, m, meta, raw}, nil
}

func (d *delivery) Raw() events.Raw { return d.raw }
func (d *delivery) Attempt() int    { return int(d.meta.NumDelivered) }

// Ack does not wait for the server: an acknowledgement that is lost is another delivery,
// which an inbox absorbs.
func (d *delivery) Ack(context.Context) error { return d.m.Ack() }

func (d *delivery) Extend(context.Context) error { return d.m.InProgress() }

func (d *delivery) Retry(_ context.Context, after time.Duration) error {
	if after <= 0 {
		return d.m.Nak()
	}
	return d.m.NakWithDelay(after)
}

// Dead stores the letter, once per subscription and message, before it gives the message
// up.
func (d *delivery) Dead(ctx context.Context, letter events.DeadLetter) error {
	m := nats.NewMsg(d.d.deadSubject(d.subscription, d.raw.Type))
	for name, value := range d.raw.Header {
		m.Header[name] = []string{value}
	}
	for name, value := range map[string]string{
		HeaderReason: string(letter.Reason), HeaderError: clean(letter.Error), HeaderAttempts: strconv.Itoa(letter.Attempts),
		HeaderGroup: letter.Group, HeaderHandler: clean(letter.Handler), HeaderTime: letter.Time.UTC().Format(time.RFC3339Nano),
		HeaderSubscription: d.subscription, HeaderSubject: d.m.Subject(), HeaderSequence: strconv.FormatUint(d.meta.Sequence.Stream, 10),
	} {
		if value != "" {
			m.Header[name] = []string{value}
		}
	}
	m.Data = d.raw.Body
	id := fmt.Sprintf("%s:%d", d.subscription, d.meta.Sequence.Stream)
	if _, err := d.d.js.PublishMsg(ctx, m, jetstream.WithMsgID(id)); err != nil {
		return fmt.Errorf("natsjs: the dead letter was not stored: %w", named(err))
	}
	return d.m.TermWithReason(string(letter.Reason))
}

// clean makes one line of a text, short enough for a header.
func clean(text string) string {
	text = strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f {
			return ' '
		}
		return c
	}, strings.ToValidUTF8(text, "?"))
	if len(text) > maxError {
		text = strings.ToValidUTF8(text[:maxError], "") + "…"
	}
	return text
}
