package contract

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const (
	defaultLimit = 20
	maxLimit     = 100
)

func (s *suite) testLists(t *testing.T) {
	t.Run("all", s.testListAll)
	t.Run("pages", s.testListPages)
	t.Run("filters", s.testListFilters)
	t.Run("bad limits", func(t *testing.T) { s.testBadLimits(t, "/articles") })
	t.Run("odd filters", s.testOddFilters)
}

// wantPage ends the test unless the answer is a page with these articles, in
// this order, out of count.
func wantPage(t *testing.T, a *answer, count int, slugs ...string) {
	t.Helper()
	got := a.page(t)
	if got.ArticlesCount != count || !slices.Equal(got.slugs(), slugs) {
		t.Fatalf("wanted %v of %d, got %v of %d\n%s", slugs, count, got.slugs(), got.ArticlesCount, a)
	}
}

// testListAll looks at the list without filters, which other clients change.
func (s *suite) testListAll(t *testing.T) {
	t.Parallel()
	// The count and the page may lie a few articles apart, so it takes many
	// articles to expect a full page.
	wantFull := func(target string, limit int) {
		t.Helper()
		got := s.anyone.get(t, target).page(t)
		if len(got.Articles) > limit || got.ArticlesCount > 2*limit && len(got.Articles) < limit {
			t.Errorf("%s gave %d articles of %d, wanted %d", target, len(got.Articles), got.ArticlesCount, limit)
		}
	}
	wantFull("/articles", defaultLimit)
	for _, limit := range []string{"1000000", "2147483648", "9223372036854775807"} {
		wantFull("/articles?limit="+limit, maxLimit)
	}
	fresh := s.ann.publish(t, s.title("Fresh"), s.name("fresh"))
	for _, reader := range []actor{s.anyone, s.ann, s.bob} {
		page := reader.get(t, "/articles?limit=100").page(t)
		i := slices.Index(page.slugs(), fresh.Slug)
		if i < 0 || page.ArticlesCount < 1 {
			t.Fatalf("a new article is not among the newest 100 of %d: %v", page.ArticlesCount, page.slugs())
		}
		got := page.Articles[i]
		if got.Title != fresh.Title || got.Description != fresh.Description || !slices.Equal(got.TagList, fresh.TagList) ||
			!got.CreatedAt.Equal(fresh.CreatedAt) || !got.UpdatedAt.Equal(fresh.UpdatedAt) || got.Author != fresh.Author || got.Favorited {
			t.Errorf("in the list %+v, published %+v", got, fresh)
		}
	}
}

func (s *suite) testListPages(t *testing.T) {
	t.Parallel()
	author, tag := s.register(t, "pages"), s.name("pages")
	const total = defaultLimit + 3
	all := author.publishMany(t, total, "Page", tag)
	for _, filter := range [][]string{{"author", author.Username}, {"tag", tag}, {"author", author.Username, "tag", tag}} {
		query := func(pairs ...string) *answer {
			return s.anyone.get(t, list("/articles", append(slices.Clone(filter), pairs...)...))
		}
		wantPage(t, query(), total, all[:defaultLimit]...)
		wantPage(t, query("offset", "20"), total, all[20:]...)
		wantPage(t, query("limit", "1"), total, all[0])
		wantPage(t, query("limit", "1", "offset", "1"), total, all[1])
		wantPage(t, query("limit", "100"), total, all...)
		wantPage(t, query("limit", "1000000"), total, all...)
		// Beyond the end the page is empty, the count is not.
		wantPage(t, query("offset", strconv.Itoa(total)), total)
		wantPage(t, query("offset", "1000000000"), total)
		wantPage(t, query("offset", "9223372036854775807"), total)

		// A walk meets every article once.
		const step = 7
		for offset := 0; offset < total; offset += step {
			wantPage(t, query("limit", strconv.Itoa(step), "offset", strconv.Itoa(offset)), total, all[offset:min(offset+step, total)]...)
		}
	}
	newest := s.anyone.get(t, list("/articles", "author", author.Username)).page(t)
	for i, got := range newest.Articles[1:] {
		if got.CreatedAt.After(newest.Articles[i].CreatedAt) {
			t.Errorf("%v comes after %v in a list of the newest first", got.CreatedAt, newest.Articles[i].CreatedAt)
		}
	}
	// An edit is no publication: it changes no place.
	author.edit(t, all[9], obj{"body": "Edited"})
	wantPage(t, s.anyone.get(t, list("/articles", "author", author.Username)), total, all[:defaultLimit]...)
}

