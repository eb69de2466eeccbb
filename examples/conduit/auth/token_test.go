package auth

import (
	"encoding/base64"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

var secret = strings.Repeat("s", MinSecretBytes)

func newTestTokens(t *testing.T, secret string, now time.Time) *Tokens {
	t.Helper()
	tokens, err := newTokens(secret, func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	return tokens
}

func TestToken(t *testing.T) {
	t.Parallel()
	now := time.Now()
	token, err := newTestTokens(t, secret, now).Issue(42)
	if err != nil {
		t.Fatal(err)
	}
	header, claims, signature := split(token)

	sign := func(method jwt.SigningMethod, key any, c jwt.RegisteredClaims) string {
		token, err := jwt.NewWithClaims(method, c).SignedString(key)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	later := jwt.NewNumericDate(now.Add(time.Hour))
	raw := base64.RawURLEncoding.EncodeToString

	for _, test := range []struct {
		name  string
		token string
		now   time.Time
		want  int64 // 0 for ErrBadToken
	}{
		{"good", token, now, 42},
		{"just before its end", token, now.Add(TokenLifetime - 2*time.Second), 42},
		{"expired", token, now.Add(TokenLifetime), 0},
		{"empty", "", now, 0},
		{"garbage", "garbage", now, 0},
		{"other claims", header + "." + raw([]byte(`{"sub":"1","exp":99999999999}`)) + "." + signature, now, 0},
		{"other signature", header + "." + claims + "." + raw(make([]byte, 32)), now, 0},
		{"no signature", header + "." + claims + ".", now, 0},
		{"other secret", sign(jwt.SigningMethodHS256, []byte(strings.Repeat("x", 32)), jwt.RegisteredClaims{Subject: "42", ExpiresAt: later}), now, 0},
		{"algorithm none", sign(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, jwt.RegisteredClaims{Subject: "42", ExpiresAt: later}), now, 0},
		{"other algorithm", sign(jwt.SigningMethodHS512, []byte(secret), jwt.RegisteredClaims{Subject: "42", ExpiresAt: later}), now, 0},
		{"never expires", sign(jwt.SigningMethodHS256, []byte(secret), jwt.RegisteredClaims{Subject: "42"}), now, 0},
		{"no subject", sign(jwt.SigningMethodHS256, []byte(secret), jwt.RegisteredClaims{ExpiresAt: later}), now, 0},
		{"anonymous subject", sign(jwt.SigningMethodHS256, []byte(secret), jwt.RegisteredClaims{Subject: "0", ExpiresAt: later}), now, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got, err := newTestTokens(t, secret, test.now).Check(test.token)
			if got != test.want || errors.Is(err, ErrBadToken) != (test.want == 0) {
				t.Errorf("Check = %d, %v, want %d", got, err, test.want)
			}
		})
	}
}

func TestShortSecret(t *testing.T) {
	t.Parallel()
	if _, err := NewTokens(secret[1:]); err == nil || !strings.Contains(err.Error(), "openssl rand") {
		t.Errorf("NewTokens: %v", err)
	}
}

func split(token string) (header, claims, signature string) {
	parts := strings.Split(token, ".")
	return parts[0], parts[1], parts[2]
}
