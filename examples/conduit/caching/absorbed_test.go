package caching_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sort"
	"sync/atomic"
	"testing"

	"github.com/loadlinehq/loadline/examples/conduit"
	"github.com/loadlinehq/loadline/examples/conduit/postgres"
)

// BenchmarkAbsorbed: what share of the statements that readers cost a site without a cache does not reach the database.
// Of a hundred requests 95 read, of which a fifth are of users who are logged in, whose marks and feeds are their own. Two
// instances share Redis. It reports the share after a warm-up.
//
//	go test -run '^$' -bench BenchmarkAbsorbed -benchtime 20000x ./caching
func BenchmarkAbsorbed(b *testing.B) {
	for _, skew := range []float64{0.6, 0.8, 1.0} {
		b.Run(fmt.Sprintf("zipf=%.1f", skew), func(b *testing.B) {
			f := newFleet(b, 2)
			s := newSite(b, f, skew)
			s.warm(b)
			s.cost = [2]cost{}
			for b.Loop() {
				s.request(b)
			}
			anyone, users := s.cost[0], s.cost[1]
			all := cost{anyone.reads + users.reads, anyone.without + users.without, anyone.with + users.with}
			b.ReportMetric(all.absorbed(), "%absorbed")
			b.ReportMetric(anyone.absorbed(), "%absorbed-anyone")
			b.ReportMetric(users.absorbed(), "%absorbed-users")
			b.ReportMetric(float64(all.without)/float64(all.reads), "statements/read-without")
			b.ReportMetric(float64(all.with)/float64(all.reads), "statements/read-with")
		})
	}
}

const (
	siteArticles = 1000
	siteUsers    = 100
	siteTags     = 50
)

// site is a population whose favourites are skewed.
type site struct {
	f        *fleet
	random   *rand.Rand
	articles zipf
	users    []conduit.User
	slugs    []string
	plain    reader
	feeds    *postgres.Store
	counted  *atomic.Int64
	cost     [2]cost // of readers who are not logged in, and of those who are
}

// cost is what reads have cost the database, in statements.
type cost struct{ reads, without, with int64 }

func (c cost) absorbed() float64 { return 100 * (1 - float64(c.with)/float64(c.without)) }

// zipf draws ranks; rand.Zipf has no exponent below 1.
type zipf []float64

func newZipf(n int, s float64) zipf {
	z := make(zipf, n)
	sum := 0.0
	for i := range z {
		sum += math.Pow(float64(i+1), -s)
		z[i] = sum
	}
	return z
}

func (z zipf) draw(r *rand.Rand) int {
	return sort.SearchFloat64s(z, r.Float64()*z[len(z)-1])
}

func newSite(b *testing.B, f *fleet, skew float64) *site {
	b.Helper()
	s := &site{f: f, random: rand.New(rand.NewPCG(1, 2)), articles: newZipf(siteArticles, skew), counted: new(atomic.Int64)}
	primary, err := postgres.Open(b.Context(), postgres.Config{URL: f.set.URL, MaxConns: 4})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(primary.Close)
	s.feeds = postgres.NewStore(counting{primary, s.counted}, postgres.Immediately{})
	s.plain = s.feeds
	for n := range siteUsers {
		s.users = append(s.users, register(b, f.database, fmt.Sprint("user", n)))
	}
	for n := range siteArticles {
		a, err := f.database.CreateArticle(b.Context(), s.users[n%siteUsers].ID, draft(fmt.Sprint("Article ", n), s.tag(), s.tag()+"-"))
		if err != nil {
			b.Fatal(err)
		}
		s.slugs = append(s.slugs, a.Slug)
	}
	s.random.Shuffle(len(s.slugs), func(i, j int) { s.slugs[i], s.slugs[j] = s.slugs[j], s.slugs[i] })
	return s
}

func (s *site) with() (n int64) {
	for _, i := range s.f.instances {
		n += i.reads.Load()
	}
	return n
}

