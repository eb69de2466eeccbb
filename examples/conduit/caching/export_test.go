package caching

import (
	"context"
	"errors"
	"reflect"

	"github.com/loadlinehq/loadline/cache"
	"github.com/loadlinehq/loadline/examples/conduit"
	"github.com/loadlinehq/loadline/examples/conduit/postgres"
	"github.com/loadlinehq/loadline/examples/conduit/postgres/sqlc"
)

// Fold is what the tags of names are made of.
var Fold = fold

// Forget leaves out the target with a number of each change: what a store does that has a mistake. It returns how many
// targets the last change has had.
func (s *Store) Forget(number int) (targets func() int) {
	f := &forgetful{Store: s, number: number}
	s.Store = s.Store.Telling(f)
	return func() int { return f.had }
}

type forgetful struct {
	*Store
	number, had int
}

func (f *forgetful) Changed(ctx context.Context, tx sqlc.DBTX, change any) error {
	targets, err := f.caches.targets(ctx, change)
	if err != nil {
		return err
	}
	f.had = len(targets)
	if f.number < len(targets) {
		targets = append(targets[:f.number:f.number], targets[f.number+1:]...)
	}
	return f.tell(ctx, tx, targets)
}

// KeptTypes are the types of what is kept.
func KeptTypes() []reflect.Type {
	var kept []reflect.Type
	all := reflect.TypeFor[tiers]()
	for i := range all.NumField() {
		if get, ok := all.Field(i).Type.MethodByName("Get"); ok {
			kept = append(kept, get.Type.Out(0))
		}
	}
	return kept
}

// Kept reads what is kept, past the database: found says whether there is anything.
type Kept struct{ t *tiers }

// Kept is for tests that look at what is kept.
func (c *Caches) Kept() *Kept { return &Kept{c.tiers} }

type errNotKept struct{}

func (errNotKept) Error() string { return "it is not kept" }

func kept[K comparable, V any](ctx context.Context, c *cache.Cache[K, V], key K) (v V, err error, found bool) {
	v, err = c.Get(ctx, key, func(context.Context) (v V, err error) { return v, errNotKept{} })
	return v, err, err == nil || errors.Is(err, cache.ErrNotFound)
}

// Article is nil where it is kept that there is none.
func (k *Kept) Article(ctx context.Context, slug string) (*conduit.Article, bool) {
	a, err, found := kept(ctx, k.t.articles, slug)
	return orNil(a, err), found
}

func (k *Kept) Summary(ctx context.Context, id int64) (*conduit.Article, bool) {
	a, err, found := kept(ctx, k.t.summaries, id)
	return orNil(a, err), found
}

func (k *Kept) Profile(ctx context.Context, id int64) (*conduit.Profile, bool) {
	p, err, found := kept(ctx, k.t.profiles, id)
	return orNil(p, err), found
}

func (k *Kept) UserID(ctx context.Context, name string) (*int64, bool) {
	id, err, found := kept(ctx, k.t.usernames, name)
	return orNil(id, err), found
}

func (k *Kept) List(ctx context.Context, f conduit.ArticleFilter, w conduit.Window) (*postgres.Listing, bool) {
	l, err, found := kept(ctx, k.t.lists, listKey{f, w})
	return orNil(l, err), found
}

func (k *Kept) Comments(ctx context.Context, article int64) (*[]conduit.Comment, bool) {
	c, err, found := kept(ctx, k.t.comments, article)
	return orNil(c, err), found
}

func (k *Kept) Tags(ctx context.Context) (*[]string, bool) {
	tags, err, found := kept(ctx, k.t.tags, allTags)
	return orNil(tags, err), found
}

func orNil[V any](v V, err error) *V {
	if err != nil {
		return nil
	}
	return &v
}

// ForgetSummary has the summary of an article loaded anew, and nothing else.
func (s *Store) ForgetSummary(ctx context.Context, article int64) error {
	return s.caches.Invalidate(ctx, s.caches.tiersFor(ctx).summaries.Key(ctx, article))
}
