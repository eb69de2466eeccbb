package contract

import (
	"net/http"
	"slices"
	"strings"
	"testing"
)

func (s *suite) testArticles(t *testing.T) {
	t.Run("publish", s.testPublish)
	t.Run("publish with bad input", s.testPublishBad)
	t.Run("unknown", s.testArticleUnknown)
	t.Run("edit", s.testEdit)
	t.Run("edit with bad input", s.testEditBad)
	t.Run("edit tags", s.testEditTags)
	t.Run("of somebody else", s.testArticleForbidden)
	t.Run("delete", s.testDelete)
}

func (s *suite) testPublish(t *testing.T) {
	t.Parallel()
	title := s.title("Publish")
	first, second := s.name("zebra"), s.name("aardvark")
	got := s.ann.post(t, "/articles", obj{"article": obj{
		"title": title, "description": "Ünïcode — 说明", "body": "# Text\n\n" + strings.Repeat("ordinary words 🚀 ", 3000),
		"tagList": []string{first, second, first}, "unknown": "fields are ignored",
	}}).article(t, http.StatusCreated)
	s.remember(s.ann, got.Slug)

	for _, seen := range []article{got, s.ann.read(t, got.Slug), s.anyone.read(t, got.Slug)} {
		if seen.Slug != got.Slug || seen.Title != title || seen.Description != "Ünïcode — 说明" || !strings.HasPrefix(seen.Body, "# Text\n\nordinary") || len(seen.Body) != len(got.Body) {
			t.Errorf("article is %+v", seen)
		}
		// Tags keep their order; what is said twice counts once.
		if !slices.Equal(seen.TagList, []string{first, second}) {
			t.Errorf("tagList is %v, wanted %v", seen.TagList, []string{first, second})
		}
		if seen.Favorited || seen.FavoritesCount != 0 || seen.Author.Username != s.ann.Username || seen.Author.Following {
			t.Errorf("favorited %t, favoritesCount %d, author %+v of a new article", seen.Favorited, seen.FavoritesCount, seen.Author)
		}
		if !seen.CreatedAt.Equal(got.CreatedAt) || !seen.UpdatedAt.Equal(got.UpdatedAt) || seen.CreatedAt.IsZero() {
			t.Errorf("createdAt %v, updatedAt %v; the answer to the POST said %v, %v", seen.CreatedAt, seen.UpdatedAt, got.CreatedAt, got.UpdatedAt)
		}
	}
	// One instant may fall on a whole second, two in a row do not.
	if other := s.ann.publish(t, s.title("Publish")); other.CreatedAt.Nanosecond() == 0 && got.CreatedAt.Nanosecond() == 0 {
		t.Errorf("createdAt %v and %v have no fraction of a second", got.CreatedAt, other.CreatedAt)
	}
	for _, fields := range []obj{{}, {"tagList": []string{}}} {
		fields["title"], fields["description"], fields["body"] = s.title("No tags"), "d", "b"
		got := s.ann.post(t, "/articles", obj{"article": fields}).article(t, http.StatusCreated)
		s.remember(s.ann, got.Slug)
		if len(got.TagList) != 0 {
			t.Errorf("tagList %v of an article without tags", got.TagList)
		}
	}
}

func (s *suite) testPublishBad(t *testing.T) {
	t.Parallel()
	refused := func(field, message string, change func(fields obj)) {
		t.Helper()
		fields := newArticle(s.title("Bad"), s.name("bad"))["article"].(obj)
		change(fields)
		s.ann.post(t, "/articles", obj{"article": fields}).wantError(t, http.StatusUnprocessableEntity, field, message)
	}
	for _, field := range []string{"title", "description", "body"} {
		refused(field, blank, func(fields obj) { fields[field] = "" })
		refused(field, blank, func(fields obj) { fields[field] = nil })
		refused(field, blank, func(fields obj) { delete(fields, field) })
		for _, wrong := range []any{42, true, []string{"x"}, obj{}} {
			fields := newArticle(s.title("Bad"))["article"].(obj)
			fields[field] = wrong
			s.ann.post(t, "/articles", obj{"article": fields}).want(t, http.StatusUnprocessableEntity)
		}
	}
	for _, wrong := range []any{nil, "x", 42, []any{"x", 42}, []any{nil}, obj{}, []string{""}, []string{"x", "  "}} {
		fields := newArticle(s.title("Bad"))["article"].(obj)
		fields["tagList"] = wrong
		s.ann.post(t, "/articles", obj{"article": fields}).want(t, http.StatusUnprocessableEntity)
	}
	wantPage(t, s.anyone.get(t, list("/articles", "author", s.name("nobody"))), 0)
}

