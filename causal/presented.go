package causal

import (
	"net/http"
	"strings"
)

// maxPresented bounds the tokens of one message that are looked at.
const maxPresented = 4

// presented is what the tokens of one message say.
type presented struct {
	token Token // all that are by one of the keys, merged
	some  bool  // there is one of these
	one   bool  // all of these are the same
	bad   bool  // there are some that are by none of the keys, or too many
}

// present looks at a header's lines, and at cookies.
func (k Keys) present(lines []string, cookies []*http.Cookie) (p presented) {
	left := maxPresented
	add := func(signed string) bool {
		if signed == "" {
			return true
		}
		if left--; left < 0 {
			p.bad = true
			return false
		}
		t, err := k.Verify(signed)
		switch {
		case err != nil:
			p.bad = true
		case !p.some:
			p.token, p.some, p.one = t, true, true
		default:
			p.one = p.one && p.token.Equal(t)
			p.token = p.token.Merge(t)
		}
		return true
	}
	for _, line := range lines {
		// A proxy may join lines (RFC 9110, section 5.3).
		for signed := range strings.SplitSeq(line, ",") {
			if !add(strings.Trim(signed, " \t")) {
				return p
			}
		}
	}
	for _, cookie := range cookies {
		if !add(cookie.Value) {
			return p
		}
	}
	return p
}
