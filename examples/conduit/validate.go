package conduit

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Limits of the texts, in characters unless the name says otherwise. They are
// guesses that leave ample room: the longest article of a real site of twelve
// years has 13,652 characters, its longest comment 15,294.
const (
	MaxUsername    = 64
	MaxEmail       = 254 // RFC 5321 with erratum 1690
	MaxBio         = 1000
	MaxImage       = 2000
	MaxTitle       = 255
	MaxDescription = 1000
	MaxBody        = 200_000
	MaxComment     = 30_000
	MaxTag         = 64
	MaxTags        = 20 // per article

	// MinPassword is the contract's rule, after NIST SP 800-63B.
	MinPassword = 8
	// MaxPasswordBytes bounds what one request makes the server hash.
	MaxPasswordBytes = 1024
)

const (
	blank     = "can't be blank"
	isInvalid = "is invalid"
	tooLong   = "is too long (maximum is %d characters)"
	tooShort  = "is too short (minimum is %d characters)"

	tooManyBytes = "is too long (maximum is %d bytes)"
)

// ValidText reports whether PostgreSQL can store s as text: it must be UTF-8
// without NUL.
func ValidText(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsRune(s, 0)
}

// text checks a text of any number of lines.
func (v Invalid) text(field, s string, maxChars int) {
	switch {
	case !ValidText(s):
		v.add(field, isInvalid)
	case utf8.RuneCountInString(s) > maxChars:
		v.add(field, tooLong, maxChars)
	}
}

// required checks a text that may not be blank.
func (v Invalid) required(field, s string, maxChars int) {
	if strings.TrimSpace(s) == "" {
		v.add(field, blank)
		return
	}
	v.text(field, s, maxChars)
}

// line checks a required text of one line, such as a name.
func (v Invalid) line(field, s string, maxChars int) {
	v.required(field, s, maxChars)
	if len(v[field]) == 0 && strings.ContainsFunc(s, unicode.IsControl) {
		v.add(field, isInvalid)
	}
}

func (v Invalid) username(s string) {
	// A path segment of dots is resolved by the client and never arrives, so a
	// profile with such a name could not be asked for.
	if s == "." || s == ".." {
		v.add("username", isInvalid)
		return
	}
	v.line("username", s, MaxUsername)
}

func (v Invalid) email(s string) {
	v.line("email", s, MaxEmail)
	if len(v["email"]) > 0 {
		return
	}
	// Only a message to the address can prove it; this catches the obvious.
	local, domain, found := strings.Cut(s, "@")
	if !found || local == "" || domain == "" || strings.ContainsFunc(s, unicode.IsSpace) {
		v.add("email", isInvalid)
	}
}

func (v Invalid) password(s string) {
	switch {
	case s == "":
		v.add("password", blank)
	case utf8.RuneCountInString(s) < MinPassword:
		v.add("password", tooShort, MinPassword)
	case len(s) > MaxPasswordBytes:
		v.add("password", tooManyBytes, MaxPasswordBytes)
	}
}
