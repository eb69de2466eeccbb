package httpapi_test

import (
	"context"
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/loadlinehq/loadline/causal"
	"github.com/loadlinehq/loadline/examples/conduit"
	"github.com/loadlinehq/loadline/examples/conduit/auth"
	"github.com/loadlinehq/loadline/examples/conduit/httpapi"
)

// lagging reads as a router does whose replicas have replayed up to 10.
type lagging struct {
	httpapi.Store
	primary, replica *conduit.User
}

func (s *lagging) onReplica(ctx context.Context) bool {
	session := causal.FromContext(ctx)
	m, _, incomplete := session.Mark(1)
	return !incomplete && m.LSN <= 10
}

func (s *lagging) CreateUser(ctx context.Context, r conduit.Registration, hash string) (conduit.User, error) {
	s.primary = &conduit.User{Profile: conduit.Profile{ID: 7, Username: r.Username}, Email: r.Email, PasswordHash: hash}
	causal.FromContext(ctx).Add(causal.Mark{System: 1, Timeline: 1, LSN: 20})
	return *s.primary, nil
}

func (s *lagging) UserByEmail(ctx context.Context, email string) (conduit.User, error) {
	u := s.primary
	if s.onReplica(ctx) {
		u = s.replica
	}
	if u == nil || u.Email != email {
		return conduit.User{}, conduit.ErrUserNotFound
	}
	return *u, nil
}

// complete is a store that is sure of what it has.
type complete struct{ tokens map[string]causal.Token }

func (c complete) Load(_ context.Context, p string) (causal.Token, error) { return c.tokens[p], nil }

func (c complete) Save(_ context.Context, p string, t causal.Token) error {
	c.tokens[p] = c.tokens[p].Merge(t)
	return nil
}

// Whoever sends the login: the user has registered a moment ago, and exists.
func TestLoginOverOtherSession(t *testing.T) {
	t.Parallel()
	keys, _ := causal.NewKeys([]byte(strings.Repeat("k", causal.MinKeySize)))
	store := complete{map[string]causal.Token{}}
	sessions, err := causal.NewHTTP(causal.HTTPConfig{Keys: keys, Store: store, Principal: httpapi.Principal, DisableCookie: true})
	if err != nil {
		t.Fatal(err)
	}
	tokens, _ := auth.NewTokens(strings.Repeat("s", auth.MinSecretBytes))
	other, _ := tokens.Issue(42)
	data := &lagging{}
	handler, err := httpapi.New(httpapi.Config{
		Store: data, Passwords: auth.NewHasher(), Tokens: tokens,
		Health: httpapi.NewHealth(func(context.Context) error { return nil }), Logger: slog.New(slog.DiscardHandler), Sessions: sessions, Viewed: func(context.Context, int64) error { return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	post := func(path, authorization, causalToken, body string) *httptest.ResponseRecorder {
		r := httptest.NewRequestWithContext(t.Context(), "POST", path, strings.NewReader(body))
		if authorization != "" {
			r.Header.Set("Authorization", "Token "+authorization)
		}
		if causalToken != "" {
			r.Header.Set(causal.HeaderName, causalToken)
		}
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		return w
	}
	if w := post("/api/users", "", "", `{"user": {"username": "ann", "email": "ann@example.com", "password": "correct horse"}}`); w.Code != 201 {
		t.Fatal(w.Code, w.Body)
	}
	const login = `{"user": {"email": "ann@example.com", "password": "correct horse"}}`
	old := keys.Sign(causal.NewToken(causal.Mark{System: 1, Timeline: 1, LSN: 9}))
	for name, w := range map[string]*httptest.ResponseRecorder{
		"nobody":                        post("/api/users/login", "", "", login),
		"another user's Authorization":  post("/api/users/login", other, "", login),
		"an older Causal-Token, no JWT": post("/api/users/login", "", old, login),
	} {
		if w.Code != 200 {
			t.Errorf("login after registration, with %s: %d %s", name, w.Code, w.Body)
		}
	}
}