func (s *suite) testArticleUnknown(t *testing.T) {
	t.Parallel()
	edit := obj{"article": obj{"body": "x"}}
	for _, slug := range append(oddPaths(), s.name("unknown"), strings.Repeat("x", 5000)) {
		target := "/articles/" + slug
		for _, got := range []*answer{
			s.anyone.get(t, target), s.ann.get(t, target), s.anyone.get(t, target+"/comments"),
			s.ann.put(t, target, edit), s.ann.delete(t, target),
			s.ann.post(t, target+"/favorite", nil), s.ann.delete(t, target+"/favorite"),
			s.ann.post(t, target+"/comments", obj{"comment": obj{"body": "x"}}), s.ann.delete(t, target+"/comments/1"),
		} {
			got.wantError(t, http.StatusNotFound, "article", notFound)
		}
	}
}

func (s *suite) testEdit(t *testing.T) {
	t.Parallel()
	tags := []string{s.name("edit"), s.name("edit")}
	before := s.ann.publish(t, s.title("Edit"), tags...)
	s.bob.favorite(t, before.Slug)

	// Each edit sets one field; the others stay.
	want := before
	want.FavoritesCount = 1
	for _, step := range []struct {
		fields obj
		apply  func()
	}{
		{obj{"body": "A new text"}, func() { want.Body = "A new text" }},
		{obj{"description": "New — 新"}, func() { want.Description = "New — 新" }},
		{obj{"title": before.Title}, func() {}},
		{obj{"body": "Newer", "unknown": 1}, func() { want.Body = "Newer" }},
	} {
		got := s.ann.edit(t, before.Slug, step.fields)
		step.apply()
		for _, seen := range []article{got, s.anyone.read(t, before.Slug)} {
			if seen.Slug != want.Slug || seen.Title != want.Title || seen.Description != want.Description || seen.Body != want.Body ||
				!slices.Equal(seen.TagList, tags) || seen.FavoritesCount != 1 || seen.Author.Username != s.ann.Username {
				t.Errorf("after %v:\n got %+v\nwant %+v", step.fields, seen, want)
			}
			if !seen.CreatedAt.Equal(before.CreatedAt) {
				t.Errorf("after %v: createdAt %v, was %v", step.fields, seen.CreatedAt, before.CreatedAt)
			}
			if !seen.UpdatedAt.Equal(got.UpdatedAt) || !got.UpdatedAt.After(want.UpdatedAt) {
				t.Errorf("after %v: updatedAt %v, was %v", step.fields, seen.UpdatedAt, want.UpdatedAt)
			}
		}
		want.UpdatedAt = got.UpdatedAt
	}
	if !s.bob.read(t, before.Slug).Favorited {
		t.Errorf("an edit lost the favourite")
	}
}

func (s *suite) testEditBad(t *testing.T) {
	t.Parallel()
	before := s.ann.publish(t, s.title("Edit"), s.name("edit"))
	for _, field := range []string{"title", "description", "body"} {
		for _, wrong := range []any{"", nil, 42, []string{"x"}} {
			// The other fields are valid, and must not be stored either.
			fields := obj{"title": s.title("Lost"), "description": "Lost", "body": "Lost", "tagList": []string{"lost"}}
			fields[field] = wrong
			got := s.ann.put(t, at(before.Slug), obj{"article": fields})
			if wrong == "" {
				got.wantError(t, http.StatusUnprocessableEntity, field, blank)
			}
			got.want(t, http.StatusUnprocessableEntity)
		}
	}
	for _, wrong := range []any{nil, "x", 42, []any{42}, []string{" "}} {
		s.ann.put(t, at(before.Slug), obj{"article": obj{"body": "Lost", "tagList": wrong}}).want(t, http.StatusUnprocessableEntity)
	}
	after := s.anyone.read(t, before.Slug)
	if after.Title != before.Title || after.Description != before.Description || after.Body != before.Body ||
		!slices.Equal(after.TagList, before.TagList) || !after.UpdatedAt.Equal(before.UpdatedAt) {
		t.Errorf("refused edits changed the article\n got %+v\nwant %+v", after, before)
	}
}

