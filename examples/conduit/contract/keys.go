package contract

import (
	"net/http"
	"testing"
	"time"
)

// testKeys: a POST with an Idempotency-Key is done once, however often it comes, and its answers are one. The specification
// knows nothing of keys, and its statuses will do.
func (s *suite) testKeys(t *testing.T) {
	t.Parallel()
	ann, bob := s.register(t, "keys"), s.register(t, "keys")
	title := s.title("Once")
	publish := func(a actor, key, title string) call {
		c := a.call(http.MethodPost, "/articles", obj{"article": obj{"title": title, "description": "d", "body": "b"}})
		c.header = http.Header{"Idempotency-Key": {key}}
		return c
	}
	key := s.name("key")
	slugs, replayed := make(map[string]bool), 0
	note := func(a *answer) {
		slug := a.article(t, http.StatusCreated).Slug
		s.remember(ann, slug)
		slugs[slug] = true
		if a.header.Get("Idempotent-Replayed") != "" {
			replayed++
		}
	}
	const times = 12
	for _, got := range s.together(t, times, func(int) call { return publish(ann, key, title) }) {
		for limit := time.Now().Add(requestTimeout); got.status == http.StatusConflict && time.Now().Before(limit); {
			if got.header.Get("Retry-After") == "" {
				t.Errorf("nothing says when to come again: %s", got)
			}
			time.Sleep(20 * time.Millisecond)
			got = s.do(t, publish(ann, key, title))
		}
		note(got)
	}
	note(s.do(t, publish(ann, `"`+key+`"`, title)))
	if len(slugs) != 1 || replayed != times {
		t.Errorf("%d articles of one key, and %d answers of %d are said to be replayed", len(slugs), replayed, times+1)
	}
	s.do(t, publish(ann, key, title+" again")).want(t, http.StatusUnprocessableEntity)
	if got := s.do(t, publish(bob, key, title)).article(t, http.StatusCreated); slugs[got.Slug] {
		t.Error("another user is given the article of who has the same key")
	} else {
		s.remember(bob, got.Slug)
	}
	for slug := range slugs {
		if got := ann.read(t, slug); got.Title != title {
			t.Errorf("the article is %+v", got)
		}
		// What is refused is refused again.
		comment := ann.call(http.MethodPost, at(slug, "comments"), obj{"comment": obj{"body": ""}})
		comment.header = http.Header{"Idempotency-Key": {key}}
		for range 2 {
			s.do(t, comment).want(t, http.StatusUnprocessableEntity)
		}
	}
}
