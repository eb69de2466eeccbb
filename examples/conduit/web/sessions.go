package web

import (
	"context"
	"net/http"

	"github.com/alexedwards/scs/v2"

	"github.com/loadlinehq/loadline/examples/conduit/auth"
)

// Sessions keep the API's token of who has logged in by the page.
type Sessions struct{ scs *scs.SessionManager }

// tokenKey is what a session holds.
const tokenKey = "token"

// NewSessions keeps them in a store, or in memory if it is nil. With secure, browsers send the cookie by TLS alone, and take it from nobody but this
// host: a subdomain cannot set one. What scs starts to remove old ones from memory does not end, so that there should be one of these.
func NewSessions(store *Store, secure bool) *Sessions {
	m := scs.New()
	m.Lifetime = auth.TokenLifetime // what is in it is worth nothing afterwards
	m.HashTokenInStore = true       // who reads Redis has nobody's cookie
	m.Cookie.Name = "conduit"
	if m.Cookie.Secure = secure; secure {
		m.Cookie.Name = "__Host-conduit"
	}
	if store != nil {
		m.Store = store
	}
	return &Sessions{m}
}

// Token returns the API's token of who has sent a request; "" is nobody.
func (s *Sessions) Token(r *http.Request) (string, error) {
	ctx, err := s.load(r)
	if err != nil {
		return "", err
	}
	return s.scs.GetString(ctx, tokenKey), nil
}

// load asks for the session of a request. Without a cookie nobody is asked.
func (s *Sessions) load(r *http.Request) (context.Context, error) {
	text := ""
	if cookie, err := r.Cookie(s.scs.Cookie.Name); err == nil {
		text = cookie.Value
	}
	return s.scs.Load(r.Context(), text)
}

// answer returns an error while no session could be kept.
func (s *Sessions) answer(ctx context.Context) error {
	if store, ok := s.scs.Store.(*Store); ok {
		_, _, err := store.FindCtx(ctx, "nobody's")
		return err
	}
	return nil
}

// begin gives who has logged in a session of a new name: one that somebody else has given him is worth nothing. It returns the token that was in the
// old one.
func (s *Sessions) begin(w http.ResponseWriter, r *http.Request, token string) (before string, err error) {
	ctx, err := s.load(r)
	if err != nil {
		return "", err
	}
	before = s.scs.GetString(ctx, tokenKey)
	if err := s.scs.RenewToken(ctx); err != nil {
		return "", err
	}
	s.scs.Put(ctx, tokenKey, token)
	name, expires, err := s.scs.Commit(ctx)
	if err != nil {
		return "", err
	}
	s.scs.WriteSessionCookie(ctx, w, name, expires)
	return before, nil
}

// end destroys the session of a request, and returns the token that was in it.
func (s *Sessions) end(w http.ResponseWriter, r *http.Request) (string, error) {
	ctx, err := s.load(r)
	if err != nil {
		return "", err
	}
	token := s.scs.GetString(ctx, tokenKey)
	if err := s.scs.Destroy(ctx); err != nil {
		return "", err
	}
	s.forget(w)
	return token, nil
}

// forget has the browser drop its cookie.
func (s *Sessions) forget(w http.ResponseWriter) {
	c := s.scs.Cookie
	http.SetCookie(w, &http.Cookie{Name: c.Name, Path: c.Path, MaxAge: -1, HttpOnly: c.HttpOnly, SameSite: c.SameSite, Secure: c.Secure})
}
