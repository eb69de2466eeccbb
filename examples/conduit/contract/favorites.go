package contract

import (
	"net/http"
	"testing"
)

func (s *suite) testFavorites(t *testing.T) {
	t.Run("one user", s.testFavoriteOne)
	t.Run("two users", s.testFavoriteTwo)
	t.Run("seen by others", s.testFavoriteSeen)
}

func (s *suite) testFavoriteOne(t *testing.T) {
	t.Parallel()
	fan := s.register(t, "fan")
	published := s.ann.publish(t, s.title("Favourite"), s.name("favourite"))
	slug := published.Slug
	// Each step is done twice: favouriting and unfavouriting are idempotent.
	for _, step := range []struct {
		name  string
		do    func(*testing.T, string) article
		count int
	}{
		{"unfavourite before favouriting", fan.unfavorite, 0},
		{"favourite", fan.favorite, 1},
		{"favourite again", fan.favorite, 1},
		{"unfavourite", fan.unfavorite, 0},
		{"unfavourite again", fan.unfavorite, 0},
		{"favourite anew", fan.favorite, 1},
	} {
		got := step.do(t, slug)
		for _, seen := range []article{got, fan.read(t, slug)} {
			if seen.Slug != slug || seen.Favorited != (step.count == 1) || seen.FavoritesCount != step.count ||
				seen.Title != published.Title || seen.Body != published.Body || len(seen.TagList) != 1 || seen.Author != published.Author {
				t.Errorf("%s: %+v", step.name, seen)
			}
		}
		var want []string
		if step.count == 1 {
			want = []string{slug}
		}
		wantPage(t, s.anyone.get(t, list("/articles", "favorited", fan.Username)), step.count, want...)
	}
	// One may favourite one's own article.
	if got := s.ann.favorite(t, slug); !got.Favorited || got.FavoritesCount != 2 {
		t.Errorf("the author's favourite: %+v", got)
	}
}

func (s *suite) testFavoriteTwo(t *testing.T) {
	t.Parallel()
	slug := s.ann.publish(t, s.title("Favourite")).Slug
	one, two := s.crowd[4], s.crowd[5]
	for _, step := range []struct {
		do       func(*testing.T, string) article
		one, two bool
		count    int
	}{
		{one.favorite, true, false, 1},
		{two.favorite, true, true, 2},
		{one.unfavorite, false, true, 1},
		{one.unfavorite, false, true, 1},
		{one.favorite, true, true, 2},
		{two.unfavorite, true, false, 1},
		{one.unfavorite, false, false, 0},
	} {
		if got := step.do(t, slug); got.FavoritesCount != step.count {
			t.Errorf("favoritesCount %d, wanted %d", got.FavoritesCount, step.count)
		}
		for _, reader := range []struct {
			actor
			want bool
		}{{one, step.one}, {two, step.two}, {s.anyone, false}} {
			if got := reader.read(t, slug); got.FavoritesCount != step.count || got.Favorited != reader.want {
				t.Errorf("%q reads favorited %t, favoritesCount %d; wanted %t, %d",
					reader.Username, got.Favorited, got.FavoritesCount, reader.want, step.count)
			}
		}
	}
}

// testFavoriteSeen looks for the flag of one user in what others read. A cache
// that knows articles by their address alone shows it to everybody.
func (s *suite) testFavoriteSeen(t *testing.T) {
	t.Parallel()
	author, fan, other := s.register(t, "author"), s.crowd[6], s.register(t, "other")
	tag := s.name("seen")
	slug := author.publish(t, s.title("Seen"), tag).Slug
	fan.favorite(t, slug)
	fan.follow(t, author)
	other.follow(t, author)

	targets := []string{
		list("/articles", "author", author.Username), list("/articles", "tag", tag),
		list("/articles", "tag", tag, "favorited", fan.Username), "/articles/feed",
	}
	// The fan reads before and after the others.
	for _, reader := range []struct {
		actor
		want bool
	}{{fan, true}, {other, false}, {s.anyone, false}, {author, false}, {fan, true}, {s.anyone, false}, {other, false}} {
		if got := reader.read(t, slug); got.Favorited != reader.want || got.FavoritesCount != 1 {
			t.Errorf("%q reads favorited %t, favoritesCount %d", reader.Username, got.Favorited, got.FavoritesCount)
		}
		for _, target := range targets {
			if target == "/articles/feed" && reader.Username != fan.Username && reader.Username != other.Username {
				continue // Only these two follow the author.
			}
			for _, got := range reader.get(t, target).page(t).Articles {
				if got.Slug == slug && (got.Favorited != reader.want || got.FavoritesCount != 1) {
					t.Errorf("%s read by %q: favorited %t, favoritesCount %d", target, reader.Username, got.Favorited, got.FavoritesCount)
				}
			}
		}
	}
	if got := author.edit(t, slug, obj{"body": "New"}); got.Favorited || got.FavoritesCount != 1 {
		t.Errorf("the author's edit answered favorited %t, favoritesCount %d", got.Favorited, got.FavoritesCount)
	}
	other.favorite(t, slug)
	if got := fan.unfavorite(t, slug); got.Favorited || got.FavoritesCount != 1 {
		t.Errorf("unfavourite answered favorited %t, favoritesCount %d", got.Favorited, got.FavoritesCount)
	}
	s.anyone.post(t, at(slug, "favorite"), nil).want(t, http.StatusUnauthorized)
	if got := other.read(t, slug); !got.Favorited || got.FavoritesCount != 1 {
		t.Errorf("the other fan's favourite: favorited %t, favoritesCount %d", got.Favorited, got.FavoritesCount)
	}
}
