package seed

import (
	"fmt"
	"iter"
	"time"
)

// User is a user of Conduit. All have the password Password.
type User struct {
	ID        int64
	Username  string
	Email     string
	CreatedAt time.Time
}

// Article is an article with its tags, in the order its author gave.
type Article struct {
	ID          int64
	AuthorID    int64
	Slug        string
	Title       string
	Description string
	Body        string
	Tags        []string
	CreatedAt   time.Time
	UpdatedAt   time.Time
}

// Comment is a comment on an article.
type Comment struct {
	ID        int64
	ArticleID int64
	AuthorID  int64
	Body      string
	CreatedAt time.Time
}

// Favorite says that a user likes an article.
type Favorite struct {
	UserID    int64
	ArticleID int64
	CreatedAt time.Time
}

// Follow says that a user follows another one.
type Follow struct {
	FollowerID int64
	FolloweeID int64
	CreatedAt  time.Time
}

// Source yields content. Users, articles and comments come in the order of
// their ids, which is that of time; each pair of a favourite or a follow comes
// once; and nothing refers to what the source does not have. An iteration ends
// at its first error. Each may be repeated, and gives the same again.
type Source interface {
	Users() iter.Seq2[User, error]
	Articles() iter.Seq2[Article, error]
	Comments() iter.Seq2[Comment, error]
	Favorites() iter.Seq2[Favorite, error]
	Follows() iter.Seq2[Follow, error]
}

// MaxScale bounds the content to 38 million users. A guess: it is ten times
// what has a use on one machine.
const MaxScale = 10_000

// Generated content that follows the real one starts after its last id and its
// last day. Both are fixed, so that what is generated does not depend on the
// real content.
const maxRealID = 100_000

var (
	generatedAlone = span{
		from: time.Date(2014, 1, 1, 0, 0, 0, 0, time.UTC),
		to:   time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
	}
	generatedAfterReal = span{
		from: time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC),
		to:   time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
	}
)

// Open returns scale times the size of the real content: the real content in
// dir, and the rest generated. With an empty dir, all is generated.
func Open(dir string, scale int) (Source, error) {
	if scale < 1 || scale > MaxScale {
		return nil, fmt.Errorf("seed: scale is %d, but must be from 1 to %d", scale, MaxScale)
	}
	if dir == "" {
		return newGenerator(scale, 0, generatedAlone), nil
	}
	first, err := openReal(dir)
	if err != nil {
		return nil, err
	}
	if scale == 1 {
		return first, nil
	}
	return joined{first, newGenerator(scale-1, maxRealID, generatedAfterReal)}, nil
}

// joined yields what its sources yield, one after the other.
type joined []Source

func (j joined) Users() iter.Seq2[User, error]         { return join(j, Source.Users) }
func (j joined) Articles() iter.Seq2[Article, error]   { return join(j, Source.Articles) }
func (j joined) Comments() iter.Seq2[Comment, error]   { return join(j, Source.Comments) }
func (j joined) Favorites() iter.Seq2[Favorite, error] { return join(j, Source.Favorites) }
func (j joined) Follows() iter.Seq2[Follow, error]     { return join(j, Source.Follows) }

func join[T any](sources []Source, rows func(Source) iter.Seq2[T, error]) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for _, source := range sources {
			for row, err := range rows(source) {
				if !yield(row, err) || err != nil {
					return
				}
			}
		}
	}
}