func (s *site) slug() string { return s.slugs[s.articles.draw(s.random)] }
func (s *site) user() conduit.User {
	return s.users[s.articles.draw(s.random)*siteUsers/siteArticles]
}

func (s *site) tag() string {
	return fmt.Sprint("tag", s.articles.draw(s.random)*siteTags/siteArticles)
}

// request is one, to either instance; a read is also done without a cache, to count what it costs there.
func (s *site) request(b *testing.B) {
	r := s.random
	i := s.f.instances[r.IntN(len(s.f.instances))]
	ctx := anyone(context.Background())
	user := s.user()
	if r.IntN(100) < 5 {
		var err error
		switch n := r.IntN(100); {
		case n < 45:
			_, err = i.Favorite(ctx, user.ID, s.slug())
		case n < 75:
			_, err = i.CreateComment(ctx, user.ID, s.slug(), "Well")
		case n < 90:
			_, err = i.Follow(ctx, user.ID, s.user().Username)
		case n < 95:
			_, err = i.UpdateUser(ctx, user.ID, conduit.UserChange{Bio: new(fmt.Sprint(r.Int()))}, "")
		default:
			_, err = i.CreateArticle(ctx, user.ID, draft(fmt.Sprint("New ", r.Int()), s.tag()))
		}
		if err != nil {
			b.Fatal(err)
		}
		return
	}
	known := r.IntN(5) == 0
	n, slug, tag := r.IntN(100), s.slug(), s.tag()
	window := conduit.Window{Limit: 20, Offset: 20 * min(int(r.ExpFloat64()), 4)}
	read := func(to reader, feed func(context.Context, int64, conduit.Window) (conduit.ArticlePage, error), marks func(context.Context, int64, []int64, []int64) (conduit.Marks, error)) {
		var articles []conduit.Article
		var err error
		switch {
		case n < 40:
			var a conduit.Article
			a, err = to.Article(ctx, slug)
			articles = append(articles, a)
		case n < 55:
			_, err = to.Comments(ctx, slug)
		case n < 62:
			_, err = to.Profile(ctx, user.Username)
		case n < 67:
			_, err = to.Tags(ctx)
		default:
			var page conduit.ArticlePage
			switch {
			case known && n < 85:
				page, err = feed(ctx, user.ID, window)
			case n < 85:
				page, err = to.ListArticles(ctx, conduit.ArticleFilter{}, window)
			case n < 93:
				page, err = to.ListArticles(ctx, conduit.ArticleFilter{Tag: tag}, window)
			default:
				page, err = to.ListArticles(ctx, conduit.ArticleFilter{Author: user.Username}, window)
			}
			articles = page.Articles
		}
		if known && n >= 40 && n < 62 {
			articles = []conduit.Article{{ID: 1}} // comments and profiles have marks, too
		}
		if err == nil && known && len(articles) > 0 {
			var ids, authors []int64
			for _, a := range articles {
				ids, authors = append(ids, a.ID), append(authors, a.Author.ID)
			}
			_, err = marks(ctx, user.ID, ids, authors)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	with, without := s.with(), s.counted.Load()
	read(i.Store, i.Feed, i.Marks)
	read(s.plain, s.feeds.Feed, s.feeds.Marks)
	c := &s.cost[0]
	if known {
		c = &s.cost[1]
	}
	c.reads++
	c.with += s.with() - with
	c.without += s.counted.Load() - without
}

// warm reads each article and its comments once, so that what is counted is not what was never read before.
func (s *site) warm(b *testing.B) {
	for _, slug := range s.slugs {
		for _, i := range s.f.instances {
			_, err1 := i.Article(anyone(context.Background()), slug)
			_, err2 := i.Comments(anyone(context.Background()), slug)
			if err := errors.Join(err1, err2); err != nil {
				b.Fatal(err)
			}
		}
	}
	for range 2000 {
		s.request(b)
	}
}
