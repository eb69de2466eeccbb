package contract

import (
	"bytes"
	"encoding/json"
	"maps"
	"net/http"
	"strings"
	"testing"
)

func (s *suite) testInput(t *testing.T) {
	t.Run("malformed", s.testMalformed)
	t.Run("too large", s.testTooLarge)
	t.Run("bad text", s.testBadText)
}

// write is an operation that reads a body.
type write struct {
	call
	resource string   // the key that wraps the fields
	texts    []string // fields that hold text
	valid    obj      // fields that would be accepted
}

// writes returns each operation that reads a body, with what it needs in place.
func (s *suite) writes(t *testing.T) []write {
	t.Helper()
	// Should a bad update be accepted, only this user suffers.
	me := s.register(t, "input")
	slug := me.publish(t, s.title("Input")).Slug
	name := s.name("input")
	return []write{
		{s.anyone.call(http.MethodPost, "/users", nil), "user", []string{"username", "email"}, newUser(name)["user"].(obj)},
		{s.anyone.call(http.MethodPost, "/users/login", nil), "user", []string{"email"}, obj{"email": me.Email, "password": password}},
		{me.call(http.MethodPut, "/user", nil), "user", []string{"username", "email", "bio", "image"}, obj{"bio": "x"}},
		{me.call(http.MethodPost, "/articles", nil), "article", []string{"title", "description", "body"}, newArticle(name)["article"].(obj)},
		{me.call(http.MethodPut, at(slug), nil), "article", []string{"title", "description", "body"}, obj{"body": "x"}},
		{me.call(http.MethodPost, at(slug, "comments"), nil), "comment", []string{"body"}, obj{"body": "x"}},
	}
}

func (s *suite) testMalformed(t *testing.T) {
	t.Parallel()
	for _, w := range s.writes(t) {
		key := `{"` + w.resource + `":`
		for _, body := range []string{
			"", " ", "{", "}", "null", "42", `"text"`, "[]", "{}", "not json", "\xef\xbb\xbf{}", "<xml/>",
			key + `null}`, key + `42}`, key + `"text"}`, key + `[]}`, key + `{"`, key + `{}`, key + `{}} {}`, key + `{"body":'x'}}`,
			key + `{"title":` + strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000) + `}}`,
		} {
			c := w.call
			c.body = []byte(body)
			s.do(t, c).want(t, http.StatusUnprocessableEntity)
		}
	}
}

func (s *suite) testTooLarge(t *testing.T) {
	t.Parallel()
	for _, w := range s.writes(t) {
		fields := maps.Clone(w.valid)
		fields["body"] = strings.Repeat("x", 2<<20)
		c := w.call
		c.body = obj{w.resource: fields}
		s.do(t, c).want(t, http.StatusUnprocessableEntity)
	}
	// White space counts.
	s.anyone.post(t, "/users", append(bytes.Repeat([]byte(" "), 2<<20), "{}"...)).want(t, http.StatusUnprocessableEntity)
}

// testBadText sends what PostgreSQL cannot store: the NUL character, which JSON
// can write, and bytes that are no UTF-8.
func (s *suite) testBadText(t *testing.T) {
	t.Parallel()
	for _, w := range s.writes(t) {
		for _, field := range w.texts {
			for _, text := range []string{"x\x00y", "\x00", "x\xffy", "\xc3\x28", "\xed\xa0\x80"} {
				fields := maps.Clone(w.valid)
				fields[field] = "MARK@example.com"
				c := w.call
				c.body = withText(t, obj{w.resource: fields}, "MARK", text)
				s.do(t, c).want(t, http.StatusUnprocessableEntity)
			}
		}
		if w.resource == "article" {
			for _, text := range []string{"x\x00y", "x\xffy"} {
				fields := obj{"title": s.title("Bad text"), "description": "d", "body": "b", "tagList": []string{"fine", "MARK"}}
				c := w.call
				c.body = withText(t, obj{"article": fields}, "MARK", text)
				s.do(t, c).want(t, http.StatusUnprocessableEntity)
			}
		}
	}
}

// withText is the JSON of v with the text in place of mark. The encoder of the
// standard library would repair such texts.
func withText(t *testing.T, v any, mark, text string) []byte {
	t.Helper()
	encoded, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.ReplaceAll(encoded, []byte(mark), []byte(strings.ReplaceAll(text, "\x00", `\u0000`)))
}
