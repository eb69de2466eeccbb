package caching

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"github.com/loadlinehq/loadline/cache"
	"github.com/loadlinehq/loadline/examples/conduit"
	"github.com/loadlinehq/loadline/examples/conduit/postgres"
)

// The tags. That of a username is folded, so that it is the same for all that the database may take for one name.
const (
	tagAll       = "list:all"
	tagFavorites = "list:favorites"
)

func tagName(username string) string { return "name:" + fold(username) }
func tagOfTag(name string) string    { return "list:tag:" + name }
func tagOfAuthor(id int64) string    { return "list:author:" + strconv.FormatInt(id, 10) }
func tagOfFan(id int64) string       { return "list:fan:" + strconv.FormatInt(id, 10) }

// tagsOf returns the tags of a page. They name what each of its conditions hangs on, and are of the narrowest
// that a filter has, or each article of a popular tag would end the pages of all authors who use it:
//
//	all               list:all
//	tag               list:tag:T, which need not exist yet
//	author            the name, which may become another's, and list:author:ID: what he publishes, deletes, tags
//	favorited         the name, list:fan:ID: what he favourites, and list:favorites: what is deleted, or tagged
//
// A user's id comes and goes with his name, whose tag is there before and after. Whoever relies on the
// id's, author or fan, has made that change himself, and his session has it.
func tagsOf(f conduit.ArticleFilter, l postgres.Listing) []string {
	var tags []string
	if f.FavoritedBy != "" {
		tags = append(tags, tagName(f.FavoritedBy), tagFavorites)
		if l.FanID != 0 {
			tags = append(tags, tagOfFan(l.FanID))
		}
	}
	if f.Author != "" {
		tags = append(tags, tagName(f.Author))
		if l.AuthorID != 0 {
			tags = append(tags, tagOfAuthor(l.AuthorID))
		}
	}
	switch {
	case len(tags) > 0:
		return tags
	case f.Tag != "":
		return []string{tagOfTag(f.Tag)}
	}
	return []string{tagAll}
}

// targets returns what a change ends. What is new is ended as well: a replica that is behind does not know it, and
// without a fence its answer would be kept.
func (t *tiers) targets(ctx context.Context, change any) ([]cache.Target, error) {
	switch c := change.(type) {
	case conduit.ArticleChanged:
		return t.ofArticle(ctx, c), nil
	case conduit.FavoriteChanged:
		return []cache.Target{t.articles.Key(ctx, c.Slug), t.summaries.Key(ctx, c.ArticleID), cache.Tag("", tagOfFan(c.UserID))}, nil
	case conduit.CommentsChanged:
		return []cache.Target{t.comments.Key(ctx, c.ArticleID)}, nil
	case conduit.UserChanged:
		targets := []cache.Target{t.profiles.Key(ctx, c.ID)}
		if c.OldUsername != c.Username {
			for _, name := range named(c.OldUsername, c.Username) {
				targets = append(targets, cache.Tag("", tagName(name)))
			}
		}
		return targets, nil
	}
	return nil, fmt.Errorf("caching: a %T changes nothing that is known", change)
}

func (t *tiers) ofArticle(ctx context.Context, c conduit.ArticleChanged) []cache.Target {
	targets := []cache.Target{t.summaries.Key(ctx, c.ID)}
	for _, slug := range named(c.OldSlug, c.Slug) {
		targets = append(targets, t.articles.Key(ctx, slug))
	}
	tag := func(name string) { targets = append(targets, cache.Tag("", name)) }
	born, gone := c.OldSlug == "", c.Slug == ""
	var changed []string
	for _, name := range slices.Concat(c.OldTags, c.Tags) {
		if slices.Contains(c.OldTags, name) != slices.Contains(c.Tags, name) {
			changed = append(changed, name)
			tag(tagOfTag(name))
		}
	}
	if len(changed) > 0 {
		targets = append(targets, t.tags.Key(ctx, allTags))
	}
	if born || gone {
		tag(tagAll)
	}
	if born || gone || len(changed) > 0 {
		tag(tagOfAuthor(c.AuthorID))
	}
	// Nobody has favourited what is new.
	if gone || len(changed) > 0 && !born {
		tag(tagFavorites)
	}
	if gone {
		targets = append(targets, t.comments.Key(ctx, c.ID))
	}
	return targets
}

// named returns those of two names that are there, once each.
func named(before, after string) []string {
	names := []string{before, after}
	return slices.Compact(slices.DeleteFunc(names, func(name string) bool { return name == "" }))
}
