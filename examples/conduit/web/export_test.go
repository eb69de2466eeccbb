package web

import "net/http"

// Begin is what a login does.
func Begin(s *Sessions, w http.ResponseWriter, r *http.Request, token string) error {
	_, err := s.begin(w, r, token)
	return err
}
