// Package jwtauth knows the clients of package realtime by a JWT (RFC 7519) that the application has given them: its subject is the user, a claim of
// your choice the tenant, and when it expires the client is asked for a newer one.
//
//	token, err := jwtauth.New(jwtauth.Config{Secrets: [][]byte{secret}, Audience: "realtime"})
//	realtime.Open(ctx, realtime.Config{Token: token, …})
package jwtauth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/loadlinehq/loadline/realtime"
)

// MinSecretBytes is the length of the hash, by RFC 7518, section 3.2.
const MinSecretBytes = 32

// Config says which tokens are taken. One of Secrets and Keys must be there.
type Config struct {
	// Secrets are of tokens by HS256; any of them will do, so that one can be replaced by the next.
	Secrets [][]byte
	// Keys finds the public key of a token, from a JWKS, say, and Methods are what it may be signed by. Default methods ES256, EdDSA, RS256. Its
	// errors say that nobody can be known now, and clients come back, unless they wrap [realtime.ErrUnauthenticated]: a key that there is not.
	Keys    jwt.Keyfunc
	Methods []string
	// Issuer and Audience are asked for if they are set: a token that was made for something else should not open this.
	Issuer, Audience string
	// Tenant is the claim that has it. Default: there are no tenants.
	Tenant string
	// Info is the claim that is shown to those who may see the presence. Default none.
	Info string
	// Leeway is how far clocks may differ. Default none.
	Leeway time.Duration
}

// New returns a function for [realtime.Config.Token]. A token must expire.
func New(c Config) (func(ctx context.Context, token string) (realtime.Identity, error), error) {
	methods, find := c.Methods, c.Keys
	switch {
	case len(c.Secrets) == 0 && c.Keys == nil:
		return nil, errors.New("jwtauth: Config.Secrets and Keys are missing: one of them says who signs tokens")
	case len(c.Secrets) > 0 && c.Keys != nil:
		return nil, errors.New("jwtauth: Config has Secrets and Keys: a public key could be taken for a secret")
	case c.Keys == nil:
		methods = []string{jwt.SigningMethodHS256.Alg()}
		set := jwt.VerificationKeySet{}
		for i, secret := range c.Secrets {
			if len(secret) < MinSecretBytes {
				return nil, fmt.Errorf("jwtauth: Config.Secrets[%d] has %d bytes, and needs %d: make one with `openssl rand -base64 32`", i, len(secret), MinSecretBytes)
			}
			set.Keys = append(set.Keys, secret)
		}
		find = func(*jwt.Token) (any, error) { return set, nil }
	case len(methods) == 0:
		methods = []string{jwt.SigningMethodES256.Alg(), jwt.SigningMethodEdDSA.Alg(), jwt.SigningMethodRS256.Alg()}
	}
	options := []jwt.ParserOption{jwt.WithValidMethods(methods), jwt.WithExpirationRequired(), jwt.WithLeeway(c.Leeway)}
	if c.Issuer != "" {
		options = append(options, jwt.WithIssuer(c.Issuer))
	}
	if c.Audience != "" {
		options = append(options, jwt.WithAudience(c.Audience))
	}
	parser := jwt.NewParser(options...)
	return func(_ context.Context, text string) (realtime.Identity, error) {
		var claims jwt.MapClaims
		var away error
		_, err := parser.ParseWithClaims(text, &claims, func(t *jwt.Token) (any, error) {
			key, err := find(t)
			away = err
			return key, err
		})
		switch {
		case away != nil:
			return realtime.Identity{}, fmt.Errorf("jwtauth: the key of a token: %w", away)
		case errors.Is(err, jwt.ErrTokenSignatureInvalid), errors.Is(err, jwt.ErrTokenUnverifiable):
			return realtime.Identity{}, fmt.Errorf("%w: %w", realtime.ErrUnauthenticated, err)
		case errors.Is(err, jwt.ErrTokenExpired):
			return realtime.Identity{}, fmt.Errorf("%w: %w", realtime.ErrExpired, err)
		case err != nil:
			return realtime.Identity{}, fmt.Errorf("%w: %w", realtime.ErrUnauthenticated, err)
		}
		return c.identity(claims)
	}, nil
}

func (c *Config) identity(claims jwt.MapClaims) (who realtime.Identity, err error) {
	who.User, err = claims.GetSubject()
	expires, err2 := claims.GetExpirationTime()
	if err := errors.Join(err, err2); err != nil || who.User == "" || expires == nil {
		return realtime.Identity{}, fmt.Errorf("%w: the token has no subject (%v)", realtime.ErrUnauthenticated, err)
	}
	who.Expires = expires.Time
	if c.Tenant != "" {
		var ok bool
		if who.Tenant, ok = claims[c.Tenant].(string); !ok || who.Tenant == "" {
			return realtime.Identity{}, fmt.Errorf("%w: the token has no claim %q with a tenant", realtime.ErrUnauthenticated, c.Tenant)
		}
	}
	if info, ok := claims[c.Info]; ok && c.Info != "" {
		if who.Info, err = json.Marshal(info); err != nil {
			return realtime.Identity{}, fmt.Errorf("%w: %w", realtime.ErrUnauthenticated, err)
		}
	}
	return who, nil
}
