package causal

import (
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
)

const (
	// MinKeySize is that of an HMAC-SHA256 key, in bytes: a shorter one is weaker than
	// its tag (RFC 2104, section 3).
	MinKeySize = 16
	maxKeys    = 8

	// macSize cuts the tag to half of the hash (RFC 2104, section 5).
	macSize = sha256.Size / 2
)

// Keys sign tokens, and check those that come back from outside: without a check
// anyone could name a position that no replica will reach, and make each of his
// requests wait. The first key signs, all of them check: put a new one behind the old,
// then in front of it, then drop the old one.
type Keys struct{ keys [][]byte }

// NewKeys takes one to eight secrets of at least [MinKeySize] bytes.
func NewKeys(secrets ...[]byte) (Keys, error) {
	if n := len(secrets); n == 0 || n > maxKeys {
		return Keys{}, fmt.Errorf("causal: %d keys are not between 1 and %d", n, maxKeys)
	}
	var k Keys
	var errs []error
	for i, secret := range secrets {
		if len(secret) < MinKeySize {
			errs = append(errs, fmt.Errorf("causal: key %d has %d bytes, less than %d; `openssl rand 32` makes one", i+1, len(secret), MinKeySize))
		}
		k.keys = append(k.keys, slices.Clone(secret))
	}
	if err := errors.Join(errs...); err != nil {
		return Keys{}, err
	}
	return k, nil
}

// IsZero reports whether there is no key.
func (k Keys) IsZero() bool { return len(k.keys) == 0 }

// String says how many keys there are, and shows none: a configuration gets logged.
func (k Keys) String() string { return fmt.Sprintf("causal.Keys(%d)", len(k.keys)) }

// GoString is [Keys.String].
func (k Keys) GoString() string { return k.String() }

// Sign needs a key, and returns the token's text with its signature: text "." base64url(tag), where
// tag is the first 16 bytes of HMAC-SHA256(key, "causal-token." text). The zero token
// has the empty text.
func (k Keys) Sign(t Token) string {
	if t.IsZero() {
		return ""
	}
	text, _ := t.MarshalText()
	tag := k.tag(0, text)
	return string(encoding.AppendEncode(append(text, '.'), tag))
}

// Verify reads what [Keys.Sign] has made. Its errors are [ErrToken].
func (k Keys) Verify(signed string) (Token, error) {
	if signed == "" {
		return Token{}, nil
	}
	if len(signed) > MaxSize {
		return Token{}, fmt.Errorf("%w: %d bytes are more than %d", ErrToken, len(signed), MaxSize)
	}
	text, signature, ok := strings.Cut(signed, ".")
	if !ok || text == "" {
		return Token{}, fmt.Errorf("%w: it has no signature", ErrToken)
	}
	tag, err := decodeText(signature)
	if err != nil || len(tag) != macSize {
		return Token{}, fmt.Errorf("%w: its signature has not the right form", ErrToken)
	}
	for i := range k.keys {
		if hmac.Equal(tag, k.tag(i, []byte(text))) {
			return Parse(text)
		}
	}
	return Token{}, fmt.Errorf("%w: its signature is not by one of our keys", ErrToken)
}

func (k Keys) tag(i int, text []byte) []byte {
	mac := hmac.New(sha256.New, k.keys[i])
	// A key that signs other things, too, does not make a token of them.
	mac.Write([]byte("causal-token."))
	mac.Write(text)
	return mac.Sum(nil)[:macSize]
}
