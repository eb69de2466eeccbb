package edge

import (
	"fmt"
	"net/http"
)

// MaxBody refuses requests whose body is longer than so many bytes: at once where they say so, and by a
// *http.MaxBytesError where it turns out when the body is read. [Errors] answers both with 413.
func MaxBody(limit int64, e Errors) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.ContentLength > limit {
				w.Header().Set("Connection", "close") // or the server reads what nobody wants
				e.Answer(w, r, fmt.Errorf("edge: a body of %d bytes: %w", r.ContentLength, &http.MaxBytesError{Limit: limit}))
				return
			}
			r.Body = http.MaxBytesReader(w, r.Body, limit)
			next.ServeHTTP(w, r)
		})
	}
}
