package caching

import (
	"context"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/loadlinehq/loadline/cache"
	"github.com/loadlinehq/loadline/examples/conduit"
	"github.com/loadlinehq/loadline/examples/conduit/postgres"
)

const (
	// maxDepth is how far into a list pages are kept, and usualLimit the length of most.
	maxDepth   = 200
	usualLimit = 20
	// maxName and maxSlug are more than any that exists has: what is longer is not there, and not worth keeping.
	maxName = 64  // characters, as the schema has it for users; the domain has it for tags
	maxSlug = 512 // bytes
)

// Article returns an article or ErrArticleNotFound.
func (s *Store) Article(ctx context.Context, slug string) (conduit.Article, error) {
	t := s.caches.tiersFor(ctx)
	if t == nil || len(slug) > maxSlug {
		return s.Store.Article(ctx, slug)
	}
	a, err := s.article(ctx, t, slug)
	if err != nil {
		return conduit.Article{}, err
	}
	a.Author, err = s.profile(ctx, t, a.Author.ID)
	if errors.Is(err, conduit.ErrProfileNotFound) { // the author is new to the server, or gone by now
		return s.Store.Article(ctx, slug)
	}
	return a, err
}

func (s *Store) article(ctx context.Context, t *tiers, slug string) (conduit.Article, error) {
	a, err := t.articles.Get(ctx, slug, func(ctx context.Context) (conduit.Article, error) {
		a, err := s.Store.ArticlePart(ctx, slug)
		return a, absent(err, conduit.ErrArticleNotFound)
	})
	return a, failure(err, conduit.ErrArticleNotFound)
}

func (s *Store) profile(ctx context.Context, t *tiers, id int64) (conduit.Profile, error) {
	p, err := t.profiles.Get(ctx, id, func(ctx context.Context) (conduit.Profile, error) {
		some, err := s.Store.ProfileParts(ctx, []int64{id})
		p, ok := some[id]
		if err == nil && !ok {
			err = cache.ErrNotFound
		}
		return p, err
	})
	return p, failure(err, conduit.ErrProfileNotFound)
}

// Profile returns a profile, whatever the case of the username's letters, or ErrProfileNotFound.
func (s *Store) Profile(ctx context.Context, username string) (conduit.Profile, error) {
	t := s.caches.tiersFor(ctx)
	if t == nil || tooLong(username) {
		return s.Store.Profile(ctx, username)
	}
	id, err := t.usernames.Get(ctx, username, func(ctx context.Context) (int64, error) {
		cache.AddTags(ctx, tagName(username))
		p, err := s.Store.Profile(ctx, username)
		return p.ID, absent(err, conduit.ErrProfileNotFound)
	})
	if err != nil {
		return conduit.Profile{}, failure(err, conduit.ErrProfileNotFound)
	}
	return s.profile(ctx, t, id)
}

// Comments returns the newest comments of an article, or ErrArticleNotFound.
func (s *Store) Comments(ctx context.Context, slug string) ([]conduit.Comment, error) {
	t := s.caches.tiersFor(ctx)
	if t == nil || len(slug) > maxSlug {
		return s.Store.Comments(ctx, slug)
	}
	a, err := s.article(ctx, t, slug)
	if err != nil {
		return nil, err
	}
	kept, err := t.comments.Get(ctx, a.ID, func(ctx context.Context) ([]conduit.Comment, error) {
		return s.Store.CommentParts(ctx, a.ID)
	})
	if err != nil {
		return nil, failure(err, nil)
	}
	authors := make([]int64, len(kept))
	for i, c := range kept {
		authors[i] = c.Author.ID
	}
	profiles, err := s.profiles(ctx, t, authors)
	if err != nil {
		return nil, err
	}
	comments := make([]conduit.Comment, 0, len(kept)) // what is kept is shared
	for _, c := range kept {
		author, ok := profiles[c.Author.ID]
		if !ok {
			continue
		}
		c.Author = author
		comments = append(comments, c)
	}
	return comments, nil
}

// Tags returns the tags in use, the most used first.
func (s *Store) Tags(ctx context.Context) ([]string, error) {
	t := s.caches.tiersFor(ctx)
	if t == nil {
		return s.Store.Tags(ctx)
	}
	tags, err := t.tags.Get(ctx, allTags, s.Store.Tags)
	return tags, failure(err, nil)
}

