package edge

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/google/uuid"
)

// IdempotencyKeyHeader is where a client names an attempt, so that its repetition is known for one.
const IdempotencyKeyHeader = "Idempotency-Key"

// MaxIdempotencyKey bounds a key, in bytes. 255: as Stripe's.
const MaxIdempotencyKey = 255

// RequestIDHeader names one request, in logs of all that it passes.
const RequestIDHeader = "X-Request-Id"

const maxRequestID = 64

type (
	requestIDKey struct{}
	keyKey       struct{}
)

// Key is what [Keys] has found, or made.
type Key struct {
	// Text is the key, without quotes.
	Text string
	// Given: the client has sent it. Otherwise it was made for this request, and whoever repeats the request will have
	// another: it serves those behind the edge, who may get the request's events twice, and must not be stored.
	Given bool
}

// Keys gives each request an id, for logs, and an idempotency key, for the events that it causes: the client's, or a
// UUID of version 7 (RFC 9562). A client's id is taken where it is fit to be logged; the answer has it. A key that is no key is
// answered with 400, as draft-ietf-httpapi-idempotency-key-header-07 has it.
func Keys(e Errors) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			id := r.Header.Get(RequestIDHeader)
			if !fitID(id) {
				id = newUUID()
			}
			w.Header().Set(RequestIDHeader, id)
			ctx := context.WithValue(r.Context(), requestIDKey{}, id)
			key := Key{Given: true}
			if values := r.Header.Values(IdempotencyKeyHeader); len(values) > 0 {
				var err error
				if key.Text, err = ParseIdempotencyKey(values); err != nil {
					e.Answer(w, r.WithContext(ctx), badKey(err))
					return
				}
			} else {
				key = Key{Text: newUUID()}
			}
			next.ServeHTTP(w, r.WithContext(context.WithValue(ctx, keyKey{}, key)))
		})
	}
}

func badKey(err error) error {
	return &Problem{Type: problems + "idempotency-key-bad", Status: http.StatusBadRequest, Title: "The Idempotency-Key is not a key", Detail: err.Error()}
}

// RequestID returns the id that [Keys] has given, or "".
func RequestID(ctx context.Context) string {
	id, _ := ctx.Value(requestIDKey{}).(string)
	return id
}

// KeyOf returns the key that [Keys] has found or made; its Text is empty without.
func KeyOf(ctx context.Context) Key {
	key, _ := ctx.Value(keyKey{}).(Key)
	return key
}

// ParseIdempotencyKey returns the one key of the header's values. It is a string of RFC 9651, in quotes, as the draft has it, or
// the same without, as most clients send it: both are one key.
func ParseIdempotencyKey(values []string) (string, error) {
	if len(values) != 1 {
		return "", errors.New("the header must be there once")
	}
	text := strings.Trim(values[0], " \t")
	if strings.HasPrefix(text, `"`) {
		var err error
		if text, err = unquote(text); err != nil {
			return "", err
		}
	}
	switch {
	case text == "":
		return "", errors.New("it is empty")
	case len(text) > MaxIdempotencyKey:
		return "", fmt.Errorf("it has %d bytes, more than %d", len(text), MaxIdempotencyKey)
	}
	for i := range len(text) {
		if text[i] < 0x20 || text[i] > 0x7e {
			return "", errors.New("it has characters beyond printable ASCII")
		}
	}
	return text, nil
}

// unquote is of RFC 9651, section 4.2.5, without parameters, of which the draft has none.
func unquote(text string) (string, error) {
	var b strings.Builder
	for i := 1; i < len(text); i++ {
		switch c := text[i]; c {
		case '"':
			if i+1 != len(text) {
				return "", errors.New("there is something behind its quotes")
			}
			return b.String(), nil
		case '\\':
			if i++; i == len(text) || text[i] != '"' && text[i] != '\\' {
				return "", errors.New("it has a backslash before what needs none")
			}
			b.WriteByte(text[i])
		default:
			b.WriteByte(c)
		}
	}
	return "", errors.New("its quotes do not end")
}

func newUUID() string {
	id, err := uuid.NewV7()
	if err != nil { // crypto/rand ends the program instead
		panic(err)
	}
	return id.String()
}

func fitID(id string) bool {
	if id == "" || len(id) > maxRequestID {
		return false
	}
	for i := range len(id) {
		c := id[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '.' || c == '_' || c == '-') {
			return false
		}
	}
	return true
}
