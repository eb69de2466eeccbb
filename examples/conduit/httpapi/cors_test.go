package httpapi

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

// To rs/cors an empty list means all origins; to an operator it means none.
func TestNoOrigins(t *testing.T) {
	t.Parallel()
	h := allowOrigins(nil, http.NotFoundHandler())
	r := httptest.NewRequest("GET", "/api/tags", nil)
	r.Header.Set("Origin", "https://front.example")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if got := w.Header().Get("Access-Control-Allow-Origin"); got != "" {
		t.Errorf("Access-Control-Allow-Origin is %q", got)
	}
}
