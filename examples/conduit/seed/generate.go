package seed

import (
	"iter"
	"slices"
	"time"
)

// The size of the real content, which a generated copy has as well.
const (
	realUsers     = 3838
	realArticles  = 786
	realComments  = 6635
	realFavorites = 3631
	realFollows   = 2150
)

// How content is spread. One order of users serves all that they do: who
// writes much also votes and follows much, as people do.
var (
	// Drawn: of those who may take part, many are never drawn.
	authors   = skew{active: 0.270, sigma: 1.60} // articles per user
	writers   = skew{active: 0.215, sigma: 2.20} // comments per user
	fans      = skew{active: 0.255, sigma: 1.90} // favourites per user
	followees = skew{active: 0.134, sigma: 1.40} // followers per user
	tagged    = skew{active: 1, sigma: 1.20}     // articles per tag but the first

	// Allotted: each of these has at least one.
	followers = skew{active: 0.1084, sigma: 1.85} // followees per user
	discussed = skew{active: 0.9911, sigma: 0.83} // comments per article
	liked     = skew{active: 0.9326, sigma: 0.92} // favourites per article
)

// tagCount is the number of tags, whatever the scale.
const tagCount = 69

// span is when generated content comes about. Accounts come first, in an
// eighth of the time, so that nobody writes before they joined; the articles
// share the rest, and what belongs to an article happens before the next one.
type span struct{ from, to time.Time }

func (s span) at(fraction float64) time.Time {
	length := float64(s.to.Sub(s.from))
	return s.from.Add(time.Duration(fraction * length)).Truncate(time.Microsecond) // PostgreSQL's precision
}

func (s span) joining(fraction float64) time.Time { return s.at(fraction / 8) }
func (s span) writing(fraction float64) time.Time { return s.at((1 + 7*fraction) / 8) }

// generator is a Source of some copies of the real content's size.
type generator struct {
	copies   int
	before   int64 // the id before the first one
	span     span
	users    permutation // by how much they do
	articles permutation // by how much they are discussed
	likes    permutation // of articles, by how much they are liked
}

func newGenerator(copies int, before int64, when span) *generator {
	return &generator{
		copies:   copies,
		before:   before,
		span:     when,
		users:    newPermutation(copies*realUsers, 0.618),
		articles: newPermutation(copies*realArticles, 0.618),
		likes:    newPermutation(copies*realArticles, 0.414),
	}
}

func (g *generator) id(index int) int64 { return g.before + 1 + int64(index) }

// userID returns the id of a user by their rank.
func (g *generator) userID(rank int) int64 { return g.id(g.users.index(rank)) }

func (g *generator) Users() iter.Seq2[User, error] {
	return func(yield func(User, error) bool) {
		p := newProse()
		n := g.users.n
		for i := range n {
			p.turnTo(userStream, i)
			created := g.span.joining((float64(i) + p.Float64()) / float64(n))
			if !yield(newUser(g.id(i), p.name(), created), nil) {
				return
			}
		}
	}
}

func (g *generator) Articles() iter.Seq2[Article, error] {
	return func(yield func(Article, error) bool) {
		p := newProse()
		for i := range g.articles.n {
			p.turnTo(articleStream, i)
			created := g.during(i, 0)
			title := p.title(titleLength.draw(p.Rand))
			article := Article{
				ID:          g.id(i),
				AuthorID:    g.userID(authors.draw(p.Rand, g.users.n)),
				Slug:        slugOf(title, g.id(i)),
				Title:       title,
				Description: p.title(0) + ".",
				Body:        p.text(bodyLength.draw(p.Rand)),
				Tags:        p.tags(),
				CreatedAt:   created,
				UpdatedAt:   created,
			}
			if !yield(article, nil) {
				return
			}
		}
	}
}

// during returns the time when the given part of an article's time is over; its
// time starts with the article and ends with the next one.
func (g *generator) during(article int, part float64) time.Time {
	return g.span.writing((float64(article) + part) / float64(g.articles.n))
}

// tags returns one to five tags. Most articles start with the first tag of
// all: on the real site 86 % are of one kind.
func (p *prose) tags() []string {
	count := 1
	for _, more := range []float64{0.55, 0.36, 0.25, 0.15} { // as 45, 36, 15, 4 and 1 %
		if p.Float64() >= more {
			break
		}
		count++
	}
	tags := make([]string, 0, count)
	if p.Float64() < 0.86 {
		tags = append(tags, nouns[0])
	}
	for len(tags) < count {
		rest := nouns[1:tagCount]
		rank := tagged.drawOther(p.Rand, len(rest), func(rank int) bool { return slices.Contains(tags, rest[rank]) })
		tags = append(tags, rest[rank])
	}
	return tags
}

func (g *generator) Comments() iter.Seq2[Comment, error] {
	return func(yield func(Comment, error) bool) {
		p := newProse()
		next := 0
		for article, count := range discussed.allot(g.copies*realComments, g.articles) {
			for i := range count {
				p.turnTo(commentStream, next)
				length := commentLength
				if p.Float64() < 0.22 { // 1,459 of 6,635 are answers
					length = answerLength
				}
				comment := Comment{
					ID:        g.id(next),
					ArticleID: g.id(article),
					AuthorID:  g.userID(writers.draw(p.Rand, g.users.n)),
					Body:      p.text(length.draw(p.Rand)),
					CreatedAt: g.during(article, float64(i+1)/float64(count+1)),
				}
				if !yield(comment, nil) {
					return
				}
				next++
			}
		}
	}
}

func (g *generator) Favorites() iter.Seq2[Favorite, error] {
	return func(yield func(Favorite, error) bool) {
		p := newProse()
		var ranks []int // of those who like the article
		for article, count := range liked.allot(g.copies*realFavorites, g.likes) {
			p.turnTo(favoriteStream, article)
			ranks = ranks[:0]
			for i := range count {
				rank := fans.drawOther(p.Rand, g.users.n, func(rank int) bool { return slices.Contains(ranks, rank) })
				ranks = append(ranks, rank)
				favorite := Favorite{
					UserID:    g.userID(rank),
					ArticleID: g.id(article),
					CreatedAt: g.during(article, float64(i+1)/float64(count+1)),
				}
				if !yield(favorite, nil) {
					return
				}
			}
		}
	}
}

func (g *generator) Follows() iter.Seq2[Follow, error] {
	return func(yield func(Follow, error) bool) {
		p := newProse()
		var ranks []int // of those the user follows
		for user, count := range followers.allot(g.copies*realFollows, g.users) {
			p.turnTo(followStream, user)
			self := g.users.rank(user)
			ranks = ranks[:0]
			for range count {
				rank := followees.drawOther(p.Rand, g.users.n, func(rank int) bool {
					return rank == self || slices.Contains(ranks, rank)
				})
				ranks = append(ranks, rank)
				follow := Follow{
					FollowerID: g.id(user),
					FolloweeID: g.userID(rank),
					CreatedAt:  g.span.writing(p.Float64()),
				}
				if !yield(follow, nil) {
					return
				}
			}
		}
	}
}
