package contract

import (
	"net/http"
	"slices"
	"testing"
)

// testTags follows tags through the life of their articles: listed while
// an article has them.
func (s *suite) testTags(t *testing.T) {
	kept, dropped, shared := s.name("Kept & ünïcode"), s.name("dropped"), s.name("shared")
	listed := func(when string, want ...string) {
		t.Helper()
		tags := s.tags(t)
		for _, tag := range []string{kept, dropped, shared} {
			if got := slices.Contains(tags, tag); got != slices.Contains(want, tag) {
				t.Errorf("%s: tag %q listed: %t", when, tag, got)
			}
		}
	}
	listed("before")
	one := s.ann.publish(t, s.title("Tags"), kept, dropped, shared).Slug
	listed("published", kept, dropped, shared)
	two := s.bob.publish(t, s.title("Tags"), shared).Slug
	s.ann.edit(t, one, obj{"tagList": []string{kept, shared}})
	listed("dropped by an edit", kept, shared)
	s.bob.delete(t, at(two)).want(t, http.StatusNoContent)
	listed("one of two deleted", kept, shared)
	s.ann.edit(t, one, obj{"tagList": []string{}})
	listed("cleared")
	s.ann.edit(t, one, obj{"tagList": []string{shared}})
	listed("back", shared)
	s.ann.delete(t, at(one)).want(t, http.StatusNoContent)
	listed("deleted")
}

// tags reads all tags, which must be said once each.
func (s *suite) tags(t *testing.T) []string {
	t.Helper()
	got := s.anyone.get(t, "/tags")
	tags := decode[map[string][]string](t, got, http.StatusOK)["tags"]
	sorted := slices.Sorted(slices.Values(tags))
	if len(slices.Compact(sorted)) != len(tags) {
		t.Errorf("a tag is listed twice\n%s", got)
	}
	return tags
}
