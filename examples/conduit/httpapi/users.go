package httpapi

import (
	"errors"
	"net/http"

	"github.com/loadlinehq/loadline/causal"
	"github.com/loadlinehq/loadline/examples/conduit"
)

type registrationInput struct {
	Username string `json:"username"`
	Email    string `json:"email"`
	Password string `json:"password"`
}

func (a *api) register(w http.ResponseWriter, r *http.Request) error {
	in, err := read[registrationInput](w, r, "user")
	if err != nil {
		return err
	}
	registration := conduit.Registration(in)
	if err := registration.Clean(); err != nil {
		return err
	}
	hash, err := a.passwords.Hash(r.Context(), registration.Password)
	if err != nil {
		return err
	}
	user, err := a.store.CreateUser(r.Context(), registration, hash)
	if err != nil {
		return err
	}
	return a.welcome(w, r, http.StatusCreated, user)
}

type credentialsInput struct {
	Email    string `json:"email"`
	Password string `json:"password"`
}

func (a *api) login(w http.ResponseWriter, r *http.Request) error {
	in, err := read[credentialsInput](w, r, "user")
	if err != nil {
		return err
	}
	credentials := conduit.Credentials(in)
	if err := credentials.Clean(); err != nil {
		return err
	}
	// What the sender of the request has seen says nothing of what the user has, whom the
	// body names.
	if session := causal.FromContext(r.Context()); session != nil {
		session.Doubt()
	}
	user, err := a.store.UserByEmail(r.Context(), credentials.Email)
	if err != nil && !errors.Is(err, conduit.ErrUserNotFound) {
		return err
	}
	// Without a user the hash is empty, which takes as long to refuse.
	ok, err := a.passwords.Verify(r.Context(), user.PasswordHash, credentials.Password)
	if err != nil {
		return err
	}
	if !ok {
		return conduit.ErrInvalidCredentials
	}
	return a.welcome(w, r, http.StatusOK, user)
}

// welcome answers with the user and a new token. Who comes back with it has seen what
// this request has: on a replica that is behind, a new user would not exist yet.
func (a *api) welcome(w http.ResponseWriter, r *http.Request, status int, user conduit.User) error {
	if session := causal.FromContext(r.Context()); session != nil {
		session.Identify(principal(user.ID))
	}
	token, err := a.tokens.Issue(user.ID)
	if err != nil {
		return err
	}
	nameChannel(w, a.userChannel, user.ID)
	writeCredentials(w, status, viewUser(user, token))
	return nil
}

// writeCredentials answers with what nobody is to keep.
func writeCredentials(w http.ResponseWriter, status int, object any) {
	w.Header().Set("Cache-Control", "no-store")
	writeJSON(w, status, object)
}

func (a *api) getUser(w http.ResponseWriter, r *http.Request, viewer int64) error {
	user, err := a.store.UserByID(r.Context(), viewer)
	if errors.Is(err, conduit.ErrUserNotFound) {
		return conduit.ErrNoViewer
	}
	if err != nil {
		return err
	}
	nameChannel(w, a.userChannel, user.ID)
	// The token that was sent: a new one here would let a stolen token live
	// for ever.
	writeCredentials(w, http.StatusOK, viewUser(user, token(r)))
	return nil
}

type userChangeInput struct {
	Username optional[string] `json:"username"`
	Email    optional[string] `json:"email"`
	Password optional[string] `json:"password"`
	Bio      optional[string] `json:"bio"`
	Image    optional[string] `json:"image"`
}

func (a *api) updateUser(w http.ResponseWriter, r *http.Request, viewer int64) error {
	in, err := read[userChangeInput](w, r, "user")
	if err != nil {
		return err
	}
	change := conduit.UserChange{
		Username: in.Username.value,
		Email:    in.Email.value,
		Password: in.Password.value,
		Bio:      in.Bio.value,
		Image:    in.Image.value,
	}
	if err := change.Clean(); err != nil {
		return err
	}
	var hash string
	if change.Password != nil {
		if hash, err = a.passwords.Hash(r.Context(), *change.Password); err != nil {
			return err
		}
	}
	user, err := a.store.UpdateUser(r.Context(), viewer, change, hash)
	if errors.Is(err, conduit.ErrUserNotFound) {
		return conduit.ErrNoViewer
	}
	if taken, ok := errors.AsType[*conduit.Error](err); ok && taken.Kind == conduit.Taken {
		return invalid(taken.Field, taken.Message) // the contract has no 409 here
	}
	if err != nil {
		return err
	}
	writeCredentials(w, http.StatusOK, viewUser(user, token(r)))
	return nil
}
