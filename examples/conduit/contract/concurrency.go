package contract

import (
	"net/http"
	"slices"
	"strings"
	"testing"
)

func (s *suite) testConcurrency(t *testing.T) {
	t.Run("favourite by one", s.testRaceFavoriteOne)
	t.Run("favourite by many", s.testRaceFavoriteMany)
	t.Run("follow", s.testRaceFollow)
	t.Run("register", s.testRaceRegister)
	t.Run("same title", s.testRaceTitle)
	t.Run("same new tags", s.testRaceTags)
	t.Run("edit", s.testRaceEdit)
	t.Run("delete", s.testRaceDelete)
	t.Run("delete under use", s.testRaceUse)
}

// statuses counts the answers by status and ends the test at one that is not allowed.
func statuses(t *testing.T, answers []*answer, allowed ...int) map[int]int {
	t.Helper()
	count := make(map[int]int)
	for _, got := range answers {
		if !slices.Contains(allowed, got.status) {
			t.Fatalf("wanted one of %v\n%s", allowed, got)
		}
		count[got.status]++
	}
	return count
}

func (s *suite) testRaceFavoriteOne(t *testing.T) {
	t.Parallel()
	fan := s.crowd[0]
	slug := s.ann.publish(t, s.title("Race")).Slug
	favorite := fan.call(http.MethodPost, at(slug, "favorite"), nil)
	unfavorite := fan.call(http.MethodDelete, at(slug, "favorite"), nil)
	wantCount := func(when string, favorited bool) {
		t.Helper()
		want := 0
		if favorited {
			want = 1
		}
		if got := fan.read(t, slug); got.FavoritesCount != want || got.Favorited != favorited {
			t.Errorf("%s: favorited %t, favoritesCount %d", when, got.Favorited, got.FavoritesCount)
		}
	}
	for _, got := range s.together(t, 50, func(int) call { return favorite }) {
		if got := got.article(t, http.StatusOK); !got.Favorited || got.FavoritesCount != 1 {
			t.Errorf("one of 50 favourites answered favorited %t, favoritesCount %d", got.Favorited, got.FavoritesCount)
		}
	}
	wantCount("50 favourites", true)
	// In any order the count agrees with the flag.
	statuses(t, s.together(t, 30, func(i int) call { return []call{favorite, unfavorite}[i%2] }), http.StatusOK)
	wantCount("favourites and unfavourites", fan.read(t, slug).Favorited)
	statuses(t, s.together(t, 20, func(int) call { return unfavorite }), http.StatusOK)
	wantCount("20 unfavourites", false)
}

func (s *suite) testRaceFavoriteMany(t *testing.T) {
	t.Parallel()
	slug := s.ann.publish(t, s.title("Race")).Slug
	// Everybody favourites five times, all at once.
	statuses(t, s.together(t, 5*len(s.crowd), func(i int) call {
		return s.crowd[i%len(s.crowd)].call(http.MethodPost, at(slug, "favorite"), nil)
	}), http.StatusOK)
	if got := s.anyone.read(t, slug).FavoritesCount; got != len(s.crowd) {
		t.Errorf("favoritesCount %d of %d users", got, len(s.crowd))
	}
	half := s.crowd[:len(s.crowd)/2]
	statuses(t, s.together(t, 5*len(half), func(i int) call {
		return half[i%len(half)].call(http.MethodDelete, at(slug, "favorite"), nil)
	}), http.StatusOK)
	for i, member := range s.crowd {
		if got := member.read(t, slug); got.FavoritesCount != len(s.crowd)-len(half) || got.Favorited != (i >= len(half)) {
			t.Errorf("favorited %t, favoritesCount %d after %d of %d left", got.Favorited, got.FavoritesCount, len(half), len(s.crowd))
		}
	}
}

