package conduit_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/loadlinehq/loadline/examples/conduit"
)

func TestSlugify(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, title, want string }{
		{"words", "How to train your dragon", "how-to-train-your-dragon"},
		{"punctuation", "  Hello, (big)   World!! ", "hello-big-world"},
		{"apostrophes", "Don't — it’s O'Hara's", "dont-its-oharas"},
		{"digits", "Go 1.26", "go-1-26"},
		{"accents", "Ça va, Ærøskøbing?", "ça-va-ærøskøbing"},
		{"other scripts", "日本語 и русский", "日本語-и-русский"},
		{"vowel signs", "हिन्दी", "हिन्दी"},
		{"nothing to keep", "!?… 🙂", ""},
		{"empty", "", ""},
		{"not UTF-8", "a\xffb", "ab"},
		{"longest", strings.Repeat("ü", 200), strings.Repeat("ü", conduit.MaxSlug)},
		{"cut between words", strings.Repeat("a", conduit.MaxSlug-1) + " b", strings.Repeat("a", conduit.MaxSlug-1)},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if got := conduit.Slugify(test.title); got != test.want {
				t.Errorf("Slugify(%q) = %q, want %q", test.title, got, test.want)
			}
		})
	}
}

func TestSlugs(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, title, want string }{
		{"plain first", "A title", `^a-title( a-title-[a-z2-7]{8}){5}$`},
		{"reserved", "Feed!", `^feed-[a-z2-7]{8}( feed-[a-z2-7]{8}){4}$`},
		{"nothing to keep", "?", `^[a-z2-7]{8}( [a-z2-7]{8}){4}$`},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got := slices.Collect(conduit.Slugs(test.title))
			if !regexp.MustCompile(test.want).MatchString(strings.Join(got, " ")) {
				t.Errorf("Slugs(%q) = %q, want a match of %s", test.title, got, test.want)
			}
			if slices.Sort(got); len(slices.Compact(got)) != len(got) {
				t.Errorf("Slugs(%q) repeats itself: %q", test.title, got)
			}
		})
	}
}

func FuzzSlugify(f *testing.F) {
	for _, title := range []string{"", "A title", "--", "İstanbul", "ǅ", "a\u0301", "\u0301", "\xff", strings.Repeat("ab ", 60)} {
		f.Add(title)
	}
	f.Fuzz(func(t *testing.T, title string) {
		slug := conduit.Slugify(title)
		if !conduit.ValidText(slug) {
			t.Errorf("%q is not valid text", slug)
		}
		if n := utf8.RuneCountInString(slug); n > conduit.MaxSlug {
			t.Errorf("%q has %d characters", slug, n)
		}
		if strings.HasPrefix(slug, "-") || strings.HasSuffix(slug, "-") || strings.Contains(slug, "--") {
			t.Errorf("%q has a stray hyphen", slug)
		}
		if strings.ContainsFunc(slug, func(r rune) bool {
			return r != '-' && !unicode.In(r, unicode.Letter, unicode.Mark, unicode.Number)
		}) {
			t.Errorf("%q has a character that is neither letter nor digit", slug)
		}
		if again := conduit.Slugify(slug); again != slug {
			t.Errorf("the slug of %q is %q", slug, again)
		}
	})
}
