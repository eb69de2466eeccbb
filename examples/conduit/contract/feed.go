package contract

import (
	"slices"
	"strconv"
	"testing"
)

func (s *suite) testFeed(t *testing.T) {
	t.Run("follow", s.testFeedFollow)
	t.Run("pages", s.testFeedPages)
	t.Run("bad limits", func(t *testing.T) { s.testBadLimits(t, "/articles/feed") })
}

func (s *suite) testFeedFollow(t *testing.T) {
	t.Parallel()
	reader, alice, carl := s.register(t, "reader"), s.register(t, "alice"), s.register(t, "carl")
	feed := func() *answer { return reader.get(t, "/articles/feed") }
	wantPage(t, feed(), 0)

	// What is older than the follow belongs to the feed, too.
	a1 := alice.publish(t, s.title("Feed"), s.name("feed")).Slug
	c1 := carl.publish(t, s.title("Feed")).Slug
	wantPage(t, feed(), 0)
	reader.follow(t, alice)
	wantPage(t, feed(), 1, a1)
	reader.follow(t, carl)
	wantPage(t, feed(), 2, c1, a1)
	a2 := alice.publish(t, s.title("Feed")).Slug
	wantPage(t, feed(), 3, a2, c1, a1)
	c2 := carl.publish(t, s.title("Feed")).Slug
	reader.publish(t, s.title("One's own"))
	wantPage(t, feed(), 4, c2, a2, c1, a1)

	reader.favorite(t, c1)
	for _, got := range feed().page(t).Articles {
		if !got.Author.Following || got.Favorited != (got.Slug == c1) {
			t.Errorf("in the feed: %+v", got)
		}
	}
	reader.unfollow(t, carl)
	wantPage(t, feed(), 2, a2, a1)
	carl.publish(t, s.title("Unseen"))
	wantPage(t, feed(), 2, a2, a1)
	alice.delete(t, at(a2)).want(t, 204)
	wantPage(t, feed(), 1, a1)
	reader.unfollow(t, alice)
	wantPage(t, feed(), 0)
	reader.follow(t, alice)
	wantPage(t, feed(), 1, a1)
	// A feed is its reader's.
	wantPage(t, alice.get(t, "/articles/feed"), 0)
}

func (s *suite) testFeedPages(t *testing.T) {
	t.Parallel()
	reader, alice, carl := s.register(t, "reader"), s.register(t, "alice"), s.register(t, "carl")
	reader.follow(t, alice)
	reader.follow(t, carl)
	const total = defaultLimit + 3
	var all []string
	for i := range total { // Uneven shares, so that pages mix.
		author := alice
		if i%3 == 0 {
			author = carl
		}
		all = append(all, author.publish(t, s.title("Feed page")).Slug)
	}
	slices.Reverse(all)
	feed := func(pairs ...string) *answer { return reader.get(t, list("/articles/feed", pairs...)) }
	wantPage(t, feed(), total, all[:defaultLimit]...)
	wantPage(t, feed("limit", "1000000"), total, all...)
	wantPage(t, feed("limit", "1", "offset", "1"), total, all[1])
	wantPage(t, feed("offset", strconv.Itoa(total)), total)
	wantPage(t, feed("offset", "9223372036854775807"), total)
	const step = 5
	for offset := 0; offset < total; offset += step {
		wantPage(t, feed("limit", strconv.Itoa(step), "offset", strconv.Itoa(offset)), total, all[offset:min(offset+step, total)]...)
	}
}