func (s *suite) testRaceFollow(t *testing.T) {
	t.Parallel()
	star, fan := s.register(t, "star"), s.crowd[1]
	slug := star.publish(t, s.title("Race")).Slug
	target := profileOf(star.Username) + "/follow"
	statuses(t, s.together(t, 30, func(int) call { return fan.call(http.MethodPost, target, nil) }), http.StatusOK)
	if !fan.view(t, star).Following {
		t.Errorf("not following after 30 follows")
	}
	count := 0
	for _, got := range fan.get(t, "/articles/feed?limit=100").page(t).slugs() {
		if got == slug {
			count++
		}
	}
	if count != 1 {
		t.Errorf("after 30 follows the article is %d times in the feed", count)
	}
	statuses(t, s.together(t, 30, func(int) call { return fan.call(http.MethodDelete, target, nil) }), http.StatusOK)
	if fan.view(t, star).Following {
		t.Errorf("still following after 30 unfollows")
	}
}

func (s *suite) testRaceRegister(t *testing.T) {
	t.Parallel()
	const n = 20
	name := s.name("race")
	for field, body := range map[string]func(other string) obj{
		"username": func(other string) obj {
			return obj{"username": name, "email": other + "@example.com", "password": password}
		},
		"email": func(other string) obj {
			return obj{"username": other, "email": "mail." + name + "@example.com", "password": password}
		},
	} {
		answers := s.together(t, n, func(int) call {
			return s.anyone.call(http.MethodPost, "/users", obj{"user": body(s.name("race"))})
		})
		if got := statuses(t, answers, http.StatusCreated, http.StatusConflict); got[http.StatusCreated] != 1 {
			t.Errorf("%d users got the same %s", got[http.StatusCreated], field)
		}
		for _, got := range answers {
			if got.status == http.StatusConflict {
				got.wantError(t, http.StatusConflict, field, taken)
			}
		}
	}
}

func (s *suite) testRaceTitle(t *testing.T) {
	t.Parallel()
	const n = 20
	title := s.title("Race")
	slugs := make(map[string]bool)
	author := func(i int) actor { return s.crowd[i%len(s.crowd)] }
	answers := s.together(t, n, func(i int) call { return author(i).call(http.MethodPost, "/articles", newArticle(title)) })
	for i, got := range answers {
		slug := got.article(t, http.StatusCreated).Slug
		s.remember(author(i), slug)
		slugs[slug] = true
	}
	if len(slugs) != n {
		t.Errorf("%d articles have %d slugs", n, len(slugs))
	}
	for slug := range slugs {
		if got := s.anyone.read(t, slug); got.Title != title {
			t.Errorf("%q has the title %q, wanted %q", slug, got.Title, title)
		}
	}
}

func (s *suite) testRaceTags(t *testing.T) {
	t.Parallel()
	const n = 20
	author := s.register(t, "tagger")
	// Half the articles name the tags in the other order, which is how rows get
	// locked crosswise.
	tags := []string{s.name("tag"), s.name("tag"), s.name("tag")}
	reversed := slices.Clone(tags)
	slices.Reverse(reversed)
	var slugs []string
	for i, got := range s.together(t, n, func(i int) call {
		return author.call(http.MethodPost, "/articles", newArticle(s.title("Race"), [][]string{tags, reversed}[i%2]...))
	}) {
		a := got.article(t, http.StatusCreated)
		s.remember(author, a.Slug)
		slugs = append(slugs, a.Slug)
		if want := [][]string{tags, reversed}[i%2]; !slices.Equal(a.TagList, want) {
			t.Errorf("tagList %v, wanted %v", a.TagList, want)
		}
	}
	listed := s.tags(t) // Fails at a tag that is listed twice.
	for _, tag := range tags {
		if !slices.Contains(listed, tag) {
			t.Errorf("tag %q is not listed", tag)
		}
		if got := s.anyone.get(t, list("/articles", "tag", tag)).page(t); got.ArticlesCount != n || len(got.Articles) != n {
			t.Errorf("tag %q: %d articles, articlesCount %d, wanted %d", tag, len(got.Articles), got.ArticlesCount, n)
		}
	}
	// All leave at once, some by an edit and some by a deletion.
	statuses(t, s.together(t, n, func(i int) call {
		if i%2 == 0 {
			return author.call(http.MethodDelete, at(slugs[i]), nil)
		}
		return author.call(http.MethodPut, at(slugs[i]), obj{"article": obj{"tagList": tags[i%3 : i%3+1]}})
	}), http.StatusOK, http.StatusNoContent)
	left := make([]int, len(tags))
	for i := 1; i < n; i += 2 {
		left[i%3]++
	}
	for i, tag := range tags {
		if got := s.anyone.get(t, list("/articles", "tag", tag)).page(t); got.ArticlesCount != left[i] || len(got.Articles) != left[i] {
			t.Errorf("tag %q: %d articles, articlesCount %d, wanted %d", tag, len(got.Articles), got.ArticlesCount, left[i])
		}
	}
	if got := s.anyone.get(t, list("/articles", "author", author.Username)).page(t); got.ArticlesCount != n/2 || len(got.Articles) != n/2 {
		t.Errorf("author: %d articles, articlesCount %d, wanted %d", len(got.Articles), got.ArticlesCount, n/2)
	}
}

