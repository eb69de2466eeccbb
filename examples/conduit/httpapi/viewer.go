package httpapi

import (
	"context"
	"net/http"
	"strconv"
	"strings"

	"github.com/loadlinehq/loadline/examples/conduit"
)

// viewed is a handler that wants to know who asks: the viewer's user id, 0 for
// an anonymous one.
type viewed func(w http.ResponseWriter, r *http.Request, viewer int64) error

// required refuses anonymous viewers.
func (a *api) required(h viewed) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		info := infoOf(r.Context())
		if info.viewerErr != nil {
			return info.viewerErr
		}
		if info.viewer == 0 {
			return conduit.ErrNoViewer
		}
		return h(w, r, info.viewer)
	}
}

// optional lets anonymous viewers in. A bad token is still an error: a client
// that believes to be logged in should learn that it is not.
func (a *api) optional(h viewed) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		info := infoOf(r.Context())
		if info.viewerErr != nil {
			return info.viewerErr
		}
		return h(w, r, info.viewer)
	}
}

// lenient is optional for a route whose contract has no 401: the bearer of a
// bad token is anonymous.
func (a *api) lenient(h viewed) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		return h(w, r, infoOf(r.Context()).viewer)
	}
}

// Principal names the user of a request that is served, for the session's store; it
// is empty for others.
func Principal(r *http.Request) string { return principal(infoOf(r.Context()).viewer) }

func principal(viewer int64) string {
	if viewer == 0 {
		return ""
	}
	return "user:" + strconv.FormatInt(viewer, 10)
}

// authenticate returns 0 without an Authorization header and ErrNoViewer with a bad
// one. It is done once per request, outside of all that wants to know.
func (a *api) authenticate(r *http.Request) (int64, error) {
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
