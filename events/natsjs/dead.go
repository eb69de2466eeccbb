package natsjs

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/loadlinehq/loadline/events"
)

// Headers of dead letters, beside those of the event.
const (
	HeaderDeadReason       = "Loadline-Dead-Reason"   // an [events.Reason]
	HeaderDeadError        = "Loadline-Dead-Error"    // its first 1 kB, on one line
	HeaderDeadAttempts     = "Loadline-Dead-Attempts" // deliveries
	HeaderDeadGroup        = "Loadline-Dead-Group"
	HeaderDeadHandler      = "Loadline-Dead-Handler" // version of the program
	HeaderDeadTime         = "Loadline-Dead-Time"    // RFC 3339
	HeaderDeadSubscription = "Loadline-Dead-Subscription"
	HeaderDeadSubject      = "Loadline-Dead-Subject" // where it was published
	HeaderDeadStream       = "Loadline-Dead-Stream"
	HeaderDeadSequence     = "Loadline-Dead-Sequence" // in the stream
	HeaderDeadMessageID    = "Loadline-Dead-Message-Id"
)

const (
	// maxDeadValue keeps the headers far below the server's 64 kB.
	maxDeadValue = 1024
	// roomForReasons is what a message must leave of the server's limit: all values above,
	// at their longest, take 3.5 kB.
	roomForReasons = 4096
)

// bury stores a delivery among the dead letters. Its ID is of the subscription and the
// message: when settling it fails afterwards, it is buried again, and the server finds the
// duplicate.
func (d *Driver) bury(ctx context.Context, m *delivery, letter events.DeadLetter) error {
	subscription := Durable(m.name)
	sequence := strconv.FormatUint(m.meta.Sequence.Stream, 10)
	header := make(nats.Header, len(m.raw.Header)+16)
	for name, value := range m.raw.Header {
		header[name] = []string{value}
	}
	for name, value := range map[string]string{
		jetstream.MsgIDHeader:  subscription + ":" + sequence,
		HeaderDeadReason:       string(letter.Reason),
		HeaderDeadError:        letter.Error,
		HeaderDeadAttempts:     strconv.Itoa(letter.Attempts),
		HeaderDeadGroup:        letter.Group,
		HeaderDeadHandler:      letter.Handler,
		HeaderDeadTime:         letter.Time.UTC().Format(time.RFC3339Nano),
		HeaderDeadSubscription: m.name,
		HeaderDeadSubject:      m.subject,
		HeaderDeadStream:       m.meta.Stream,
		HeaderDeadSequence:     sequence,
		HeaderDeadMessageID:    m.raw.ID,
	} {
		if value = headerSafe(value, maxDeadValue); value != "" {
			header[name] = []string{value}
		}
	}
	typ := m.raw.Type
	if !isType(typ) {
		typ = "unknown"
	}
	message := &nats.Msg{Subject: d.dead + subscription + "." + typ, Header: header, Data: m.raw.Body}
	if err := d.publisher.exchange(ctx, []*nats.Msg{message}, nil)[0]; err != nil {
		return fmt.Errorf("natsjs: dead letter: %w", err)
	}
	return nil
}

// headerSafe returns the beginning of a text as a header's value: on one line, and what is
// not ASCII as a question mark.
func headerSafe(text string, most int) string {
	var b strings.Builder
	for _, c := range text {
		if b.Len() >= most {
			break
		}
		switch {
		case c == '\n' || c == '\t' || c == '\r':
			b.WriteString(" ")
		case c < ' ' || c > '~' || c == utf8.RuneError:
			b.WriteByte('?')
		default:
			b.WriteRune(c)
		}
	}
	return strings.TrimSpace(b.String())
}