// ListArticles returns a page of the articles that fit the filter.
func (s *Store) ListArticles(ctx context.Context, f conduit.ArticleFilter, w conduit.Window) (conduit.ArticlePage, error) {
	t := s.caches.tiersFor(ctx)
	if t == nil || tooLong(f.Tag) || tooLong(f.Author) || tooLong(f.FavoritedBy) {
		return s.Store.ListArticles(ctx, f, w)
	}
	if w.Offset+w.Limit > maxDepth {
		// How long the list is, its beginning knows. Who looks beyond its end costs nothing, and who read the
		// end is not told by a replica that is behind that there is another.
		first, err := s.listing(ctx, t, f, conduit.Window{Limit: usualLimit})
		if err != nil {
			return conduit.ArticlePage{}, err
		}
		if w.Offset >= first.Total {
			return conduit.ArticlePage{Total: first.Total}, nil
		}
		page, err := s.Store.ListArticles(ctx, f, w)
		if err == nil {
			page.Total = first.Total
		}
		return page, err
	}
	listing, err := s.listing(ctx, t, f, w)
	if err != nil {
		return conduit.ArticlePage{}, err
	}
	page, whole, err := s.page(ctx, t, listing)
	if err == nil && !whole {
		return s.Store.ListArticles(ctx, f, w)
	}
	return page, err
}

func (s *Store) listing(ctx context.Context, t *tiers, f conduit.ArticleFilter, w conduit.Window) (postgres.Listing, error) {
	listing, err := t.lists.Get(ctx, listKey{f, w}, func(ctx context.Context) (postgres.Listing, error) {
		l, err := s.Store.ListArticleIDs(ctx, f, w)
		cache.AddTags(ctx, tagsOf(f, l)...)
		return l, err
	})
	return listing, failure(err, nil)
}

// Views returns how often an article has been viewed. They are counted later anyway; that there is an article, a
// replica that is behind may not know either.
func (s *Store) Views(ctx context.Context, slug string) (int64, error) {
	views, err := s.Store.Views(ctx, slug)
	t := s.caches.tiersFor(ctx)
	if t == nil || len(slug) > maxSlug || !errors.Is(err, conduit.ErrArticleNotFound) {
		return views, err
	}
	_, err = s.article(ctx, t, slug)
	return 0, err
}

// Feed returns a page of the articles by users whom the viewer follows. Which those are is his own, and comes from the
// database.
func (s *Store) Feed(ctx context.Context, viewer int64, w conduit.Window) (conduit.ArticlePage, error) {
	t := s.caches.tiersFor(ctx)
	if t == nil {
		return s.Store.Feed(ctx, viewer, w)
	}
	listing, err := s.Store.FeedIDs(ctx, viewer, w)
	if err != nil {
		return conduit.ArticlePage{}, err
	}
	page, whole, err := s.page(ctx, t, listing)
	if err == nil && !whole {
		return s.Store.Feed(ctx, viewer, w)
	}
	return page, err
}

// page puts a page together. It is not whole where an article is gone since it was listed: the page was never like that, and
// one query has it as it is.
func (s *Store) page(ctx context.Context, t *tiers, l postgres.Listing) (page conduit.ArticlePage, whole bool, err error) {
	page = conduit.ArticlePage{Articles: make([]conduit.Article, 0, len(l.IDs)), Total: l.Total}
	if len(l.IDs) == 0 {
		return page, true, nil
	}
	summaries, err := t.summaries.GetMany(ctx, l.IDs, s.Store.SummaryParts)
	if err != nil {
		return page, false, failure(err, nil)
	}
	authors := make([]int64, 0, len(summaries))
	for _, a := range summaries {
		authors = append(authors, a.Author.ID)
	}
	profiles, err := s.profiles(ctx, t, authors)
	if err != nil {
		return page, false, err
	}
	for _, id := range l.IDs {
		a, there := summaries[id]
		author, known := profiles[a.Author.ID]
		if there && known {
			a.Author = author
			page.Articles = append(page.Articles, a)
		}
	}
	return page, len(page.Articles) == len(l.IDs), nil
}

func (s *Store) profiles(ctx context.Context, t *tiers, ids []int64) (map[int64]conduit.Profile, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	profiles, err := t.profiles.GetMany(ctx, ids, s.Store.ProfileParts)
	return profiles, failure(err, nil)
}

func tooLong(name string) bool {
	return len(name) > maxName && utf8.RuneCountInString(name) > maxName
}

// absent says in the cache's words that something is not there.
func absent(err, missing error) error {
	if errors.Is(err, missing) {
		return cache.ErrNotFound
	}
	return err
}

// failure says in the domain's words why a read has failed.
func failure(err, missing error) error {
	switch {
	case err == nil:
		return nil
	case missing != nil && errors.Is(err, cache.ErrNotFound):
		return missing
	case errors.Is(err, cache.ErrOverloaded):
		return fmt.Errorf("caching: %w: %w", conduit.ErrUnavailable, err)
	}
	return err
}
