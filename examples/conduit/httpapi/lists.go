package httpapi

import (
	"errors"
	"net/http"
	"net/url"
	"strconv"

	"github.com/loadlinehq/loadline/examples/conduit"
)

const defaultLimit = 20 // the contract's

func (a *api) listArticles(w http.ResponseWriter, r *http.Request, viewer int64) error {
	query, window, err := listQuery(r)
	if err != nil {
		return err
	}
	for _, name := range []string{"tag", "author", "favorited"} {
		if !conduit.ValidText(query.Get(name)) {
			return invalid(name, "is invalid")
		}
	}
	page, err := a.store.ListArticles(r.Context(), conduit.ArticleFilter{
		Tag:         query.Get("tag"),
		Author:      query.Get("author"),
		FavoritedBy: query.Get("favorited"),
	}, window)
	return a.writePage(w, r, viewer, page, err)
}

func (a *api) feed(w http.ResponseWriter, r *http.Request, viewer int64) error {
	_, window, err := listQuery(r)
	if err != nil {
		return err
	}
	page, err := a.store.Feed(r.Context(), viewer, window)
	return a.writePage(w, r, viewer, page, err)
}

func (a *api) listTags(w http.ResponseWriter, r *http.Request) error {
	tags, err := a.store.Tags(r.Context())
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, map[string][]string{"tags": tags})
	return nil
}

// writePage answers with a page that the store has returned, as the viewer
// sees it, or returns the store's error.
func (a *api) writePage(w http.ResponseWriter, r *http.Request, viewer int64, page conduit.ArticlePage, err error) error {
	if err != nil {
		return err
	}
	articles := make([]int64, len(page.Articles))
	authors := make([]int64, len(page.Articles))
	for i, article := range page.Articles {
		articles[i], authors[i] = article.ID, article.Author.ID
	}
	marks, err := a.marks(r.Context(), viewer, articles, authors)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, viewPage(page, marks))
	return nil
}

// listQuery returns the parameters of a list and the window among them.
func listQuery(r *http.Request) (url.Values, conduit.Window, error) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, conduit.Window{}, invalid("query", "is invalid")
	}
	limit, err := intParam(query, "limit", defaultLimit)
	if err != nil {
		return nil, conduit.Window{}, err
	}
	offset, err := intParam(query, "offset", 0)
	if err != nil {
		return nil, conduit.Window{}, err
	}
	window := conduit.Window{Limit: limit, Offset: offset}
	return query, window, window.Clean()
}

// intParam returns a parameter, or missing without it. A number too large for
// an int is the largest one.
func intParam(query url.Values, name string, missing int) (int, error) {
	if !query.Has(name) {
		return missing, nil
	}
	n, err := strconv.Atoi(query.Get(name))
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		return 0, invalid(name, "must be a number")
	}
	return n, nil
}
