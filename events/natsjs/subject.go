package natsjs

import (
	"fmt"
	"strings"
)

// subject is where a message of a type goes. Its error is that the type can have none.
func (d *Driver) subject(typ string, partition int) (string, error) {
	if !isType(typ) || partition < -1 || partition > 99 {
		return "", fmt.Errorf("natsjs: %.60q, partition %d, is no type of events", typ, partition)
	}
	if partition < 0 {
		return d.events + typ, nil
	}
	// No type has upper case letters, so that no other has this subject.
	return fmt.Sprintf("%s%s.P%02d", d.events, typ, partition), nil
}

// address is the opposite of subject.
func (d *Driver) address(subject string) (typ string, partition int) {
	typ = strings.TrimPrefix(subject, d.events)
	if n := len(typ) - 4; n > 0 && typ[n:n+2] == ".P" && isDigit(typ[n+2]) && isDigit(typ[n+3]) {
		return typ[:n], int(typ[n+2]-'0')*10 + int(typ[n+3]-'0')
	}
	return typ, -1
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// isType reports whether a name is as package events has them: none of what it lets pass
// means something to the server.
func isType(name string) bool {
	for word := range strings.SplitSeq(name, ".") {
		if word == "" {
			return false
		}
		for _, c := range []byte(word) {
			if !('a' <= c && c <= 'z' || isDigit(c) || c == '-' || c == '_') {
				return false
			}
		}
	}
	return true
}

// Durable is how a subscription's name is written as that of a consumer, which may not have
// dots: each stands as _d, an underscore as __, and what else may not be there as its
// hexadecimal number. No two names are written alike.
func Durable(name string) string {
	var b strings.Builder
	for _, c := range []byte(name) {
		switch {
		case 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || isDigit(c) || c == '-':
			b.WriteByte(c)
		case c == '_':
			b.WriteString("__")
		case c == '.':
			b.WriteString("_d")
		default:
			fmt.Fprintf(&b, "_x%02X", c)
		}
	}
	return b.String()
}

// covers reports whether a pattern with wildcards matches a subject.
func covers(pattern, subject string) bool {
	p, s := strings.Split(pattern, "."), strings.Split(subject, ".")
	for i, word := range p {
		if word == ">" {
			return len(s) > i
		}
		if i >= len(s) || word != "*" && word != s[i] {
			return false
		}
	}
	return len(p) == len(s)
}
