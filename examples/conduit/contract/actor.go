package contract

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"testing"
	"time"
)

// What the API answers, as a client reads it.
type (
	user struct {
		Username string  `json:"username"`
		Email    string  `json:"email"`
		Token    string  `json:"token"`
		Bio      *string `json:"bio"`
		Image    *string `json:"image"`
	}
	profile struct {
		Username  string  `json:"username"`
		Bio       *string `json:"bio"`
		Image     *string `json:"image"`
		Following bool    `json:"following"`
	}
	article struct {
		Slug           string    `json:"slug"`
		Title          string    `json:"title"`
		Description    string    `json:"description"`
		Body           string    `json:"body"`
		TagList        []string  `json:"tagList"`
		CreatedAt      time.Time `json:"createdAt"`
		UpdatedAt      time.Time `json:"updatedAt"`
		Favorited      bool      `json:"favorited"`
		FavoritesCount int       `json:"favoritesCount"`
		Author         profile   `json:"author"`
	}
	comment struct {
		ID        int64     `json:"id"`
		CreatedAt time.Time `json:"createdAt"`
		UpdatedAt time.Time `json:"updatedAt"`
		Body      string    `json:"body"`
		Author    profile   `json:"author"`
	}
	page struct {
		Articles      []article `json:"articles"`
		ArticlesCount int       `json:"articlesCount"`
	}
)

func (a *answer) user(t *testing.T, status int) user {
	t.Helper()
	return decode[map[string]user](t, a, status)["user"]
}

func (a *answer) profile(t *testing.T, status int) profile {
	t.Helper()
	return decode[map[string]profile](t, a, status)["profile"]
}

func (a *answer) article(t *testing.T, status int) article {
	t.Helper()
	return decode[map[string]article](t, a, status)["article"]
}

func (a *answer) comment(t *testing.T, status int) comment {
	t.Helper()
	return decode[map[string]comment](t, a, status)["comment"]
}

func (a *answer) comments(t *testing.T) []comment {
	t.Helper()
	return decode[map[string][]comment](t, a, http.StatusOK)["comments"]
}

func (a *answer) page(t *testing.T) page {
	t.Helper()
	return decode[page](t, a, http.StatusOK)
}

func (p page) slugs() []string {
	slugs := make([]string, len(p.Articles))
	for i, a := range p.Articles {
		slugs[i] = a.Slug
	}
	return slugs
}

// actor is somebody who uses the API: a registered user, or nobody when it has no token.
type actor struct {
	user
	suite *suite
}

// password is the one of every user whom the suite registers.
const password = "correct horse battery"

// register makes a user whose name starts with prefix.
func (s *suite) register(t *testing.T, prefix string) actor {
	t.Helper()
	name := s.name(prefix)
	got := s.anyone.post(t, "/users", newUser(name)).user(t, http.StatusCreated)
	return actor{user: got, suite: s}
}

// newUser is the body that registers a user.
func newUser(name string) obj {
	return obj{"user": obj{"username": name, "email": name + "@example.com", "password": password}}
}

// call is a call with the token of the actor.
func (a actor) call(method, target string, body any) call {
	return call{method: method, target: target, token: a.Token, as: a.Username, body: body}
}

func (a actor) get(t *testing.T, target string) *answer {
	t.Helper()
	return a.suite.do(t, a.call(http.MethodGet, target, nil))
}

func (a actor) post(t *testing.T, target string, body any) *answer {
	t.Helper()
	return a.suite.do(t, a.call(http.MethodPost, target, body))
}

func (a actor) put(t *testing.T, target string, body any) *answer {
	t.Helper()
	return a.suite.do(t, a.call(http.MethodPut, target, body))
}

func (a actor) delete(t *testing.T, target string) *answer {
	t.Helper()
	return a.suite.do(t, a.call(http.MethodDelete, target, nil))
}

// publish makes an article with the title and tags.
func (a actor) publish(t *testing.T, title string, tags ...string) article {
	t.Helper()
	got := a.post(t, "/articles", newArticle(title, tags...)).article(t, http.StatusCreated)
	a.suite.remember(a, got.Slug)
	return got
}

// newArticle is the body that publishes an article.
func newArticle(title string, tags ...string) obj {
	fields := obj{"title": title, "description": "About " + title, "body": "The text of " + title}
	if len(tags) > 0 {
		fields["tagList"] = tags
	}
	return obj{"article": fields}
}

// publishMany makes n articles, one after the other, and returns their slugs, newest first.
func (a actor) publishMany(t *testing.T, n int, prefix string, tags ...string) []string {
	t.Helper()
	slugs := make([]string, n)
	for i := range n {
		slugs[n-1-i] = a.publish(t, a.suite.title(fmt.Sprintf("%s %d", prefix, i)), tags...).Slug
	}
	return slugs
}

// edit changes fields of an article.
func (a actor) edit(t *testing.T, slug string, fields obj) article {
	t.Helper()
	got := a.put(t, at(slug), obj{"article": fields}).article(t, http.StatusOK)
	a.suite.remember(a, got.Slug)
	return got
}

func (a actor) favorite(t *testing.T, slug string) article {
	t.Helper()
	return a.post(t, at(slug, "favorite"), nil).article(t, http.StatusOK)
}

func (a actor) unfavorite(t *testing.T, slug string) article {
	t.Helper()
	return a.delete(t, at(slug, "favorite")).article(t, http.StatusOK)
}

func (a actor) read(t *testing.T, slug string) article {
	t.Helper()
	return a.get(t, at(slug)).article(t, http.StatusOK)
}

func (a actor) follow(t *testing.T, other actor) profile {
	t.Helper()
	return a.post(t, profileOf(other.Username)+"/follow", nil).profile(t, http.StatusOK)
}

func (a actor) unfollow(t *testing.T, other actor) profile {
	t.Helper()
	return a.delete(t, profileOf(other.Username)+"/follow").profile(t, http.StatusOK)
}

func (a actor) view(t *testing.T, other actor) profile {
	t.Helper()
	return a.get(t, profileOf(other.Username)).profile(t, http.StatusOK)
}

func (a actor) comment(t *testing.T, slug, body string) comment {
	t.Helper()
	return a.post(t, at(slug, "comments"), obj{"comment": obj{"body": body}}).comment(t, http.StatusCreated)
}

// commentAt is the target of one comment.
func commentAt(slug string, id int64) string {
	return at(slug, "comments", strconv.FormatInt(id, 10))
}

func profileOf(username string) string {
	return "/profiles/" + url.PathEscape(username)
}
