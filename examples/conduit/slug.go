package conduit

import (
	"crypto/rand"
	"iter"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxSlug is the length of the longest slug that Slugify makes, in characters.
const MaxSlug = 100

// slugAttempts bounds how often a taken slug is tried anew. One suffix of 40
// random bits is all but certain to be free; the others are for a bug to end.
const slugAttempts = 5

// Slugify returns the title as it reads in an address: its letters and digits
// of any script in lower case, and one hyphen for what lies between them. The
// result is empty for a title with neither.
func Slugify(title string) string {
	var b strings.Builder
	length := 0
	gap := false
	for _, r := range title {
		if r == '\'' || r == '’' || r == utf8.RuneError {
			continue // "don't" reads as "dont"
		}
		// Marks are the vowels of many scripts, and the accents of a
		// decomposed Latin one.
		if !unicode.In(r, unicode.Letter, unicode.Mark, unicode.Number) {
			gap = length > 0
			continue
		}
		if gap {
			if length+2 > MaxSlug {
				break
			}
			b.WriteByte('-')
			length++
			gap = false
		}
		if length == MaxSlug {
			break
		}
		b.WriteRune(unicode.ToLower(r))
		length++
	}
	return b.String()
}

// Slugs yields slugs for an article, to be tried until one is free: the slug
// of the title first, then ones with a random suffix. The plain slug is left
// out when it is empty or the name of another route.
func Slugs(title string) iter.Seq[string] {
	return func(yield func(string) bool) {
		slug := Slugify(title)
		if slug != "" && slug != "feed" && !yield(slug) {
			return
		}
		for range slugAttempts {
			suffix := strings.ToLower(rand.Text()[:8])
			if !yield(strings.TrimPrefix(slug+"-"+suffix, "-")) {
				return
			}
		}
	}
}
