package caching_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/loadlinehq/loadline/examples/conduit"
	"github.com/loadlinehq/loadline/examples/conduit/postgres"
)

// crowd does what users do, to a few articles, so that they get in each other's way.
type crowd struct {
	mu       sync.Mutex
	users    []conduit.User
	names    []string // that users have, or had
	articles []int64
	slugs    []string // that articles have, or had
	tags     []string
	comments map[string][]int64             // by the article's slug
	filters  map[conduit.ArticleFilter]bool // that lists were read by
}

func (c *crowd) pick(r *rand.Rand) (user conduit.User, slug, tag string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.users[r.IntN(len(c.users))], c.slugs[r.IntN(len(c.slugs))], c.tags[r.IntN(len(c.tags))]
}

func (c *crowd) published(a conduit.Article, err error) {
	if err == nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.articles, c.slugs = append(c.articles, a.ID), append(c.slugs, a.Slug)
	}
}

// act is one write, or some reads.
func (c *crowd) act(ctx context.Context, r *rand.Rand, i *instance) error {
	user, slug, tag := c.pick(r)
	var err error
	switch r.IntN(24) {
	case 0:
		a, failed := i.CreateArticle(ctx, user.ID, draft("An article", tag))
		c.published(a, failed)
		err = failed
	case 1:
		a, failed := i.UpdateArticle(ctx, user.ID, slug, conduit.ArticleChange{Title: new(fmt.Sprint("Renamed ", r.IntN(20)))})
		c.published(a, failed)
		err = failed
	case 2:
		_, err = i.UpdateArticle(ctx, user.ID, slug, conduit.ArticleChange{TagList: []string{tag}})
	case 3:
		if r.IntN(3) == 0 {
			err = i.DeleteArticle(ctx, user.ID, slug)
		}
	case 4, 5:
		_, err = i.Favorite(ctx, user.ID, slug)
	case 6:
		_, err = i.Unfavorite(ctx, user.ID, slug)
	case 7:
		written, failed := i.CreateComment(ctx, user.ID, slug, "Well")
		c.mu.Lock()
		c.comments[slug] = append(c.comments[slug], written.ID)
		c.mu.Unlock()
		err = failed
	case 8:
		c.mu.Lock()
		ids := slices.Clone(c.comments[slug])
		c.mu.Unlock()
		if len(ids) > 0 {
			err = i.DeleteComment(ctx, user.ID, slug, ids[r.IntN(len(ids))])
		}
	case 9:
		name := fmt.Sprint("Name", r.IntN(20))
		if _, err = i.UpdateUser(ctx, user.ID, conduit.UserChange{Username: &name}, ""); err == nil {
			c.mu.Lock()
			c.names = append(c.names, name)
			c.mu.Unlock()
		}
	default:
		_, err1 := i.Article(ctx, slug)
		_, err2 := i.Comments(ctx, slug)
		_, err3 := i.ListArticles(ctx, c.filter(r), conduit.Window{Limit: 5})
		_, err4 := i.Profile(ctx, c.name(r))
		_, err5 := i.Tags(ctx)
		for _, failed := range []error{err1, err2, err3, err4, err5} {
			if _, refused := errors.AsType[*conduit.Error](failed); failed != nil && !refused {
				return failed
			}
		}
	}
	if e, ok := errors.AsType[*pgconn.PgError](err); ok && e.Code == "40P01" {
		return err // a deadlock
	}
	if _, refused := errors.AsType[*conduit.Error](err); refused || errors.Is(err, conduit.ErrUnavailable) {
		return nil
	}
	return err
}

func (c *crowd) name(r *rand.Rand) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.names[r.IntN(len(c.names))]
}

func (c *crowd) filter(r *rand.Rand) (f conduit.ArticleFilter) {
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.filters[f] = true
	}()
	if r.IntN(2) == 0 {
		f.Tag = c.tags[r.IntN(len(c.tags))]
	}
	if r.IntN(2) == 0 {
		f.Author = c.name(r)
	}
	if r.IntN(3) == 0 {
		f.FavoritedBy = c.name(r)
	}
	return f
}

