package auth

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// MinSecretBytes is the shortest secret that Tokens accepts: RFC 7518, section
// 3.2, asks for a key as long as the hash.
const MinSecretBytes = 32

// TokenLifetime is how long a token is valid. The API has no way to renew one
// but a login, and none to withdraw it: a day is a guess between the two.
const TokenLifetime = 24 * time.Hour

// ErrBadToken means that a token is malformed, forged, expired, or not ours.
var ErrBadToken = errors.New("auth: bad token")

// Tokens issues tokens and checks them. It may be used concurrently.
type Tokens struct {
	secret []byte
	now    func() time.Time
	parser *jwt.Parser
}

// NewTokens returns Tokens signed with the secret. Whoever knows the secret
// can be any user; all instances of the server need the same one.
func NewTokens(secret string) (*Tokens, error) {
	return newTokens(secret, time.Now)
}

func newTokens(secret string, now func() time.Time) (*Tokens, error) {
	if len(secret) < MinSecretBytes {
		return nil, fmt.Errorf("auth: the secret has %d bytes and needs %d: make one with `openssl rand -base64 32`",
			len(secret), MinSecretBytes)
	}
	return &Tokens{
		secret: []byte(secret),
		now:    now,
		parser: jwt.NewParser(
			// Pinned, or a token could choose "none".
			jwt.WithValidMethods([]string{jwt.SigningMethodHS256.Alg()}),
			jwt.WithExpirationRequired(),
			jwt.WithTimeFunc(now),
		),
	}, nil
}

// Issue returns a token for the user.
func (t *Tokens) Issue(userID int64) (string, error) {
	now := t.now()
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.RegisteredClaims{
		Subject:   strconv.FormatInt(userID, 10),
		IssuedAt:  jwt.NewNumericDate(now),
		ExpiresAt: jwt.NewNumericDate(now.Add(TokenLifetime)),
	}).SignedString(t.secret)
	if err != nil {
		return "", fmt.Errorf("auth: sign token: %w", err)
	}
	return token, nil
}

// Check returns the id of the user to whom the token was issued. It returns
// ErrBadToken, with the reason wrapped, when the token does not hold.
func (t *Tokens) Check(token string) (userID int64, err error) {
	var claims jwt.RegisteredClaims
	_, err = t.parser.ParseWithClaims(token, &claims, func(*jwt.Token) (any, error) { return t.secret, nil })
	if err != nil {
		return 0, fmt.Errorf("%w: %w", ErrBadToken, err)
	}
	userID, err = strconv.ParseInt(claims.Subject, 10, 64)
	if err != nil || userID < 1 {
		return 0, fmt.Errorf("%w: subject %q", ErrBadToken, claims.Subject)
	}
	return userID, nil
}
