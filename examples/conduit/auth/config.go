package auth

import (
	"errors"

	"github.com/loadlinehq/loadline/internal/invalid"
)

// Config is what tokens need.
type Config struct {
	// JWTSecret signs the tokens: at least MinSecretBytes, and the same for all
	// instances. It has no default.
	JWTSecret string `yaml:"jwtSecret" env:"CONDUIT_JWT_SECRET" secret:"true"`
}

// Validate reports a secret that cannot be.
func (c Config) Validate() error {
	n := len(c.JWTSecret)
	return errors.Join(
		invalid.If(n == 0, "jwtSecret", "is not set: tokens are signed with it; make one with `openssl rand -base64 32`"),
		invalid.If(n > 0 && n < MinSecretBytes, "jwtSecret", "has %d bytes and needs %d: make one with `openssl rand -base64 32`", n, MinSecretBytes),
	)
}
