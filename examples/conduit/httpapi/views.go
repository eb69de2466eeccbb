package httpapi

import (
	"time"

	"github.com/loadlinehq/loadline/examples/conduit"
)

// The objects of the contract, and how they are made.

type userView struct {
	Email    string  `json:"email"`
	Token    string  `json:"token"`
	Username string  `json:"username"`
	Bio      *string `json:"bio"`
	Image    *string `json:"image"`
}

func viewUser(u conduit.User, token string) map[string]userView {
	return map[string]userView{"user": {
		Email:    u.Email,
		Token:    token,
		Username: u.Username,
		Bio:      orNull(u.Bio),
		Image:    orNull(u.Image),
	}}
}

type profileView struct {
	Username  string  `json:"username"`
	Bio       *string `json:"bio"`
	Image     *string `json:"image"`
	Following bool    `json:"following"`
}

func viewProfile(p conduit.Profile, following bool) profileView {
	return profileView{
		Username:  p.Username,
		Bio:       orNull(p.Bio),
		Image:     orNull(p.Image),
		Following: following,
	}
}

// summaryView is an article as lists show it.
type summaryView struct {
	Slug           string      `json:"slug"`
	Title          string      `json:"title"`
	Description    string      `json:"description"`
	TagList        []string    `json:"tagList"`
	CreatedAt      time.Time   `json:"createdAt"`
	UpdatedAt      time.Time   `json:"updatedAt"`
	Favorited      bool        `json:"favorited"`
	FavoritesCount int         `json:"favoritesCount"`
	Author         profileView `json:"author"`
}

func viewSummary(a conduit.Article, m conduit.Marks) summaryView {
	return summaryView{
		Slug:           a.Slug,
		Title:          a.Title,
		Description:    a.Description,
		TagList:        a.TagList,
		CreatedAt:      a.CreatedAt.UTC(),
		UpdatedAt:      a.UpdatedAt.UTC(),
		Favorited:      m.HasFavorited(a.ID),
		FavoritesCount: a.FavoritesCount,
		Author:         viewProfile(a.Author, m.Follows(a.Author.ID)),
	}
}

type articleView struct {
	summaryView
	Body string `json:"body"`
}

func viewArticle(a conduit.Article, m conduit.Marks) map[string]articleView {
	return map[string]articleView{"article": {viewSummary(a, m), a.Body}}
}

type pageView struct {
	Articles []summaryView `json:"articles"`
	Total    int           `json:"articlesCount"`
}

func viewPage(p conduit.ArticlePage, m conduit.Marks) pageView {
	v := pageView{Articles: make([]summaryView, len(p.Articles)), Total: p.Total}
	for i, a := range p.Articles {
		v.Articles[i] = viewSummary(a, m)
	}
	return v
}

type commentView struct {
	ID        int64       `json:"id"`
	CreatedAt time.Time   `json:"createdAt"`
	UpdatedAt time.Time   `json:"updatedAt"`
	Body      string      `json:"body"`
	Author    profileView `json:"author"`
}

func viewComment(c conduit.Comment, m conduit.Marks) commentView {
	return commentView{
		ID:        c.ID,
		CreatedAt: c.CreatedAt.UTC(),
		UpdatedAt: c.UpdatedAt.UTC(),
		Body:      c.Body,
		Author:    viewProfile(c.Author, m.Follows(c.Author.ID)),
	}
}

func viewComments(comments []conduit.Comment, m conduit.Marks) map[string][]commentView {
	views := make([]commentView, len(comments))
	for i, c := range comments {
		views[i] = viewComment(c, m)
	}
	return map[string][]commentView{"comments": views}
}

func orNull(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