// At rest, all that is kept is what the database has: in two instances in which many have written and read, and in a
// third one, which has nothing but what is in Redis.
func TestAtRest(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 2)
	c := &crowd{comments: make(map[string][]int64), filters: make(map[conduit.ArticleFilter]bool)}
	for n := range 5 {
		c.users = append(c.users, register(t, f.instances[n%2], fmt.Sprint("user", n)))
		c.names = append(c.names, fmt.Sprint("user", n), fmt.Sprint("USER", n))
		c.tags = append(c.tags, fmt.Sprint("tag", n))
		c.published(f.instances[n%2].CreateArticle(anyone(t.Context()), c.users[n].ID, draft(fmt.Sprint("First ", n), c.tags[n])))
	}
	acts := 80
	if slow {
		acts = 3000
	}
	var acting sync.WaitGroup
	for worker := range 6 {
		acting.Go(func() {
			r := rand.New(rand.NewPCG(uint64(worker), 1))
			ctx, _ := somebody(context.Background())
			for range acts {
				reader := ctx
				if r.IntN(2) == 0 {
					reader = anyone(ctx)
				}
				if err := c.act(reader, r, f.instances[r.IntN(2)]); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	acting.Wait()
	f.settle(t)
	third := f.start()
	waitFor(t, "the third instance is active", third.caches.Active)
	for n, i := range f.instances {
		entries := 0
		waitFor(t, "all entries are the database's", func() bool {
			diffs, found := c.compare(t, f.database, i)
			if entries = found; len(diffs) > 0 {
				t.Logf("instance %d: %v", n, diffs) // it may not have heard yet
				time.Sleep(100 * time.Millisecond)
			}
			return len(diffs) == 0
		})
		t.Logf("instance %d: %d entries, as the database has them", n, entries)
		if entries < 20 {
			t.Errorf("instance %d keeps only %d entries", n, entries)
		}
	}
}

// compare returns what differs among what is kept, and how much there is.
func (c *crowd) compare(t *testing.T, database *postgres.Store, i *instance) (diffs []string, found int) {
	t.Helper()
	ctx, kept := anyone(t.Context()), i.caches.Kept()
	check := func(what string, have any, there bool, want any) {
		if !there {
			return
		}
		found++
		if diff := cmp.Diff(want, have, cmpopts.EquateEmpty()); diff != "" {
			diffs = append(diffs, what+":\n"+diff)
		}
	}
	slices.Sort(c.slugs)
	c.slugs = slices.Compact(c.slugs)
	for _, slug := range c.slugs {
		a, err := database.ArticlePart(ctx, slug)
		have, there := kept.Article(ctx, slug)
		check("article "+slug, have, there, orAbsent(t, a, err))
	}
	slices.Sort(c.articles)
	c.articles = slices.Compact(c.articles)
	summaries, err := database.SummaryParts(ctx, c.articles)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range c.articles {
		var want *conduit.Article
		if a, ok := summaries[id]; ok {
			want = &a
			comments, err := database.CommentParts(ctx, id)
			have, there := kept.Comments(ctx, id)
			check(fmt.Sprint("comments of ", id), have, there, orAbsent(t, comments, err))
		}
		have, there := kept.Summary(ctx, id)
		check(fmt.Sprint("summary of ", id), have, there, want)
	}
	slices.Sort(c.names)
	c.names = slices.Compact(c.names)
	for _, name := range c.names {
		p, err := database.Profile(ctx, name)
		have, there := kept.UserID(ctx, name)
		check("name "+name, have, there, orAbsent(t, p.ID, err))
	}
	for _, u := range c.users {
		profiles, err := database.ProfileParts(ctx, []int64{u.ID})
		have, there := kept.Profile(ctx, u.ID)
		check("profile", have, there, orAbsent(t, profiles[u.ID], err))
	}
	w := conduit.Window{Limit: 5}
	for filter := range c.filters {
		if have, there := kept.List(ctx, filter, w); there {
			l, err := database.ListArticleIDs(ctx, filter, w)
			check(fmt.Sprintf("list %+v", filter), have, there, orAbsent(t, l, err))
		}
	}
	tags, err := database.Tags(ctx)
	have, there := kept.Tags(ctx)
	check("tags", have, there, orAbsent(t, tags, err))
	return diffs, found
}

func orAbsent[V any](t *testing.T, v V, err error) *V {
	t.Helper()
	if _, refused := errors.AsType[*conduit.Error](err); refused {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	return &v
}
