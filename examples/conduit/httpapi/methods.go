package httpapi

import (
	"maps"
	"net/http"
	"slices"
	"strings"
)

// handler answers a request, or returns the error that is to be answered; it
// then has written nothing.
type handler func(w http.ResponseWriter, r *http.Request) error

// methods are the handlers of one path by method. The methods are here and not
// in the patterns of the ServeMux, whose own answers to a wrong one are not JSON.
type methods map[string]handler

// handle returns the handler of a path. A path without methods is not found.
func (a *api) handle(m methods) http.Handler {
	allowed := slices.Collect(maps.Keys(m))
	if m["GET"] != nil {
		allowed = append(allowed, "HEAD")
	}
	slices.Sort(allowed)
	allow := strings.Join(append(allowed, "OPTIONS"), ", ")

	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(m) == 0 {
			a.writeError(w, r, errNoRoute)
			return
		}
		method := r.Method
		if method == http.MethodHead {
			method = http.MethodGet // net/http leaves the body out
		}
		h := m[method]
		switch {
		case h != nil:
			if err := h(w, r); err != nil {
				a.writeError(w, r, err)
			}
		case method == http.MethodOptions:
			w.Header().Set("Allow", allow)
			w.WriteHeader(http.StatusNoContent)
		default:
			w.Header().Set("Allow", allow)
			a.writeError(w, r, errNoMethod)
		}
	})
}