func (s *suite) testListFilters(t *testing.T) {
	t.Parallel()
	alice, carl, fan := s.register(t, "alice"), s.register(t, "carl"), s.register(t, "fan")
	// A tag may hold anything; a query must find it.
	red, blue := s.name("red & blue/ü?#%+"), s.name("blue")
	a1 := alice.publish(t, s.title("Filter"), red, blue).Slug
	c1 := carl.publish(t, s.title("Filter"), red).Slug
	a2 := alice.publish(t, s.title("Filter"), blue).Slug
	c2 := carl.publish(t, s.title("Filter")).Slug
	for _, slug := range []string{c2, a1, c1} { // Not the order of publication.
		fan.favorite(t, slug)
	}
	for _, test := range []struct {
		pairs []string
		want  []string
	}{
		{[]string{"author", alice.Username}, []string{a2, a1}},
		{[]string{"author", carl.Username}, []string{c2, c1}},
		{[]string{"author", fan.Username}, nil},
		{[]string{"tag", red}, []string{c1, a1}},
		{[]string{"tag", blue}, []string{a2, a1}},
		{[]string{"favorited", fan.Username}, []string{c2, c1, a1}},
		{[]string{"favorited", alice.Username}, nil},
		{[]string{"author", alice.Username, "tag", red}, []string{a1}},
		{[]string{"author", alice.Username, "favorited", fan.Username}, []string{a1}},
		{[]string{"tag", red, "favorited", fan.Username}, []string{c1, a1}},
		{[]string{"tag", blue, "favorited", fan.Username}, []string{a1}},
		{[]string{"author", carl.Username, "tag", red, "favorited", fan.Username}, []string{c1}},
		{[]string{"author", carl.Username, "tag", blue, "favorited", fan.Username}, nil},
		{[]string{"author", s.name("nobody")}, nil},
		{[]string{"tag", s.name("nothing")}, nil},
		{[]string{"favorited", s.name("nobody")}, nil},
		{[]string{"author", alice.Username, "tag", s.name("nothing")}, nil},
	} {
		for _, reader := range []actor{s.anyone, fan} {
			wantPage(t, reader.get(t, list("/articles", test.pairs...)), len(test.want), test.want...)
		}
		if len(test.want) > 1 {
			second := append(slices.Clone(test.pairs), "limit", "1", "offset", "1")
			wantPage(t, s.anyone.get(t, list("/articles", second...)), len(test.want), test.want[1])
		}
	}
}

// testBadLimits serves the feed too.
func (s *suite) testBadLimits(t *testing.T, path string) {
	t.Parallel()
	for _, parameter := range []string{"limit", "offset"} {
		for _, value := range []string{"-1", "abc", "1.5", "1e3", "0x10", " 1", "\x00", "１"} {
			s.ann.get(t, list(path, parameter, value)).wantError(t, http.StatusUnprocessableEntity, parameter, "")
		}
		// A number too large for any integer is either too large or no number.
		huge := s.ann.get(t, list(path, parameter, "99999999999999999999999999"))
		if huge.status != http.StatusUnprocessableEntity {
			huge.page(t)
		}
	}
	s.ann.get(t, list(path, "limit", "0")).wantError(t, http.StatusUnprocessableEntity, "limit", "")
	s.ann.get(t, list(path, "offset", "0")).want(t, http.StatusOK)
}

func (s *suite) testOddFilters(t *testing.T) {
	t.Parallel()
	for _, filter := range []string{"tag", "author", "favorited"} {
		for _, value := range []string{"\x00", "x\x00y", "\xff\xfe", "%", "_", "' OR 1=1 --", strings.Repeat("x", 3000)} {
			got := s.anyone.get(t, list("/articles", filter, value))
			if got.status != http.StatusUnprocessableEntity {
				wantPage(t, got, 0)
			}
		}
	}
}