func (s *suite) testRaceEdit(t *testing.T) {
	t.Parallel()
	title := s.title("Race")
	first, second := s.ann.publish(t, s.title("Race"), s.name("race")), s.ann.publish(t, s.title("Race"), s.name("race"))
	// Two articles get the same title while their texts change.
	answers := s.together(t, 16, func(i int) call {
		fields := obj{"body": strings.Repeat("x", i+1)}
		if i < 2 {
			fields = obj{"title": title}
		}
		return s.ann.call(http.MethodPut, at([]string{first.Slug, second.Slug}[i%2]), obj{"article": fields})
	})
	statuses(t, answers, http.StatusOK, http.StatusNotFound) // The old slugs end on the way.
	one, two := answers[0].article(t, http.StatusOK), answers[1].article(t, http.StatusOK)
	s.remember(s.ann, one.Slug)
	s.remember(s.ann, two.Slug)
	if one.Slug == two.Slug {
		t.Errorf("two articles got the slug %q", one.Slug)
	}
	for slug, before := range map[string]article{one.Slug: first, two.Slug: second} {
		if got := s.anyone.read(t, slug); got.Title != title || !got.CreatedAt.Equal(before.CreatedAt) || !slices.Equal(got.TagList, before.TagList) {
			t.Errorf("article %+v became %+v", before, got)
		}
	}
}

func (s *suite) testRaceDelete(t *testing.T) {
	t.Parallel()
	slug := s.ann.publish(t, s.title("Race")).Slug
	id := s.bob.comment(t, slug, "Race").ID
	for _, c := range []call{
		s.bob.call(http.MethodDelete, commentAt(slug, id), nil),
		s.ann.call(http.MethodDelete, at(slug), nil),
	} {
		answers := s.together(t, 10, func(int) call { return c })
		if got := statuses(t, answers, http.StatusNoContent, http.StatusNotFound); got[http.StatusNoContent] != 1 {
			t.Errorf("%s: %d of 10 deletions succeeded", c, got[http.StatusNoContent])
		}
	}
}

// testRaceUse deletes articles while others use them.
func (s *suite) testRaceUse(t *testing.T) {
	t.Parallel()
	author, tag := s.register(t, "author"), s.name("race")
	for range 3 {
		slug := author.publish(t, s.title("Race"), tag).Slug
		answers := s.together(t, 30, func(i int) call {
			member := s.crowd[i%len(s.crowd)]
			switch i % 6 {
			case 0:
				return member.call(http.MethodPost, at(slug, "favorite"), nil)
			case 1:
				return member.call(http.MethodPost, at(slug, "comments"), obj{"comment": obj{"body": "Wait"}})
			case 2:
				return member.call(http.MethodGet, at(slug, "comments"), nil)
			case 3:
				return author.call(http.MethodPut, at(slug), obj{"article": obj{"body": "Last words"}})
			case 4:
				return member.call(http.MethodGet, at(slug), nil)
			default:
				return author.call(http.MethodDelete, at(slug), nil)
			}
		})
		statuses(t, answers, http.StatusOK, http.StatusCreated, http.StatusNoContent, http.StatusNotFound)
		s.anyone.get(t, at(slug)).wantError(t, http.StatusNotFound, "article", notFound)
	}
	wantPage(t, s.anyone.get(t, list("/articles", "author", author.Username)), 0)
	wantPage(t, s.anyone.get(t, list("/articles", "tag", tag)), 0)
}