func (s *suite) testEditTags(t *testing.T) {
	t.Parallel()
	a, b, c := s.name("tag"), s.name("tag"), s.name("tag")
	slug := s.ann.publish(t, s.title("Tags"), a, b).Slug
	for _, step := range []struct {
		fields obj
		want   []string
	}{
		{obj{"body": "Absent tags stay"}, []string{a, b}},
		{obj{"tagList": []string{b, a}}, []string{b, a}},
		{obj{"tagList": []string{c, a, c}}, []string{c, a}},
		{obj{"tagList": []string{}}, []string{}},
		{obj{"tagList": []string{a, b, c}}, []string{a, b, c}},
	} {
		got := s.ann.edit(t, slug, step.fields)
		if read := s.anyone.read(t, slug); !slices.Equal(got.TagList, step.want) || !slices.Equal(read.TagList, step.want) {
			t.Errorf("after %v: tagList %v, then read as %v; wanted %v", step.fields, got.TagList, read.TagList, step.want)
		}
		for _, tag := range []string{a, b, c} {
			if slices.Contains(step.want, tag) {
				wantPage(t, s.anyone.get(t, list("/articles", "tag", tag)), 1, slug)
			} else {
				wantPage(t, s.anyone.get(t, list("/articles", "tag", tag)), 0)
			}
		}
	}
}

func (s *suite) testArticleForbidden(t *testing.T) {
	t.Parallel()
	before := s.ann.publish(t, s.title("Hers"))
	for range 2 {
		s.bob.put(t, at(before.Slug), obj{"article": obj{"title": s.title("His")}}).wantError(t, http.StatusForbidden, "article", forbidden)
		s.bob.delete(t, at(before.Slug)).wantError(t, http.StatusForbidden, "article", forbidden)
		// Who favourites or comments an article may not change it either.
		s.bob.favorite(t, before.Slug)
		s.bob.comment(t, before.Slug, "May I?")
	}
	if after := s.anyone.read(t, before.Slug); after.Title != before.Title || after.Body != before.Body {
		t.Errorf("somebody else changed the article: %+v", after)
	}
}

func (s *suite) testDelete(t *testing.T) {
	t.Parallel()
	author, fan := s.register(t, "author"), s.register(t, "fan")
	tag := s.name("delete")
	kept := author.publish(t, s.title("Kept"), tag).Slug
	gone := author.publish(t, s.title("Gone"), tag).Slug
	alone := s.name("alone")
	author.edit(t, gone, obj{"tagList": []string{tag, alone}})
	fan.follow(t, author)
	fan.favorite(t, kept)
	fan.favorite(t, gone)
	id := fan.comment(t, gone, "So long").ID

	lists := []string{list("/articles", "author", author.Username), list("/articles", "tag", tag), list("/articles", "favorited", fan.Username), "/articles/feed"}
	for _, target := range lists {
		wantPage(t, fan.get(t, target), 2, gone, kept)
	}
	author.delete(t, at(gone)).want(t, http.StatusNoContent)
	for _, target := range lists {
		wantPage(t, fan.get(t, target), 1, kept)
	}
	wantPage(t, s.anyone.get(t, list("/articles", "tag", alone)), 0)
	for _, got := range []*answer{
		s.anyone.get(t, at(gone)), author.delete(t, at(gone)), s.anyone.get(t, at(gone, "comments")),
		fan.delete(t, commentAt(gone, id)), fan.post(t, at(gone, "favorite"), nil), fan.delete(t, at(gone, "favorite")),
	} {
		got.wantError(t, http.StatusNotFound, "article", notFound)
	}
	fan.delete(t, commentAt(kept, id)).wantError(t, http.StatusNotFound, "comment", notFound)
	if slices.Contains(s.tags(t), alone) {
		t.Errorf("tag %q of a deleted article is still listed", alone)
	}
}
