package httpapi

import (
	"net/http"

	"github.com/loadlinehq/loadline/examples/conduit"
)

func (a *api) getProfile(w http.ResponseWriter, r *http.Request, viewer int64) error {
	profile, err := a.store.Profile(r.Context(), pathText(r, "username"))
	if err != nil {
		return err
	}
	marks, err := a.marks(r.Context(), viewer, nil, []int64{profile.ID})
	if err != nil {
		return err
	}
	writeProfile(w, profile, marks.Follows(profile.ID))
	return nil
}

func (a *api) follow(w http.ResponseWriter, r *http.Request, viewer int64) error {
	profile, err := a.store.Follow(r.Context(), viewer, pathText(r, "username"))
	if err != nil {
		return err
	}
	writeProfile(w, profile, true)
	return nil
}

func (a *api) unfollow(w http.ResponseWriter, r *http.Request, viewer int64) error {
	profile, err := a.store.Unfollow(r.Context(), viewer, pathText(r, "username"))
	if err != nil {
		return err
	}
	writeProfile(w, profile, false)
	return nil
}

func writeProfile(w http.ResponseWriter, p conduit.Profile, following bool) {
	writeJSON(w, http.StatusOK, map[string]profileView{"profile": viewProfile(p, following)})
}
