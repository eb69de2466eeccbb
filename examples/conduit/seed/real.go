package seed

import (
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/loadlinehq/loadline/examples/conduit"
)

// The files of the real content.
const (
	usersFile     = "users.csv.gz"
	articlesFile  = "articles.csv.gz"
	commentsFile  = "comments.csv.gz"
	favoritesFile = "favorites.csv.gz"
	followsFile   = "follows.csv.gz"
)

// formerUser stands for all the authors whose account is gone.
const formerUser = "former-user"

// realContent is the Source of a folder of CSV files. Users and articles keep
// their ids, by which the authors are attributed.
type realContent struct {
	dir    string
	users  []User // the last one is the former user
	joined map[int64]time.Time
}

// openReal reads the users, which the other files refer to, and checks that
// these are there.
func openReal(dir string) (*realContent, error) {
	for _, name := range []string{usersFile, articlesFile, commentsFile, favoritesFile, followsFile} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			return nil, fmt.Errorf("seed: %w", err)
		}
	}
	c := &realContent{dir: dir, joined: map[int64]time.Time{}}
	var last int64
	columns := []string{"user_id", "display_name", "created_at"}
	rows := records(dir, usersFile, columns, func(r *record) (User, error) {
		user := newUser(r.id("user_id"), r.text("display_name"), r.time("created_at", time.RFC3339))
		registration := conduit.Registration{Username: user.Username, Email: user.Email, Password: Password}
		return user, errors.Join(ascending(&last, user.ID), registration.Clean())
	})
	for user, err := range rows {
		if err != nil {
			return nil, err
		}
		c.add(user)
	}
	if len(c.users) == 0 || last == maxRealID {
		return nil, fmt.Errorf("seed: %s: no users, or no id left for the former ones", filepath.Join(dir, usersFile))
	}
	c.add(User{ID: last + 1, Username: formerUser, Email: emailOf(formerUser), CreatedAt: c.users[0].CreatedAt})
	return c, nil
}

func (c *realContent) add(user User) {
	c.users = append(c.users, user)
	c.joined[user.ID] = user.CreatedAt
}

// ascending checks that an id is above the last one, and makes it the last.
func ascending(last *int64, id int64) error {
	if id <= *last {
		return fmt.Errorf("id %d follows %d, but ids must ascend", id, *last)
	}
	*last = id
	return nil
}

// user returns the id of a user that a record refers to.
func (c *realContent) user(r *record, column string) int64 {
	id := r.id(column)
	if _, ok := c.joined[id]; !ok {
		r.fail(column, fmt.Errorf("there is no user %d", id))
	}
	return id
}

// author is user, or the former user for an empty field.
func (c *realContent) author(r *record) int64 {
	if r.text("author_id") == "" {
		return c.users[len(c.users)-1].ID
	}
	return c.user(r, "author_id")
}

func (c *realContent) Users() iter.Seq2[User, error] {
	return func(yield func(User, error) bool) {
		for _, user := range c.users {
			if !yield(user, nil) {
				return
			}
		}
	}
}

func (c *realContent) Articles() iter.Seq2[Article, error] {
	columns := []string{"article_id", "author_id", "title", "body_html", "tags", "created_at", "updated_at"}
	return func(yield func(Article, error) bool) {
		var last int64
		rows := records(c.dir, articlesFile, columns, func(r *record) (Article, error) {
			id, body := r.id("article_id"), r.text("body_html")
			draft := conduit.Draft{
				Title:       r.text("title"),
				Description: summary(body, r.text("title")),
				Body:        body,
				TagList:     strings.Split(r.text("tags"), ";"),
			}
			err := errors.Join(ascending(&last, id), draft.Clean())
			return Article{
				ID:          id,
				AuthorID:    c.author(r),
				Slug:        slugOf(draft.Title, id),
				Title:       draft.Title,
				Description: draft.Description,
				Body:        draft.Body,
				Tags:        draft.TagList,
				CreatedAt:   r.time("created_at", time.RFC3339),
				UpdatedAt:   r.time("updated_at", time.RFC3339),
			}, err
		})
		rows(yield)
	}
}

// Comments numbers the comments anew: answers and short comments, which are
// both comments here, have ids of their own.
func (c *realContent) Comments() iter.Seq2[Comment, error] {
	columns := []string{"article_id", "author_id", "body", "created_at"}
	return func(yield func(Comment, error) bool) {
		var id int64
		rows := records(c.dir, commentsFile, columns, func(r *record) (Comment, error) {
			id++
			if id > maxRealID {
				return Comment{}, fmt.Errorf("more than %d comments", maxRealID)
			}
			body := r.text("body")
			return Comment{
				ID:        id,
				ArticleID: r.id("article_id"),
				AuthorID:  c.author(r),
				Body:      body,
				CreatedAt: r.time("created_at", time.RFC3339),
			}, conduit.CheckComment(body)
		})
		rows(yield)
	}
}

func (c *realContent) Favorites() iter.Seq2[Favorite, error] {
	columns := []string{"article_id", "user_id_assigned", "date"}
	return records(c.dir, favoritesFile, columns, func(r *record) (Favorite, error) {
		return Favorite{
			UserID:    c.user(r, "user_id_assigned"),
			ArticleID: r.id("article_id"),
			CreatedAt: r.time("date", time.DateOnly),
		}, nil
	})
}

// Follows dates each follow, whose real date is not known, to the day when
// both had joined.
func (c *realContent) Follows() iter.Seq2[Follow, error] {
	columns := []string{"follower_id", "followee_id"}
	return records(c.dir, followsFile, columns, func(r *record) (Follow, error) {
		follow := Follow{FollowerID: c.user(r, "follower_id"), FolloweeID: c.user(r, "followee_id")}
		follow.CreatedAt = c.joined[follow.FollowerID]
		if other := c.joined[follow.FolloweeID]; other.After(follow.CreatedAt) {
			follow.CreatedAt = other
		}
		return follow, nil
	})
}
