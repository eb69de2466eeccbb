package edge

import (
	"context"
	"net/http"
)

type routeKey struct{}

// Routes notes which pattern of a mux a request is for, so that what stands in front of the mux knows: see [RouteOf].
// The mux looks for it a second time.
func Routes(mux *http.ServeMux) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, pattern := mux.Handler(r)
			next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), routeKey{}, pattern)))
		})
	}
}

// RouteOf returns the pattern that [Routes] has found, that of the request if a mux is in front, or the empty text.
func RouteOf(r *http.Request) string {
	if pattern, _ := r.Context().Value(routeKey{}).(string); pattern != "" {
		return pattern
	}
	return r.Pattern
}

func routeOrPath(r *http.Request) string {
	if route := RouteOf(r); route != "" {
		return route
	}
	return r.URL.Path
}
