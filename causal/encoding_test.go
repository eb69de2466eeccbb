package causal_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/loadlinehq/loadline/causal"
)

func newKeys(t testing.TB, secrets ...string) causal.Keys {
	t.Helper()
	var all [][]byte
	for _, secret := range secrets {
		all = append(all, []byte(secret))
	}
	keys, err := causal.NewKeys(all...)
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

const (
	secret      = "0123456789abcdef0123456789abcdef"
	otherSecret = "fedcba9876543210fedcba9876543210"
)

// largest is the token with the longest text.
func largest() causal.Token {
	token := causal.Unknown()
	for i := range uint64(causal.MaxMarks) {
		token = token.Add(causal.Mark{System: ^i, Timeline: ^uint32(0), LSN: ^causal.LSN(0), Epoch: ^uint64(0), Number: ^uint64(0)})
	}
	return token
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	keys := newKeys(t, secret)
	tokens := drawToken(causal.MaxMarks)
	check := func(t interface{ Errorf(string, ...any) }, token causal.Token) {
		if got, err := causal.Parse(token.String()); err != nil || !got.Equal(token) {
			t.Errorf("parsed %q: %v, %v", token, got, err)
		}
		signed := keys.Sign(token)
		if got, err := keys.Verify(signed); err != nil || !got.Equal(token) {
			t.Errorf("verified %q: %v, %v", signed, got, err)
		}
		if len(signed) > causal.MaxSize {
			t.Errorf("%d bytes", len(signed))
		}
		var unmarshalled causal.Token
		if err := unmarshalled.UnmarshalText([]byte(token.String())); err != nil || !unmarshalled.Equal(token) {
			t.Errorf("unmarshalled %q: %v, %v", token, unmarshalled, err)
		}
	}
	rapid.Check(t, func(t *rapid.T) { check(t, tokens.Draw(t, "token")) })
	for _, token := range []causal.Token{{}, causal.Unknown(), largest()} {
		check(t, token)
	}
}

func TestKeys(t *testing.T) {
	t.Parallel()
	token := causal.NewToken(causal.Mark{System: 1, Timeline: 1, LSN: 1})
	older, newer := newKeys(t, otherSecret), newKeys(t, secret, otherSecret)
	if _, err := newer.Verify(older.Sign(token)); err != nil {
		t.Errorf("the second key does not check: %v", err)
	}
	if _, err := older.Verify(newer.Sign(token)); !errors.Is(err, causal.ErrToken) {
		t.Errorf("a key that is not ours checks: %v", err)
	}
	for _, secrets := range [][][]byte{nil, {[]byte("short")}, {[]byte(secret), []byte("short")}, make([][]byte, 9)} {
		if keys, err := causal.NewKeys(secrets...); err == nil || !keys.IsZero() {
			t.Errorf("%d secrets were taken: %v", len(secrets), err)
		}
	}
	if _, err := (causal.Keys{}).Verify(newer.Sign(token)); !errors.Is(err, causal.ErrToken) {
		t.Errorf("no key checks: %v", err)
	}
}

func TestKeysAreNotPrinted(t *testing.T) {
	t.Parallel()
	keys := newKeys(t, secret)
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%x"} {
		for _, value := range []any{keys, struct{ Keys causal.Keys }{keys}} {
			text := fmt.Sprintf(format, value)
			if strings.Contains(text, secret) || strings.Contains(text, "30 31") || strings.Contains(text, "48 49") || strings.Contains(text, "0x30") || strings.Contains(text, "303132") {
				t.Errorf("%s shows the secret: %s", format, text)
			}
		}
	}
}

func TestLSN(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"0/0", "16/B374D848", "FFFFFFFF/FFFFFFFF"} {
		if lsn, err := causal.ParseLSN(text); err != nil || lsn.String() != text {
			t.Errorf("%s: %v, %v", text, lsn, err)
		}
	}
	for _, text := range []string{"", "/", "1/", "/1", "1", "100000000/0", "0/100000000", "-1/0", "0x1/0", "1/2/3", "1 /2", "000000001/0"} {
		if lsn, err := causal.ParseLSN(text); err == nil {
			t.Errorf("%q is %v", text, lsn)
		}
	}
}

func seed(f *testing.F) {
	f.Helper()
	for _, token := range []causal.Token{{}, causal.Unknown(), largest(), causal.NewToken(causal.Mark{System: 7, Timeline: 1, LSN: 300, Epoch: 1, Number: 2})} {
		f.Add(token.String())
	}
	f.Add("AQAA")
	f.Add("AQ\nEA")
	f.Add(strings.Repeat("A", causal.MaxSize+1))
}

func FuzzParse(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, text string) {
		token, err := causal.Parse(text)
		if err != nil {
			if !errors.Is(err, causal.ErrToken) || !token.IsZero() {
				t.Errorf("%v with %v", err, token)
			}
			return
		}
		if token.String() != text {
			t.Errorf("%q was taken, its token is %q", text, token)
		}
		if len(text) > causal.MaxSize {
			t.Errorf("%d bytes were taken", len(text))
		}
	})
}

func FuzzVerify(f *testing.F) {
	seed(f)
	keys := newKeys(f, secret)
	for _, token := range []causal.Token{causal.Unknown(), largest()} {
		f.Add(keys.Sign(token))
		f.Add(keys.Sign(token) + "\n")
	}
	f.Fuzz(func(t *testing.T, signed string) {
		token, err := keys.Verify(signed)
		if err != nil {
			if !errors.Is(err, causal.ErrToken) || !token.IsZero() {
				t.Errorf("%v with %v", err, token)
			}
			return
		}
		if keys.Sign(token) != signed {
			t.Errorf("%q was taken, its token is signed as %q", signed, keys.Sign(token))
		}
	})
}

// Any other byte in any place must be noticed.
func TestVerifyNoticesEachByte(t *testing.T) {
	t.Parallel()
	keys := newKeys(t, secret)
	signed := []byte(keys.Sign(causal.NewToken(causal.Mark{System: 7, Timeline: 1, LSN: 300})))
	for i := range signed {
		for _, b := range []byte("A.\n=") {
			changed := bytes.Clone(signed)
			if changed[i] == b {
				continue
			}
			changed[i] = b
			if _, err := keys.Verify(string(changed)); !errors.Is(err, causal.ErrToken) {
				t.Errorf("byte %d as %q: %v", i, b, err)
			}
			inserted := append(append(bytes.Clone(signed[:i]), b), signed[i:]...)
			if _, err := keys.Verify(string(inserted)); !errors.Is(err, causal.ErrToken) {
				t.Errorf("%q before byte %d: %v", b, i, err)
			}
		}
	}
}
