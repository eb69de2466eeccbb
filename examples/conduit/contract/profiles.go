package contract

import (
	"net/http"
	"strings"
	"testing"
)

func (s *suite) testProfiles(t *testing.T) {
	t.Run("follow", s.testFollow)
	t.Run("follow from everywhere", s.testFollowing)
	t.Run("unknown", s.testProfileUnknown)
	t.Run("oneself", s.testFollowSelf)
}

func (s *suite) testFollow(t *testing.T) {
	t.Parallel()
	star, fan := s.register(t, "star"), s.crowd[0]
	// Each step is done twice: following and unfollowing are idempotent.
	for _, step := range []struct {
		name string
		do   func(*testing.T, actor) profile
		want bool
	}{
		{"unfollow before following", fan.unfollow, false},
		{"follow", fan.follow, true},
		{"follow again", fan.follow, true},
		{"unfollow", fan.unfollow, false},
		{"unfollow again", fan.unfollow, false},
		{"follow anew", fan.follow, true},
	} {
		if got := step.do(t, star); got.Username != star.Username || got.Following != step.want || got.Bio != nil || got.Image != nil {
			t.Errorf("%s: %+v, wanted following %t", step.name, got, step.want)
		}
		if got := fan.view(t, star); got.Following != step.want {
			t.Errorf("read after %s: following %t", step.name, got.Following)
		}
		for name, other := range map[string]actor{"anonymous": s.anyone, "another user": s.bob, "the followed": star} {
			if got := other.view(t, star); got.Following {
				t.Errorf("after %s: %s sees following true", step.name, name)
			}
		}
	}
}

// testFollowing looks at the flag wherever a profile is shown.
func (s *suite) testFollowing(t *testing.T) {
	t.Parallel()
	star, fan := s.register(t, "star"), s.crowd[1]
	slug := star.publish(t, s.title("By a star")).Slug
	star.comment(t, slug, "By the star")
	fan.comment(t, slug, "By the fan")
	fan.follow(t, star)
	for _, round := range []struct {
		viewer actor
		want   bool
	}{{fan, true}, {s.anyone, false}, {s.bob, false}, {fan, true}, {star, false}} {
		if got := round.viewer.read(t, slug).Author.Following; got != round.want {
			t.Errorf("article read by %q: following %t", round.viewer.Username, got)
		}
		for _, got := range round.viewer.get(t, list("/articles", "author", star.Username)).page(t).Articles {
			if got.Author.Following != round.want {
				t.Errorf("list read by %q: following %t", round.viewer.Username, got.Author.Following)
			}
		}
		for _, got := range round.viewer.get(t, at(slug, "comments")).comments(t) {
			if want := round.want && got.Author.Username == star.Username; got.Author.Following != want {
				t.Errorf("comment of %q read by %q: following %t", got.Author.Username, round.viewer.Username, got.Author.Following)
			}
		}
	}
	if got := fan.favorite(t, slug).Author; !got.Following {
		t.Errorf("favourite answered following false")
	}
	fan.unfollow(t, star)
	if fan.read(t, slug).Author.Following {
		t.Errorf("following true after unfollowing")
	}
}

func (s *suite) testProfileUnknown(t *testing.T) {
	t.Parallel()
	for _, target := range append(oddPaths(), profileOf(s.name("unknown"))[len("/profiles/"):], strings.Repeat("x", 5000)) {
		target = "/profiles/" + target
		s.anyone.get(t, target).wantError(t, http.StatusNotFound, "profile", notFound)
		s.ann.get(t, target).wantError(t, http.StatusNotFound, "profile", notFound)
		s.ann.post(t, target+"/follow", nil).wantError(t, http.StatusNotFound, "profile", notFound)
		s.ann.delete(t, target+"/follow").wantError(t, http.StatusNotFound, "profile", notFound)
	}
}

// testFollowSelf holds an application only to its contract: whether one may
// follow oneself is not said.
func (s *suite) testFollowSelf(t *testing.T) {
	t.Parallel()
	me := s.register(t, "self")
	got := me.post(t, profileOf(me.Username)+"/follow", nil)
	if got.status != http.StatusOK {
		got.want(t, http.StatusUnprocessableEntity)
		return
	}
	if got, read := got.profile(t, http.StatusOK).Following, me.view(t, me).Following; got != read {
		t.Errorf("following oneself answered %t, but reads %t", got, read)
	}
}

// oddPaths returns path segments that name nothing but may upset a server: a
// NUL byte, invalid UTF-8, an escaped slash, quotes.
func oddPaths() []string {
	return []string{"%00", "x%00y", "%FF%FE", "a%2Fb", "%27%3B--", "%25", "%F0%9F%9A%80"}
}
