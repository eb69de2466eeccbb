package caching

import (
	"errors"
	"strconv"

	"github.com/loadlinehq/loadline/cache"
	"github.com/loadlinehq/loadline/examples/conduit"
	"github.com/loadlinehq/loadline/examples/conduit/postgres"
)

// tiers are the caches, by what they keep.
type tiers struct {
	articles  *cache.Cache[string, conduit.Article]   // by slug, with no more of the author than the id
	summaries *cache.Cache[int64, conduit.Article]    // by id, the same without the body
	profiles  *cache.Cache[int64, conduit.Profile]    // by id
	usernames *cache.Cache[string, int64]             // id by a name as somebody has written it
	lists     *cache.Cache[listKey, postgres.Listing] // ids
	comments  *cache.Cache[int64, []conduit.Comment]  // by the article's id, with no more of the authors than the ids
	tags      *cache.Cache[string, []string]          // one entry
}

// allTags is the key of the tags.
const allTags = "all"

// listKey is a page of a list.
type listKey struct {
	filter conduit.ArticleFilter
	window conduit.Window
}

// text is another for each key: lengths say where names end.
func (k listKey) text() string {
	var b []byte
	for _, n := range []int{k.window.Limit, k.window.Offset, len(k.filter.Tag), len(k.filter.Author)} {
		b = append(strconv.AppendInt(b, int64(n), 10), ' ')
	}
	return string(b) + k.filter.Tag + k.filter.Author + k.filter.FavoritedBy
}

// maxValue is that of an article's comments, which have a bound of conduit.MaxCommentsBytes, in JSON, where each sign may
// become six.
const maxValue = 6*(conduit.MaxCommentsBytes+conduit.MaxComment*4) + 1<<20

// newTiers shares maxBytes of this process among the caches: guesses, by what a busy site reads.
func newTiers(store *cache.Store, maxBytes int64) (*tiers, error) {
	t := new(tiers)
	var errs [7]error
	t.articles, errs[0] = newCache[string, conduit.Article](store, "article", cache.Warm(), maxBytes*35/100, nil)
	t.summaries, errs[1] = newCache[int64, conduit.Article](store, "summary", cache.Warm(), maxBytes*20/100, nil)
	t.profiles, errs[2] = newCache[int64, conduit.Profile](store, "profile", cache.Cold(), maxBytes*10/100, nil)
	t.usernames, errs[3] = newCache[string, int64](store, "username", cache.Cold(), maxBytes*5/100, nil)
	t.lists, errs[4] = newCache[listKey, postgres.Listing](store, "list", cache.Hot(), maxBytes*10/100, listKey.text)
	t.comments, errs[5] = newCache[int64, []conduit.Comment](store, "comments", cache.Warm(), maxBytes*15/100, nil)
	t.tags, errs[6] = newCache[string, []string](store, "tags", cache.Hot(), maxBytes*5/100, nil)
	return t, errors.Join(errs[:]...)
}

func newCache[K comparable, V any](store *cache.Store, name string, class cache.Class, maxBytes int64, text func(K) string) (*cache.Cache[K, V], error) {
	return cache.New(store, cache.Config[K, V]{Name: name, Class: class, MaxBytes: maxBytes, MaxValueBytes: maxValue, KeyText: text})
}
