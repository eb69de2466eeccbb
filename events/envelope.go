package events

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/loadlinehq/loadline/causal"
)

// Names of headers. Those that begin with ce- are CloudEvents 1.0 in binary mode, by its
// NATS protocol binding: values are percent-encoded, and datacontenttype is a ce- header.
const (
	headerSpecVersion     = "ce-specversion"
	headerID              = "ce-id"
	headerSource          = "ce-source"
	headerType            = "ce-type"
	headerTime            = "ce-time"
	headerSubject         = "ce-subject" // the key
	headerPartitionKey    = "ce-partitionkey"
	headerDataSchema      = "ce-dataschema"
	headerDataContentType = "ce-datacontenttype"
	headerTenant          = "ce-tenant"
	headerKeyVersion      = "ce-keyversion"
	headerOutbox          = "ce-outbox"
	headerIdempotencyKey  = "Idempotency-Key"
	headerToken           = causal.HeaderName // unsigned: who writes to the broker is trusted
	headerTraceParent     = "traceparent"
	headerTraceState      = "tracestate"
)

// envelope is the body.
type envelope struct {
	Type           string          `json:"type"`
	Payload        json.RawMessage `json:"payload"`
	IdempotencyKey string          `json:"idempotencyKey"`
	Timestamp      time.Time       `json:"timestamp"`
	Version        string          `json:"version"`
}

// Encode writes a message as it travels. Source says who writes it, as CloudEvents has
// it: a URI reference such as /conduit. Its error is an [ErrMessage].
func Encode(m *Message, source string) (Raw, error) {
	if err := m.Check(); err != nil {
		return Raw{}, err
	}
	body, err := json.Marshal(envelope{m.Type, m.Payload, m.IdempotencyKey, m.Time.UTC(), m.Version})
	if err != nil {
		return Raw{}, fmt.Errorf("%w: %w", ErrMessage, err)
	}
	header := map[string]string{
		headerSpecVersion:     "1.0",
		headerID:              escape(m.ID),
		headerSource:          escape(source),
		headerType:            m.Type,
		headerTime:            m.Time.UTC().Format(time.RFC3339Nano),
		headerDataContentType: "application/json",
		headerDataSchema:      "urn:event:" + m.Type + ":" + m.Version,
		headerIdempotencyKey:  escape(m.IdempotencyKey),
	}
	set := func(name, value string) {
		if value != "" {
			header[name] = value
		}
	}
	set(headerSubject, escape(m.Key))
	set(headerPartitionKey, escape(m.Key))
	set(headerTenant, m.Tenant)
	set(headerTraceParent, escape(m.TraceParent))
	set(headerTraceState, escape(m.TraceState))
	set(headerOutbox, escape(m.Outbox))
	if m.KeyVersion != 0 {
		header[headerKeyVersion] = strconv.FormatInt(m.KeyVersion, 10)
	}
	if !m.Token.IsZero() {
		text, err := m.Token.MarshalText()
		if err != nil {
			return Raw{}, fmt.Errorf("%w: %w", ErrMessage, err)
		}
		header[headerToken] = string(text)
	}
	return Raw{ID: m.ID, Type: m.Type, Partition: Partition(m.Key), Header: header, Body: body}, nil
}

// Decode reads what [Encode] has written, or another by the same rules. What is missing in
// the headers is taken from the body, so that a plain publisher of the body is understood;
// its events have no ID of their own, and the idempotency key stands for it. A token that
// is none is as one that is incomplete. Its error is an [ErrMessage], and says what is wrong.
func Decode(raw Raw) (Message, error) {
	var e envelope
	if err := json.Unmarshal(raw.Body, &e); err != nil {
		return Message{}, fmt.Errorf("%w: its body is not the envelope: %w", ErrMessage, err)
	}
	header := make(map[string]string, len(raw.Header))
	for name, value := range raw.Header { // brokers differ in what they make of letters
		header[strings.ToLower(name)] = value
	}
	get := func(name string) string { return unescape(header[strings.ToLower(name)]) }
	m := Message{
		ID: get(headerID), Type: e.Type, Version: e.Version,
		Key: get(headerPartitionKey), IdempotencyKey: e.IdempotencyKey, Tenant: get(headerTenant), Outbox: get(headerOutbox),
		Time: e.Timestamp, TraceParent: get(headerTraceParent), TraceState: get(headerTraceState),
		Payload: e.Payload,
	}
	var errs []error
	if version := get(headerSpecVersion); version != "" && version != "1.0" {
		errs = append(errs, fmt.Errorf("%w: CloudEvents %.20q is not 1.0", ErrMessage, version))
	}
	if t := get(headerType); t != "" && t != m.Type {
		errs = append(errs, fmt.Errorf("%w: its header says %.40q and its body %.40q", ErrMessage, t, m.Type))
	}
	if raw.Type != "" && raw.Type != m.Type {
		errs = append(errs, fmt.Errorf("%w: it came as %.40q and is a %.40q", ErrMessage, raw.Type, m.Type))
	}
	if m.ID == "" {
		m.ID = m.IdempotencyKey
	}
	if m.IdempotencyKey == "" {
		m.IdempotencyKey = m.ID
	}
	if text := get(headerKeyVersion); text != "" {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			errs = append(errs, fmt.Errorf("%w: its key version is %.20q", ErrMessage, text))
		}
		m.KeyVersion = n
	}
	if text := get(headerToken); text != "" {
		token, err := causal.Parse(text)
		if err != nil {
			token = causal.Unknown()
		}
		m.Token = token
	}
	if err := errors.Join(append(errs, m.Check())...); err != nil {
		return m, err
	}
	return m, nil
}

// escape percent-encodes as the CloudEvents HTTP binding does, section 3.1.3.2: what is
// not printable ASCII, the space, the double quote and the percent sign.
func escape(s string) string {
	clean := true
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c > '~' || c == '"' || c == '%' {
			clean = false
			break
		}
	}
	if clean {
		return s
	}
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c > '~' || c == '"' || c == '%' {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// unescape leaves alone what is no encoding.
func unescape(s string) string {
	if !strings.Contains(s, "%") {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+3], 16, 8); err == nil {
				b.WriteByte(byte(n))
				i += 2
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
