package conduit

import (
	"slices"
	"strings"
	"time"
)

// Article is what everyone sees of an article. Body is empty in a list.
type Article struct {
	ID             int64
	Slug           string
	Title          string
	Description    string
	Body           string
	TagList        []string
	FavoritesCount int
	CreatedAt      time.Time
	UpdatedAt      time.Time
	Author         Profile
}

// ArticlePage is one page of a list, newest first.
type ArticlePage struct {
	Articles []Article
	Total    int // of all pages
}

// ArticleFilter narrows a list to the articles that fit all of its fields;
// empty fields do not narrow. Nothing fits a tag or user that does not exist.
type ArticleFilter struct {
	Tag         string
	Author      string // a username
	FavoritedBy string // a username
}

// MaxTagsListed is how many tags are listed, the most used ones: the contract
// has no pages for them.
const MaxTagsListed = 10_000

// MaxLimit is the longest page; a longer one that is asked for is cut to it.
const MaxLimit = 100

// maxOffset lies beyond any list, and Offset + Limit within an int32.
const maxOffset = 1 << 30

// Window says which part of a list is wanted.
type Window struct {
	Limit  int
	Offset int
}

// Clean cuts the window to what a page may hold. It returns an Invalid for a
// limit below 1 and an offset below 0.
func (w *Window) Clean() error {
	v := Invalid{}
	if w.Limit < 1 {
		v.add("limit", "must be at least 1")
	}
	if w.Offset < 0 {
		v.add("offset", "must be at least 0")
	}
	w.Limit = min(w.Limit, MaxLimit)
	w.Offset = min(w.Offset, maxOffset)
	return v.err()
}

// Draft is the input that makes a new article.
type Draft struct {
	Title       string
	Description string
	Body        string
	TagList     []string
}

// Clean normalises the list of tags. It returns an Invalid when the draft
// cannot be accepted.
func (d *Draft) Clean() error {
	v := Invalid{}
	v.line("title", d.Title, MaxTitle)
	v.required("description", d.Description, MaxDescription)
	v.required("body", d.Body, MaxBody)
	d.TagList = v.tagList(d.TagList)
	return v.err()
}

// ArticleChange is the input that changes an article. Nil leaves a value as it
// is; an empty TagList removes all tags.
type ArticleChange struct {
	Title       *string
	Description *string
	Body        *string
	TagList     []string
}

// Clean normalises the list of tags. It returns an Invalid when the change
// cannot be accepted.
func (c *ArticleChange) Clean() error {
	v := Invalid{}
	if c.Title != nil {
		v.line("title", *c.Title, MaxTitle)
	}
	if c.Description != nil {
		v.required("description", *c.Description, MaxDescription)
	}
	if c.Body != nil {
		v.required("body", *c.Body, MaxBody)
	}
	if c.TagList != nil {
		c.TagList = v.tagList(c.TagList)
	}
	return v.err()
}

// tagList checks the tags and returns them without surrounding space and
// without duplicates, in the order given.
func (v Invalid) tagList(tags []string) []string {
	if len(tags) > MaxTags {
		v.add("tagList", "has too many tags (maximum is %d)", MaxTags)
		return tags
	}
	kept := make([]string, 0, len(tags))
	for _, tag := range tags {
		tag = strings.TrimSpace(tag)
		if !slices.Contains(kept, tag) {
			v.line("tagList", tag, MaxTag)
			kept = append(kept, tag)
		}
	}
	return kept
}

// Marks is what one viewer thinks of the articles and users on a page. The
// zero value is that of an anonymous viewer: nothing is marked.
type Marks struct {
	Favorited []int64 // ids of articles
	Following []int64 // ids of users
}

// HasFavorited reports whether the viewer has favourited the article.
func (m Marks) HasFavorited(articleID int64) bool { return slices.Contains(m.Favorited, articleID) }

// Follows reports whether the viewer follows the user.
func (m Marks) Follows(userID int64) bool { return slices.Contains(m.Following, userID) }
