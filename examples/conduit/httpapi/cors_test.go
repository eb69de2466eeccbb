package httpapi

import "testing"

// To rs/cors an empty list means all origins; to an operator it means none.
func TestNoOrigins(t *testing.T) {
	t.Parallel()
	if corsOf(nil) != nil {
		t.Error("somebody is allowed")
	}
}
