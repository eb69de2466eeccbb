package contract

import (
	"net/http"
	"slices"
	"strings"
	"testing"
)

func (s *suite) testSlugs(t *testing.T) {
	t.Run("of the same title", s.testSlugSame)
	t.Run("of a new title", s.testSlugRetitle)
	t.Run("of odd titles", s.testSlugOdd)
}

func (s *suite) testSlugSame(t *testing.T) {
	t.Parallel()
	title := s.title("Same")
	first, second := s.ann.publish(t, title), s.bob.publish(t, title)
	if first.Slug == second.Slug {
		t.Fatalf("two articles have the slug %q", first.Slug)
	}
	for want, slug := range map[string]string{s.ann.Username: first.Slug, s.bob.Username: second.Slug} {
		if got := s.anyone.read(t, slug); got.Title != title || got.Author.Username != want {
			t.Errorf("%q is %q by %q, wanted %q by %q", slug, got.Title, got.Author.Username, title, want)
		}
	}
	// A title that becomes another article's gives a slug of its own, too.
	third := s.ann.publish(t, s.title("Other"))
	if got := s.ann.edit(t, third.Slug, obj{"title": title}); got.Slug == first.Slug || got.Slug == second.Slug || got.Slug == third.Slug {
		t.Errorf("slugs %q, %q, and after the new title %q", first.Slug, second.Slug, got.Slug)
	}
}

func (s *suite) testSlugRetitle(t *testing.T) {
	t.Parallel()
	before := s.ann.publish(t, s.title("Before"), s.name("slug"))
	s.bob.favorite(t, before.Slug)
	id := s.bob.comment(t, before.Slug, "Stays").ID

	if got := s.ann.edit(t, before.Slug, obj{"title": before.Title, "body": "Other"}); got.Slug != before.Slug {
		t.Errorf("slug %q became %q under the same title", before.Slug, got.Slug)
	}
	title := s.title("After")
	after := s.ann.edit(t, before.Slug, obj{"title": title})
	if after.Slug == before.Slug || after.Title != title {
		t.Fatalf("a new title kept the slug: %+v", after)
	}
	for _, got := range []*answer{
		s.anyone.get(t, at(before.Slug)), s.anyone.get(t, at(before.Slug, "comments")),
		s.ann.delete(t, at(before.Slug)), s.bob.delete(t, at(before.Slug, "favorite")),
	} {
		got.wantError(t, http.StatusNotFound, "article", notFound)
	}
	got := s.bob.read(t, after.Slug)
	if got.Title != title || !got.Favorited || got.FavoritesCount != 1 || !slices.Equal(got.TagList, before.TagList) || !got.CreatedAt.Equal(before.CreatedAt) {
		t.Errorf("under the new slug: %+v", got)
	}
	if got := s.anyone.get(t, at(after.Slug, "comments")).comments(t); len(got) != 1 || got[0].ID != id {
		t.Errorf("comments under the new slug: %+v", got)
	}
	wantPage(t, s.anyone.get(t, list("/articles", "tag", before.TagList[0])), 1, after.Slug)
}

func (s *suite) testSlugOdd(t *testing.T) {
	t.Parallel()
	for _, title := range []string{
		"!!!", "🚀", "…", ".", "..", "/", "a/b?c#d%20e", "feed", "Feed", " FEED ", "comments",
		"Привет, мир — 你好", "İstanbul ßtraße ﬁ", "<script>alert(1)</script>", `"quoted" \ 'title'`,
		strings.Repeat("long ", 40), "100 % 'Go'; DROP TABLE articles;--",
	} {
		got := s.ann.publish(t, title)
		if got.Slug == "" || got.Slug == "feed" || strings.ContainsAny(got.Slug, "/?#% ") {
			t.Errorf("title %q has the slug %q", title, got.Slug)
		}
		if read := s.anyone.read(t, got.Slug); strings.TrimSpace(read.Title) != strings.TrimSpace(title) || read.Author.Username != s.ann.Username {
			t.Errorf("%q is %q by %q, wanted %q", got.Slug, read.Title, read.Author.Username, title)
		}
		s.ann.delete(t, at(got.Slug)).want(t, http.StatusNoContent)
	}
	// The feed is not an article.
	s.anyone.get(t, "/articles/feed").wantError(t, http.StatusUnauthorized, "token", isMissing)
	s.crowd[2].get(t, "/articles/feed").page(t)
	// A title without end is refused or shortened in its slug, never an error of the server.
	got := s.ann.post(t, "/articles", newArticle(strings.Repeat("x", 20_000)))
	if got.status != http.StatusUnprocessableEntity {
		slug := got.article(t, http.StatusCreated).Slug
		s.anyone.read(t, slug)
		s.ann.delete(t, at(slug)).want(t, http.StatusNoContent)
	}
}
