package seed

import (
	"cmp"
	"fmt"
	"html"
	"regexp"
	"strings"
	"time"

	"github.com/loadlinehq/loadline/examples/conduit"
)

// newUser returns the user with a display name, which need not be unique.
func newUser(id int64, name string, createdAt time.Time) User {
	username := fmt.Sprintf("%s-%d", cmp.Or(conduit.Slugify(name), "user"), id)
	return User{ID: id, Username: username, Email: emailOf(username), CreatedAt: createdAt}
}

// slugOf returns the slug of an article. The id makes it unique.
func slugOf(title string, id int64) string {
	return strings.TrimPrefix(fmt.Sprintf("%s-%d", conduit.Slugify(title), id), "-")
}

// emailOf returns the address of a user. It is plain ASCII, which every mail
// system takes, and as unique as the id that the username ends with.
func emailOf(username string) string {
	local := strings.Map(func(r rune) rune {
		if r == '-' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' {
			return r
		}
		return -1
	}, username)
	return strings.TrimLeft(local, "-") + "@conduit.example"
}

var markup = regexp.MustCompile(`<[^>]*>`)

// summary returns the beginning of an HTML text in one plain line, or the
// title of a text that says nothing without its markup.
func summary(body, title string) string {
	const maxBytes = 160
	text := html.UnescapeString(markup.ReplaceAllString(body, " "))
	var b strings.Builder
	for word := range strings.FieldsSeq(text) {
		if b.Len()+len(word) > maxBytes {
			b.WriteString(" …")
			break
		}
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(word)
	}
	return cmp.Or(b.String(), title)
}
