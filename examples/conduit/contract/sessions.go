package contract

import (
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/loadlinehq/loadline/causal"
)

// seen is the newest token that the application has given to anyone here. It goes
// with each request, as people tell each other what they have done: with replicas that
// are behind, what one user has written another sees later, unless he was told.
type seen struct {
	mu     sync.Mutex
	signed string
	mark   causal.Mark
}

func (s *seen) newest() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.signed
}

func (s *seen) note(signed string) {
	text, _, _ := strings.Cut(signed, ".")
	token, err := causal.Parse(text)
	if err != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for m := range token.Marks() {
		if m.Timeline > s.mark.Timeline || m.Timeline == s.mark.Timeline && m.LSN > s.mark.LSN {
			s.signed, s.mark = signed, m
		}
	}
}

// testSessions: who is nothing but logged in, and keeps no token, sees what he has
// done, whichever instance and server answers.
func (s *suite) testSessions(t *testing.T) {
	name := s.name("session")
	as := func(a actor, method, target string, body any) *answer {
		t.Helper()
		c := a.call(method, target, body)
		c.forgetful, c.once = true, true // who has a name is given what he has done, at once
		return s.do(t, c)
	}
	me := actor{user: as(s.anyone, http.MethodPost, "/users", newUser(name)).user(t, http.StatusCreated), suite: s}
	get := func(target string) *answer { t.Helper(); return as(me, http.MethodGet, target, nil) }
	if got := get("/user").user(t, http.StatusOK); got.Username != name {
		t.Errorf("registered as %s, is %s", name, got.Username)
	}
	login := obj{"user": obj{"email": me.Email, "password": password}}
	if again := as(s.anyone, http.MethodPost, "/users/login", login).user(t, http.StatusOK); again.Username != name {
		t.Errorf("logged in as %s", again.Username)
	}
	for range 5 {
		bio := s.name("bio")
		as(me, http.MethodPut, "/user", obj{"user": obj{"bio": bio}}).want(t, http.StatusOK)
		if got := get("/user").user(t, http.StatusOK); got.Bio == nil || *got.Bio != bio {
			t.Errorf("bio %q\n%v", bio, got.Bio)
		}
		mine := as(me, http.MethodPost, "/articles", newArticle(s.title("Session"))).article(t, http.StatusCreated)
		s.remember(me, mine.Slug)
		get(at(mine.Slug)).want(t, http.StatusOK)
		if got := get(list("/articles", "author", name)).page(t).slugs(); !slices.Contains(got, mine.Slug) {
			t.Errorf("%s is not among %v", mine.Slug, got)
		}
		as(me, http.MethodPost, at(mine.Slug, "favorite"), nil).want(t, http.StatusOK)
		if got := get(at(mine.Slug)).article(t, http.StatusOK); !got.Favorited || got.FavoritesCount != 1 {
			t.Errorf("favorited %t, favoritesCount %d", got.Favorited, got.FavoritesCount)
		}
		written := as(me, http.MethodPost, at(mine.Slug, "comments"), obj{"comment": obj{"body": "Mine"}}).comment(t, http.StatusCreated)
		if got := get(at(mine.Slug, "comments")).comments(t); len(got) != 1 || got[0].ID != written.ID {
			t.Errorf("the comments are %v", got)
		}
		as(me, http.MethodDelete, at(mine.Slug), nil).want(t, http.StatusNoContent)
		get(at(mine.Slug)).want(t, http.StatusNotFound)
	}
}
