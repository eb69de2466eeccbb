package jwtauth_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/loadlinehq/loadline/realtime"
	"github.com/loadlinehq/loadline/realtime/jwtauth"
)

func Example() {
	secret := []byte(strings.Repeat("s", 32))
	token, err := jwtauth.New(jwtauth.Config{Secrets: [][]byte{secret}, Tenant: "org"})
	if err != nil {
		panic(err)
	}
	signed, _ := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{"sub": "42", "org": "acme", "exp": time.Now().Add(time.Hour).Unix()}).SignedString(secret)
	who, err := token(context.Background(), signed)
	fmt.Println(who.User, who.Tenant, err)
	// Output: 42 acme <nil>
}

func TestTokens(t *testing.T) {
	t.Parallel()
	secret, older := []byte(strings.Repeat("s", 32)), []byte(strings.Repeat("o", 32))
	take, err := jwtauth.New(jwtauth.Config{Secrets: [][]byte{secret, older}, Issuer: "shop", Audience: "realtime", Tenant: "org", Info: "name"})
	if err != nil {
		t.Fatal(err)
	}
	later := time.Now().Add(time.Hour).Unix()
	good := func(change func(c jwt.MapClaims)) jwt.MapClaims {
		c := jwt.MapClaims{"sub": "42", "iss": "shop", "aud": "realtime", "org": "acme", "exp": later, "name": map[string]any{"first": "Ann"}}
		change(c)
		return c
	}
	sign := func(method jwt.SigningMethod, key any, c jwt.MapClaims) string {
		text, err := jwt.NewWithClaims(method, c).SignedString(key)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	same := func(jwt.MapClaims) {}
	for name, c := range map[string]struct {
		token string
		want  error
	}{
		"good":              {sign(jwt.SigningMethodHS256, secret, good(same)), nil},
		"by the older one":  {sign(jwt.SigningMethodHS256, older, good(same)), nil},
		"another secret":    {sign(jwt.SigningMethodHS256, []byte(strings.Repeat("x", 32)), good(same)), realtime.ErrUnauthenticated},
		"another algorithm": {sign(jwt.SigningMethodHS512, secret, good(same)), realtime.ErrUnauthenticated},
		"none":              {sign(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, good(same)), realtime.ErrUnauthenticated},
		"expired":           {sign(jwt.SigningMethodHS256, secret, good(func(c jwt.MapClaims) { c["exp"] = time.Now().Add(-time.Minute).Unix() })), realtime.ErrExpired},
		"expired, forged":   {sign(jwt.SigningMethodHS256, []byte(strings.Repeat("x", 32)), good(func(c jwt.MapClaims) { c["exp"] = 1 })), realtime.ErrUnauthenticated},
		"for ever":          {sign(jwt.SigningMethodHS256, secret, good(func(c jwt.MapClaims) { delete(c, "exp") })), realtime.ErrUnauthenticated},
		"nobody":            {sign(jwt.SigningMethodHS256, secret, good(func(c jwt.MapClaims) { delete(c, "sub") })), realtime.ErrUnauthenticated},
		"another audience":  {sign(jwt.SigningMethodHS256, secret, good(func(c jwt.MapClaims) { c["aud"] = "api" })), realtime.ErrUnauthenticated},
		"another issuer":    {sign(jwt.SigningMethodHS256, secret, good(func(c jwt.MapClaims) { c["iss"] = "x" })), realtime.ErrUnauthenticated},
		"no tenant":         {sign(jwt.SigningMethodHS256, secret, good(func(c jwt.MapClaims) { c["org"] = 7 })), realtime.ErrUnauthenticated},
		"nonsense":          {"a.b.c", realtime.ErrUnauthenticated},
	} {
		who, err := take(t.Context(), c.token)
		if !errors.Is(err, c.want) || c.want == nil && err != nil {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
		if c.want == nil && (who.User != "42" || who.Tenant != "acme" || who.Expires.Unix() != later || string(who.Info) != `{"first":"Ann"}`) {
			t.Errorf("%s: %+v", name, who)
		}
	}
}

func TestPublicKeys(t *testing.T) {
	t.Parallel()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	take, err := jwtauth.New(jwtauth.Config{Keys: func(*jwt.Token) (any, error) { return &key.PublicKey, nil }})
	if err != nil {
		t.Fatal(err)
	}
	claims := jwt.MapClaims{"sub": "42", "exp": time.Now().Add(time.Hour).Unix()}
	signed, err := jwt.NewWithClaims(jwt.SigningMethodES256, claims).SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	if who, err := take(t.Context(), signed); err != nil || who.User != "42" {
		t.Errorf("%+v, %v", who, err)
	}
	// While keys cannot be had, nobody is sent away for good; who has a key that there is not, is.
	for _, want := range []error{errors.New("the server of keys is away"), realtime.ErrUnauthenticated} {
		take, err := jwtauth.New(jwtauth.Config{Keys: func(*jwt.Token) (any, error) { return nil, want }})
		if err != nil {
			t.Fatal(err)
		}
		if _, err = take(t.Context(), signed); !errors.Is(err, want) || errors.Is(err, realtime.ErrUnauthenticated) != (want == realtime.ErrUnauthenticated) {
			t.Errorf("%v, want %v", err, want)
		}
	}
	for _, c := range []jwtauth.Config{{}, {Secrets: [][]byte{[]byte("short")}}, {Secrets: [][]byte{make([]byte, 32)}, Keys: func(*jwt.Token) (any, error) { return nil, nil }}} {
		if _, err := jwtauth.New(c); err == nil {
			t.Errorf("%+v is taken", c)
		}
	}
}
