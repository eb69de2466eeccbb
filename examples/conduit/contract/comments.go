package contract

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
)

func (s *suite) testComments(t *testing.T) {
	t.Run("write", s.testCommentWrite)
	t.Run("order", s.testCommentOrder)
	t.Run("delete", s.testCommentDelete)
	t.Run("bad ids", s.testCommentBadIDs)
}

func (s *suite) testCommentWrite(t *testing.T) {
	t.Parallel()
	slug := s.ann.publish(t, s.title("Comments")).Slug
	if got := s.anyone.get(t, at(slug, "comments")).comments(t); len(got) != 0 {
		t.Errorf("a new article has comments %+v", got)
	}
	text := "Ünïcode 评论 🚀\n\n" + strings.Repeat("word ", 1000) + "end"
	written := s.bob.comment(t, slug, text)
	if written.Body != text || written.Author.Username != s.bob.Username || written.Author.Following || written.ID == 0 ||
		written.CreatedAt.IsZero() || written.UpdatedAt.Before(written.CreatedAt) {
		t.Errorf("comment is %+v", written)
	}
	for _, reader := range []actor{s.anyone, s.bob, s.ann} {
		got := reader.get(t, at(slug, "comments")).comments(t)
		if len(got) != 1 || got[0].ID != written.ID || got[0].Body != text || !got[0].CreatedAt.Equal(written.CreatedAt) || got[0].Author.Username != s.bob.Username {
			t.Errorf("wrote %+v, read %+v", written, got)
		}
	}
	for _, fields := range []obj{{"body": ""}, {"body": nil}, {}, {"text": "x"}} {
		s.bob.post(t, at(slug, "comments"), obj{"comment": fields}).wantError(t, http.StatusUnprocessableEntity, "body", blank)
	}
	for _, wrong := range []any{42, true, []string{"x"}, obj{}} {
		s.bob.post(t, at(slug, "comments"), obj{"comment": obj{"body": wrong}}).want(t, http.StatusUnprocessableEntity)
	}
	if got := s.anyone.get(t, at(slug, "comments")).comments(t); len(got) != 1 {
		t.Errorf("refused comments were stored: %+v", got)
	}
}

func (s *suite) testCommentOrder(t *testing.T) {
	t.Parallel()
	slug := s.ann.publish(t, s.title("Comments")).Slug
	var want []int64
	for i := range 6 {
		author := []actor{s.ann, s.bob}[i%2]
		want = append(want, author.comment(t, slug, fmt.Sprintf("Comment %d", i)).ID)
	}
	slices.Reverse(want) // newest first
	ids := func() []int64 {
		var got []int64
		for _, c := range s.anyone.get(t, at(slug, "comments")).comments(t) {
			got = append(got, c.ID)
		}
		return got
	}
	if got := ids(); !slices.Equal(got, want) {
		t.Errorf("comments %v, wanted %v", got, want)
	}
	s.bob.delete(t, commentAt(slug, want[2])).want(t, http.StatusNoContent)
	if got := ids(); !slices.Equal(got, slices.Delete(slices.Clone(want), 2, 3)) {
		t.Errorf("comments %v after the third of %v was deleted", got, want)
	}
}

func (s *suite) testCommentDelete(t *testing.T) {
	t.Parallel()
	slug, other := s.ann.publish(t, s.title("Comments")).Slug, s.ann.publish(t, s.title("Comments")).Slug
	hers, his := s.ann.comment(t, slug, "Hers").ID, s.bob.comment(t, slug, "His").ID

	s.bob.delete(t, commentAt(slug, hers)).wantError(t, http.StatusForbidden, "comment", forbidden)
	// The author of the article has no say over other people's comments.
	s.ann.delete(t, commentAt(slug, his)).wantError(t, http.StatusForbidden, "comment", forbidden)
	// A comment belongs to its article.
	s.ann.delete(t, commentAt(other, hers)).wantError(t, http.StatusNotFound, "comment", notFound)
	// 404 comes before 403.
	s.bob.delete(t, commentAt(other, hers)).wantError(t, http.StatusNotFound, "comment", notFound)
	s.ann.delete(t, commentAt(s.name("unknown"), hers)).wantError(t, http.StatusNotFound, "article", notFound)
	s.anyone.delete(t, commentAt(slug, hers)).wantError(t, http.StatusUnauthorized, "token", isMissing)
	if got := s.anyone.get(t, at(slug, "comments")).comments(t); len(got) != 2 {
		t.Errorf("refused deletions left %+v", got)
	}

	s.ann.delete(t, commentAt(slug, hers)).want(t, http.StatusNoContent)
	s.ann.delete(t, commentAt(slug, hers)).wantError(t, http.StatusNotFound, "comment", notFound)
	if got := s.anyone.get(t, at(slug, "comments")).comments(t); len(got) != 1 || got[0].ID != his {
		t.Errorf("comments %+v, wanted %d alone", got, his)
	}
}

func (s *suite) testCommentBadIDs(t *testing.T) {
	t.Parallel()
	slug := s.ann.publish(t, s.title("Comments")).Slug
	// A number that no comment has is not found, what is no number is bad input.
	for _, id := range []string{"0", "-1", "9223372036854775807", "99999999999999999999", strings.Repeat("9", 3000)} {
		s.ann.delete(t, at(slug, "comments", id)).wantError(t, http.StatusNotFound, "comment", notFound)
	}
	for _, id := range append(oddPaths(), "abc", "1.5", "1e3", "0x10") {
		s.ann.delete(t, at(slug, "comments", id)).wantError(t, http.StatusUnprocessableEntity, "id", "")
	}
	// 401 comes before 422.
	s.anyone.delete(t, at(slug, "comments", "abc")).wantError(t, http.StatusUnauthorized, "token", isMissing)
}
