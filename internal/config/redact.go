package config

import (
	"regexp"
	"strconv"
	"strings"
)

// redacted stands for what is not shown.
const redacted = "[redacted]"

// Where there is doubt these hide too much: up to the last @, since a password that
// is not escaped may hold one, and any other sign.
var (
	urlPassword = regexp.MustCompile(`(?is)\b([a-z][a-z0-9+.-]*://[^:/?#@\s]*:).*@`)
	// A name alone is a role to PostgreSQL; to others it is often a token.
	urlUser     = regexp.MustCompile(`(?i)\b([a-z][a-z0-9+.-]*)(://)[^:/?#@\s\[]+@`)
	secretName  = `[\w.-]*(?:password|passwd|passphrase|pwd|secret|token|api_?key)[\w.-]*`
	urlArgument = regexp.MustCompile(`(?i)([?&]` + secretName + `=)[^&#\s]*`)
	// Of PostgreSQL's keyword=value form, or of an assignment in a shell.
	keyword = regexp.MustCompile(`(?i)((?:^|[\s;"'(])` + secretName + `\s*=\s*)('(?:[^'\\]|\\.)*'?|"(?:[^"\\]|\\.)*"?|(?:\\.|[^\s\\])+)`)
)

// Redact hides the passwords in a text that is otherwise shown: those of URLs, of
// their arguments, and of keyword=value strings.
func Redact(text string) string {
	if strings.Contains(text, "://") {
		text = urlPassword.ReplaceAllString(text, "${1}"+redacted+"@")
		text = urlUser.ReplaceAllStringFunc(text, func(url string) string {
			m := urlUser.FindStringSubmatch(url)
			if strings.EqualFold(m[1], "postgres") || strings.EqualFold(m[1], "postgresql") {
				return url
			}
			return m[1] + m[2] + redacted + "@"
		})
		text = urlArgument.ReplaceAllString(text, "${1}"+redacted)
	}
	return keyword.ReplaceAllString(text, "${1}"+redacted)
}

// minConcealed is the length from which a secret is looked for among the words of an
// error, and not in quotes alone. A shorter one would be found there by chance.
const minConcealed = 6

// conceal takes the values of secrets, and of passwords in other values, out of an
// error: the net below what Validate, or a library that it asks, has put into words.
func (n *node) conceal(message string) string {
	n.leaves(func(leaf *node) {
		for _, text := range leaf.texts() {
			safe := redacted
			if !leaf.secret {
				safe = Redact(text)
			}
			if safe == text || text == "" {
				continue
			}
			message = strings.ReplaceAll(message, strconv.Quote(text), strconv.Quote(safe)) // as %q has it
			if len(text) >= minConcealed {
				message = strings.ReplaceAll(message, text, safe)
			}
		}
	})
	return message
}

// texts returns the texts that a value is made of.
func (n *node) texts() []string {
	switch v := n.goValue.Interface().(type) {
	case string:
		return []string{v}
	case []string:
		return v
	}
	return nil
}
