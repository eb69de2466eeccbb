package httpapi

import (
	"context"
	"net/http"
	"strings"

	"github.com/loadlinehq/loadline/examples/conduit"
)

// viewed is a handler that wants to know who asks: the viewer's user id, 0 for
// an anonymous one.
type viewed func(w http.ResponseWriter, r *http.Request, viewer int64) error

// required refuses anonymous viewers.
func (a *api) required(h viewed) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		viewer, err := a.viewer(r)
		if err != nil {
			return err
		}
		if viewer == 0 {
			return conduit.ErrNoViewer
		}
		return h(w, r, viewer)
	}
}

// optional lets anonymous viewers in. A bad token is still an error: a client
// that believes to be logged in should learn that it is not.
func (a *api) optional(h viewed) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		viewer, err := a.viewer(r)
		if err != nil {
			return err
		}
		return h(w, r, viewer)
	}
}

// lenient is optional for a route whose contract has no 401: the bearer of a
// bad token is anonymous.
func (a *api) lenient(h viewed) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		viewer, err := a.viewer(r)
		if err != nil {
			viewer = 0
		}
		return h(w, r, viewer)
	}
}

// viewer returns 0 without an Authorization header and ErrNoViewer with a bad one.
func (a *api) viewer(r *http.Request) (int64, error) {
	if r.Header.Get("Authorization") == "" {
		return 0, nil
	}
	viewer, err := a.tokens.Check(token(r))
	if err != nil {
		return 0, conduit.ErrNoViewer
	}
	return viewer, nil
}

// token returns the token of the request, or "".
func token(r *http.Request) string {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Token") {
		return ""
	}
	return strings.TrimSpace(token)
}

// marks returns what the viewer thinks of the articles and users.
func (a *api) marks(ctx context.Context, viewer int64, articles, users []int64) (conduit.Marks, error) {
	if viewer == 0 || len(articles)+len(users) == 0 {
		return conduit.Marks{}, nil
	}
	return a.store.Marks(ctx, viewer, articles, users)
}
