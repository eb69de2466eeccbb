package events

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.opentelemetry.io/otel/propagation"

	"github.com/loadlinehq/loadline/causal"
	"github.com/loadlinehq/loadline/tenancy"
)

// Bounds of a message. A broker may have lower ones.
const (
	// MaxTypeLength is that of a type's name and version, in bytes.
	MaxTypeLength = 128
	// MaxKeyLength is that of a key or an idempotency key, in bytes.
	MaxKeyLength = 256
	// MaxPayload is NATS's own default for a message, less what an envelope takes.
	MaxPayload = 1<<20 - 16<<10
)

// Message is an event, whatever its type. [Type.New] makes one.
type Message struct {
	// ID is of this event alone, and its copies: a UUID of version 7.
	ID string
	// Type and Version name what the payload is.
	Type, Version string
	// Key keeps events in order; see [KeyedBy]. Empty: no order.
	Key string
	// KeyVersion counts the events of a key, where the writer counts them: a reader can see
	// that one is missing or late. 0: not counted.
	KeyVersion int64
	// IdempotencyKey names what has happened, whoever tells of it, for handlers that go by it;
	// package inbox goes by the ID. [Type.New] takes the ID where the writer names none.
	IdempotencyKey string
	// Tenant is whose event it is; empty where there are none. [Message.From] takes it from
	// the context.
	Tenant string
	// Time is when it happened.
	Time time.Time
	// Token says what the writer had seen; a handler's reads see it as well.
	Token causal.Token
	// TraceParent and TraceState are those of the writer, by W3C Trace Context.
	TraceParent, TraceState string
	// Outbox is where it came from: a row of its writer's outbox, as package outbox names it.
	// Empty when it was published directly.
	Outbox string
	// Payload is JSON.
	Payload json.RawMessage
}

// From fills in what the context knows and the message does not: tenant, trace, and
// what the session has seen.
func (m Message) From(ctx context.Context) Message {
	if m.Tenant == "" {
		m.Tenant, _ = tenancy.FromContext(ctx)
	}
	if m.TraceParent == "" {
		carrier := propagation.MapCarrier{}
		propagation.TraceContext{}.Inject(ctx, carrier)
		m.TraceParent, m.TraceState = carrier["traceparent"], carrier["tracestate"]
	}
	if session := causal.FromContext(ctx); session != nil {
		m.Token = m.Token.Merge(session.Token())
	}
	return m
}

// ErrMessage is the error of a message that cannot be one.
var ErrMessage = errors.New("events: not a message")

// Check says all that is wrong with a message.
func (m *Message) Check() error {
	var errs []error
	wrong := func(is bool, format string, args ...any) {
		if is {
			errs = append(errs, fmt.Errorf("%w: "+format, append([]any{ErrMessage}, args...)...))
		}
	}
	wrong(m.ID == "" || len(m.ID) > MaxKeyLength || !printable(m.ID), "its id %.40q is not 1 to %d printable signs", m.ID, MaxKeyLength)
	if err := checkName("type", m.Type); err != nil {
		errs = append(errs, err)
	}
	if err := checkName("version", m.Version); err != nil {
		errs = append(errs, err)
	}
	wrong(len(m.Key) > MaxKeyLength, "its key has %d bytes, more than %d", len(m.Key), MaxKeyLength)
	wrong(len(m.IdempotencyKey) > MaxKeyLength, "its idempotency key has %d bytes, more than %d", len(m.IdempotencyKey), MaxKeyLength)
	wrong(len(m.Outbox) > MaxKeyLength, "the name of its row in the outbox has %d bytes, more than %d", len(m.Outbox), MaxKeyLength)
	wrong(m.KeyVersion < 0, "its key version is %d", m.KeyVersion)
	if m.Tenant != "" {
		if err := tenancy.Check(m.Tenant); err != nil {
			errs = append(errs, fmt.Errorf("%w: %w", ErrMessage, err))
		}
	}
	wrong(m.Time.IsZero(), "it has no time")
	wrong(len(m.Payload) > MaxPayload, "its payload has %d bytes, more than %d: store it elsewhere, and send where", len(m.Payload), MaxPayload)
	wrong(!json.Valid(m.Payload), "its payload is not JSON")
	return errors.Join(errs...)
}

// checkName: a name is a part of a subject, a header and a key, in each broker: lower
// case words with dots between them.
func checkName(what, name string) error {
	bad := name == "" || len(name) > MaxTypeLength || strings.HasPrefix(name, ".") || strings.HasSuffix(name, ".") || strings.Contains(name, "..")
	for _, c := range name {
		if !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '.' || c == '-' || c == '_') {
			bad = true
		}
	}
	if bad {
		return fmt.Errorf("%w: its %s %.40q is not of the form article.published: lower case letters, digits, - and _, with dots between words, at most %d bytes",
			ErrMessage, what, name, MaxTypeLength)
	}
	return nil
}

func printable(s string) bool {
	for _, c := range s {
		if c <= ' ' || c > '~' {
			return false
		}
	}
	return true
}
