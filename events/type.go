package events

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
)

// V1 is the first version of a type.
const V1 = "v1"

// Type is a type of event, at one version, with the Go type of its payload. It is made
// by [Define], usually into a variable of a package that writers and readers share, and does
// not change.
type Type[T any] struct {
	name, version string
	key           func(T) string
	older         map[string]func(json.RawMessage) (T, error)
}

// TypeOption is an option of [Define].
type TypeOption[T any] func(*Type[T])

// KeyedBy keeps events with the same key in order. All versions of a type are keyed, or
// none.
func KeyedBy[T any](key func(T) string) TypeOption[T] {
	return func(t *Type[T]) { t.key = key }
}

// Upcast makes readers of the new version understand the old one. Versions live side by
// side: writers may send either.
func Upcast[Old, T any](old Type[Old], f func(Old) T) TypeOption[T] {
	return func(t *Type[T]) {
		if old.name != t.name {
			panic(fmt.Sprintf("events: %s is no older version of %s", old.name, t.name))
		}
		if t.older == nil {
			t.older = make(map[string]func(json.RawMessage) (T, error))
		}
		add := func(version string, decode func(json.RawMessage) (Old, error)) {
			t.older[version] = func(payload json.RawMessage) (T, error) {
				value, err := decode(payload)
				if err != nil {
					var zero T
					return zero, err
				}
				return f(value), nil
			}
		}
		add(old.version, decodeJSON[Old])
		for version, decode := range old.older { // what the old one understands
			add(version, decode)
		}
	}
}

// Define defines a type of event. The name is like article.published, what has happened
// in the past tense, and the version like v1. It panics at names that cannot be, as
// regexp.MustCompile does.
func Define[T any](name, version string, options ...TypeOption[T]) Type[T] {
	if err := errors.Join(checkName("type", name), checkName("version", version)); err != nil {
		panic(err)
	}
	t := Type[T]{name: name, version: version}
	for _, option := range options {
		option(&t)
	}
	return t
}

// Name is like article.published.
func (t Type[T]) Name() string { return t.name }

// Version is like v1.
func (t Type[T]) Version() string { return t.version }

// Keyed reports whether its events have keys.
func (t Type[T]) Keyed() bool { return t.key != nil }

// MessageOption is an option of [Type.New].
type MessageOption func(*Message)

// IdempotencyKey names what has happened, also where several events tell of it: a handler
// can pass it to a third party, or have it in a unique column of its effect. Package inbox goes
// by the event's ID.
func IdempotencyKey(key string) MessageOption { return func(m *Message) { m.IdempotencyKey = key } }

// KeyVersion counts the events of a key.
func KeyVersion(n int64) MessageOption { return func(m *Message) { m.KeyVersion = n } }

// At says when it happened, if that was not now.
func At(at time.Time) MessageOption { return func(m *Message) { m.Time = at } }

// New makes an event. Its error is that the payload has no JSON, or an [ErrMessage].
func (t Type[T]) New(payload T, options ...MessageOption) (Message, error) {
	encoded, err := json.Marshal(payload)
	if err != nil {
		return Message{}, fmt.Errorf("events: %s: %w", t.name, err)
	}
	id, err := uuid.NewV7()
	if err != nil {
		return Message{}, fmt.Errorf("events: %w", err)
	}
	m := Message{ID: id.String(), Type: t.name, Version: t.version, Time: time.Now().UTC().Truncate(time.Microsecond), Payload: encoded}
	if t.key != nil {
		if m.Key = t.key(payload); m.Key == "" {
			return Message{}, fmt.Errorf("%w: a %s has no key, and its type is keyed", ErrMessage, t.name)
		}
	}
	for _, option := range options {
		option(&m)
	}
	if m.IdempotencyKey == "" {
		m.IdempotencyKey = m.ID
	}
	if err := m.Check(); err != nil {
		return Message{}, err
	}
	return m, nil
}

// decode returns the payload of a message, whichever version it has.
func (t Type[T]) decode(m *Message) (T, error) {
	var zero T
	if m.Version == t.version {
		value, err := decodeJSON[T](m.Payload)
		if err != nil {
			return zero, &deadError{ReasonUndecodable, fmt.Errorf("%s %s: %w", m.Type, m.Version, err)}
		}
		return value, nil
	}
	older, ok := t.older[m.Version]
	if !ok {
		return zero, &deadError{ReasonUnknownVersion, fmt.Errorf("%s has version %s, and this handler knows %s", m.Type, m.Version, t.version)}
	}
	value, err := older(m.Payload)
	if err != nil {
		return zero, &deadError{ReasonUndecodable, fmt.Errorf("%s %s: %w", m.Type, m.Version, err)}
	}
	return value, nil
}

// decodeJSON passes over fields that it does not know: writers may add some.
func decodeJSON[T any](payload json.RawMessage) (T, error) {
	var value T
	decoder := json.NewDecoder(bytes.NewReader(payload))
	if err := decoder.Decode(&value); err != nil {
		return value, err
	}
	return value, nil
}
