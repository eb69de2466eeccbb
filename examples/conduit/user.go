package conduit

import "strings"

// Profile is what everyone sees of a user. Bio and Image are empty when the
// user has not set them.
type Profile struct {
	ID       int64
	Username string
	Bio      string
	Image    string
}

// User is an account, with what only its owner sees.
type User struct {
	Profile
	Email        string
	PasswordHash string
}

// Registration is the input that makes a new user.
type Registration struct {
	Username string
	Email    string
	Password string
}

// Clean removes the white space around the names. It returns an Invalid when
// the registration cannot be accepted.
func (r *Registration) Clean() error {
	r.Username = strings.TrimSpace(r.Username)
	r.Email = strings.TrimSpace(r.Email)

	v := Invalid{}
	v.username(r.Username)
	v.email(r.Email)
	v.password(r.Password)
	return v.err()
}

// Credentials are the input of a login.
type Credentials struct {
	Email    string
	Password string
}

// Clean removes the white space around the e-mail. It returns an Invalid when
// these cannot be anybody's credentials.
func (c *Credentials) Clean() error {
	c.Email = strings.TrimSpace(c.Email)

	v := Invalid{}
	v.line("email", c.Email, MaxEmail)
	if c.Password == "" {
		v.add("password", blank)
	}
	if len(c.Password) > MaxPasswordBytes {
		v.add("password", tooManyBytes, MaxPasswordBytes)
	}
	return v.err()
}

// UserChange is the input that changes a user. Nil leaves a value as it is; an
// empty Bio or Image removes it.
type UserChange struct {
	Username *string
	Email    *string
	Password *string
	Bio      *string
	Image    *string
}

// Clean removes the white space around the names. It returns an Invalid when
// the change cannot be accepted.
func (c *UserChange) Clean() error {
	v := Invalid{}
	if c.Username != nil {
		c.Username = new(strings.TrimSpace(*c.Username))
		v.username(*c.Username)
	}
	if c.Email != nil {
		c.Email = new(strings.TrimSpace(*c.Email))
		v.email(*c.Email)
	}
	if c.Password != nil {
		v.password(*c.Password)
	}
	if c.Bio != nil {
		v.text("bio", *c.Bio, MaxBio)
	}
	if c.Image != nil {
		v.text("image", *c.Image, MaxImage)
	}
	return v.err()
}
