package caching

import (
	"strings"
	"unicode"
)

// fold makes one text of all names that lower() of any locale takes for the same, and of some others: who
// shares a tag by mistake is loaded once more than needed. Beside case it forgets what sets the i of Turkish
// apart, which is another letter in one locale, and an i with a mark in the next.
func fold(name string) string {
	const dotAbove = '\u0307'
	return strings.Map(func(r rune) rune {
		if r == dotAbove {
			return -1
		}
		return unicode.ToLower(unicode.ToUpper(unicode.ToLower(r)))
	}, name)
}
