package contract

import (
	"net/http"
	"testing"
	"time"
)

// latest bounds how late what follows from an event may come, with faults.
const latest = 30 * time.Second

type notification struct {
	ID      int64   `json:"id"`
	Kind    string  `json:"kind"`
	Actor   profile `json:"actor"`
	Article struct {
		Slug string `json:"slug"`
	} `json:"article"`
	CommentID *int64 `json:"commentId"`
	Read      bool   `json:"read"`
}

type notifications struct {
	Notifications []notification `json:"notifications"`
	UnreadCount   int            `json:"unreadCount"`
}

func (s *suite) testAdditions(t *testing.T) {
	t.Run("notifications", s.testNotifications)
	t.Run("views", s.testViews)
	t.Run("popular tags", s.testPopularTags)
	t.Run("keys", s.testKeys)
}

// more is a call of what additions.yml has.
func (a actor) more(t *testing.T, method, target string, body any) *answer {
	t.Helper()
	c := a.call(method, target, body)
	c.additional = true
	return a.suite.do(t, c)
}

func (a actor) notifications(t *testing.T, query string) notifications {
	t.Helper()
	return decode[notifications](t, a.more(t, http.MethodGet, "/notifications"+query, nil), http.StatusOK)
}

// eventually waits for what follows from an event.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for limit := time.Now().Add(latest); !holds(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("not within %s: %s", latest, what)
		}
	}
}

// Each who is concerned is told of what others did, once, and not of what he did himself.
func (s *suite) testNotifications(t *testing.T) {
	t.Parallel()
	author, fan := s.register(t, "author"), s.register(t, "fan")
	fan.follow(t, author)
	author.follow(t, author)
	slug := author.publish(t, s.title("News")).Slug
	author.comment(t, slug, "My own")
	author.favorite(t, slug)
	written := fan.comment(t, slug, "Well")
	fan.favorite(t, slug)
	fan.unfavorite(t, slug)
	fan.favorite(t, slug) // no news

	eventually(t, "the follower is told of the article", func() bool {
		got := fan.notifications(t, "")
		return len(got.Notifications) == 1 && got.UnreadCount == 1
	})
	if n := fan.notifications(t, "").Notifications[0]; n.Kind != "article" || n.Article.Slug != slug || n.Actor.Username != author.Username || !n.Actor.Following || n.Read {
		t.Errorf("%+v", n)
	}
	eventually(t, "the author is told of the comment and the favourite", func() bool { return author.notifications(t, "").UnreadCount >= 2 })
	time.Sleep(300 * time.Millisecond) // for what should not come
	got := author.notifications(t, "")
	kinds := make(map[string]int)
	for _, n := range got.Notifications {
		kinds[n.Kind]++
		if n.Actor.Username != fan.Username || n.Kind == "comment" && (n.CommentID == nil || *n.CommentID != written.ID) {
			t.Errorf("%+v", n)
		}
	}
	if len(got.Notifications) != 2 || kinds["comment"] != 1 || kinds["favorite"] != 1 {
		t.Errorf("%+v", got)
	}

	newest := got.Notifications[0]
	if older := author.notifications(t, list("", "limit", "1")); len(older.Notifications) != 1 || older.Notifications[0].ID != newest.ID || older.UnreadCount != 2 {
		t.Errorf("%+v", older)
	}
	author.more(t, http.MethodPut, "/notifications/read", obj{"notifications": obj{"upTo": got.Notifications[1].ID}}).want(t, http.StatusNoContent)
	if got := author.notifications(t, ""); got.UnreadCount != 1 || !got.Notifications[1].Read || got.Notifications[0].Read {
		t.Errorf("%+v", got)
	}
	s.anyone.more(t, http.MethodGet, "/notifications", nil).want(t, http.StatusUnauthorized)
	s.anyone.more(t, http.MethodPut, "/notifications/read", obj{}).want(t, http.StatusUnauthorized)
	fan.more(t, http.MethodGet, "/notifications?limit=0", nil).want(t, http.StatusUnprocessableEntity)
	fan.more(t, http.MethodPut, "/notifications/read", obj{"notifications": obj{"upTo": 0}}).want(t, http.StatusUnprocessableEntity)
}

func (s *suite) testViews(t *testing.T) {
	t.Parallel()
	slug := s.ann.publish(t, s.title("Views")).Slug
	const n = 7
	for range n {
		c := s.bob.call(http.MethodGet, at(slug), nil)
		c.once = true
		s.do(t, c).want(t, http.StatusOK)
	}
	views := func() int64 {
		return decode[map[string]int64](t, s.anyone.more(t, http.MethodGet, at(slug, "views"), nil), http.StatusOK)["views"]
	}
	eventually(t, "all views are counted", func() bool { return views() == n })
	s.anyone.more(t, http.MethodGet, at(s.name("unknown"), "views"), nil).want(t, http.StatusNotFound)
}

func (s *suite) testPopularTags(t *testing.T) {
	t.Parallel()
	tag := s.name("popular")
	for range 3 {
		s.ann.publish(t, s.title("Tagged"), tag)
	}
	eventually(t, "the tag is counted", func() bool {
		for _, popular := range decode[map[string][]struct {
			Name     string
			Articles int
		}](t, s.anyone.more(t, http.MethodGet, list("/tags/popular", "days", "1", "name", tag), nil), http.StatusOK)["tags"] {
			if popular.Name == tag {
				return popular.Articles == 3
			}
		}
		return false
	})
	for _, query := range []string{"?days=0", "?days=366", "?limit=0", "?limit=x"} {
		s.anyone.more(t, http.MethodGet, "/tags/popular"+query, nil).want(t, http.StatusUnprocessableEntity)
	}
}
