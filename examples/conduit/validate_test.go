package conduit_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/loadlinehq/loadline/examples/conduit"
)

// problems returns the messages of an Invalid, nil for no error.
func problems(t *testing.T, err error) conduit.Invalid {
	t.Helper()
	invalid, ok := errors.AsType[conduit.Invalid](err)
	if err != nil && !ok {
		t.Fatalf("%v is not an Invalid", err)
	}
	return invalid
}

func TestRegistration(t *testing.T) {
	t.Parallel()
	blank, bad := []string{"can't be blank"}, []string{"is invalid"}
	for _, test := range []struct {
		name string
		in   conduit.Registration
		want conduit.Invalid
	}{
		{"good", conduit.Registration{"jake", "jake@example.com", "password"}, nil},
		{"spaces around", conduit.Registration{" jake ", " jake@example.com\n", "password"}, nil},
		{"any script", conduit.Registration{"山田 太郎", "用户@例子.公司", "пароль12"}, nil},
		{"longest", conduit.Registration{strings.Repeat("ü", 64), "a@" + strings.Repeat("b", 252), strings.Repeat("p", 1024)}, nil},
		{"empty", conduit.Registration{}, conduit.Invalid{"username": blank, "email": blank, "password": blank}},
		{"blank", conduit.Registration{" ", "\t", "        "}, conduit.Invalid{"username": blank, "email": blank}},
		{
			"too long",
			conduit.Registration{strings.Repeat("ü", 65), "a@" + strings.Repeat("b", 253), strings.Repeat("p", 1025)},
			conduit.Invalid{
				"username": {"is too long (maximum is 64 characters)"},
				"email":    {"is too long (maximum is 254 characters)"},
				"password": {"is too long (maximum is 1024 bytes)"},
			},
		},
		{"short password", conduit.Registration{"jake", "a@b", "sevench"}, conduit.Invalid{"password": {"is too short (minimum is 8 characters)"}}},
		{"NUL", conduit.Registration{"a\x00b", "a\x00@b", "password"}, conduit.Invalid{"username": bad, "email": bad}},
		{"not UTF-8", conduit.Registration{"a\xff", "a\xff@b", "password"}, conduit.Invalid{"username": bad, "email": bad}},
		{"control characters", conduit.Registration{"a\nb", "a\tb@c", "password"}, conduit.Invalid{"username": bad, "email": bad}},
		{"dots", conduit.Registration{"..", "a@b", "password"}, conduit.Invalid{"username": bad}},
		{"no at", conduit.Registration{"jake", "jake.example.com", "password"}, conduit.Invalid{"email": bad}},
		{"no domain", conduit.Registration{"jake", "jake@", "password"}, conduit.Invalid{"email": bad}},
		{"space inside", conduit.Registration{"jake", "ja ke@b", "password"}, conduit.Invalid{"email": bad}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(test.want, problems(t, test.in.Clean())); diff != "" {
				t.Error(diff)
			}
			if test.in.Username != strings.TrimSpace(test.in.Username) {
				t.Errorf("the username is still %q", test.in.Username)
			}
		})
	}
}

func TestUserChange(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		in   conduit.UserChange
		want conduit.Invalid
	}{
		{"nothing", conduit.UserChange{}, nil},
		{"remove what can be removed", conduit.UserChange{Bio: new(""), Image: new("")}, nil},
		{
			"remove what cannot",
			conduit.UserChange{Username: new(""), Email: new(""), Password: new("")},
			conduit.Invalid{"username": {"can't be blank"}, "email": {"can't be blank"}, "password": {"can't be blank"}},
		},
		{
			"too long",
			conduit.UserChange{Bio: new(strings.Repeat("b", 1001)), Image: new(strings.Repeat("i", 2001))},
			conduit.Invalid{"bio": {"is too long (maximum is 1000 characters)"}, "image": {"is too long (maximum is 2000 characters)"}},
		},
		{"NUL", conduit.UserChange{Bio: new("\x00")}, conduit.Invalid{"bio": {"is invalid"}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(test.want, problems(t, test.in.Clean())); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestDraft(t *testing.T) {
	t.Parallel()
	many := make([]string, 21)
	for _, test := range []struct {
		name string
		tags []string
		want []string
		err  conduit.Invalid
	}{
		{"none", nil, []string{}, nil},
		{"order kept", []string{"z", "a"}, []string{"z", "a"}, nil},
		{"duplicates dropped", []string{"a", "b", " a", "b ", "A"}, []string{"a", "b", "A"}, nil},
		{"blank", []string{"a", " "}, []string{"a", ""}, conduit.Invalid{"tagList": {"can't be blank"}}},
		{"too long", []string{strings.Repeat("t", 65)}, []string{strings.Repeat("t", 65)}, conduit.Invalid{"tagList": {"is too long (maximum is 64 characters)"}}},
		{"too many", many, many, conduit.Invalid{"tagList": {"has too many tags (maximum is 20)"}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			draft := conduit.Draft{Title: "t", Description: "d", Body: "b", TagList: test.tags}
			if diff := cmp.Diff(test.err, problems(t, draft.Clean())); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(test.want, draft.TagList); diff != "" {
				t.Error(diff)
			}
		})
	}

	blank := conduit.Draft{Title: "\n", Description: " "}
	want := conduit.Invalid{"title": {"can't be blank"}, "description": {"can't be blank"}, "body": {"can't be blank"}}
	if diff := cmp.Diff(want, problems(t, blank.Clean())); diff != "" {
		t.Error(diff)
	}
}

func TestArticleChange(t *testing.T) {
	t.Parallel()
	unchanged := conduit.ArticleChange{}
	if err := unchanged.Clean(); err != nil || unchanged.TagList != nil {
		t.Errorf("nothing to change became %v, %v", unchanged, err)
	}
	noTags := conduit.ArticleChange{TagList: []string{}}
	if err := noTags.Clean(); err != nil || noTags.TagList == nil {
		t.Errorf("the removal of all tags became %v, %v", noTags, err)
	}
	empty := conduit.ArticleChange{Title: new(""), Description: new(""), Body: new("")}
	if got := len(problems(t, empty.Clean())); got != 3 {
		t.Errorf("%d problems, want 3", got)
	}
}

func TestWindow(t *testing.T) {
	t.Parallel()
	w := conduit.Window{Limit: 1 << 40, Offset: 1 << 60}
	if err := w.Clean(); err != nil || w.Limit != conduit.MaxLimit || int(int32(w.Limit+w.Offset)) != w.Limit+w.Offset {
		t.Errorf("the window became %v, %v", w, err)
	}
	w = conduit.Window{Limit: 0, Offset: -1}
	if got := len(problems(t, w.Clean())); got != 2 {
		t.Errorf("%d problems, want 2", got)
	}
}
