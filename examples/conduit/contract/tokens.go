package contract

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

func (s *suite) testTokens(t *testing.T) {
	t.Run("required", s.testTokenRequired)
	t.Run("bad", s.testTokenBad)
	t.Run("signed but bad", s.testTokenSigned)
	t.Run("scheme", s.testTokenScheme)
}

// operations returns a call of each operation whose contract lists 401.
// What they name does not exist: 401 comes before 404.
func (s *suite) operations() (required, optional []call) {
	slug := at(s.name("unknown"))
	profile := profileOf(s.name("unknown"))
	article, comment := obj{"article": obj{"body": "x"}}, obj{"comment": obj{"body": "x"}}
	required = []call{
		s.anyone.call(http.MethodGet, "/user", nil),
		s.anyone.call(http.MethodPut, "/user", obj{"user": obj{"bio": "x"}}),
		s.anyone.call(http.MethodPost, profile+"/follow", nil),
		s.anyone.call(http.MethodDelete, profile+"/follow", nil),
		s.anyone.call(http.MethodGet, "/articles/feed", nil),
		s.anyone.call(http.MethodPost, "/articles", newArticle("No author")),
		s.anyone.call(http.MethodPut, slug, article),
		s.anyone.call(http.MethodDelete, slug, nil),
		s.anyone.call(http.MethodPost, slug+"/comments", comment),
		s.anyone.call(http.MethodDelete, slug+"/comments/1", nil),
		s.anyone.call(http.MethodPost, slug+"/favorite", nil),
		s.anyone.call(http.MethodDelete, slug+"/favorite", nil),
	}
	optional = []call{
		s.anyone.call(http.MethodGet, profile, nil),
		s.anyone.call(http.MethodGet, "/articles", nil),
		s.anyone.call(http.MethodGet, slug+"/comments", nil),
	}
	return required, optional
}

func (s *suite) testTokenRequired(t *testing.T) {
	t.Parallel()
	required, _ := s.operations()
	for _, c := range required {
		s.do(t, c).wantError(t, http.StatusUnauthorized, "token", isMissing)
		if c.body != nil { // 401 comes before 422, too.
			c.body = []byte(`{"user":`)
			s.do(t, c).wantError(t, http.StatusUnauthorized, "token", isMissing)
		}
	}
	// Nor does a token-less request for something real do anything.
	slug := s.ann.publish(t, s.title("Required")).Slug
	id := s.ann.comment(t, slug, "Mine").ID
	s.anyone.put(t, at(slug), obj{"article": obj{"body": "x"}}).want(t, http.StatusUnauthorized)
	s.anyone.delete(t, commentAt(slug, id)).want(t, http.StatusUnauthorized)
	s.anyone.delete(t, at(slug)).want(t, http.StatusUnauthorized)
	s.anyone.read(t, slug)
}

func (s *suite) testTokenBad(t *testing.T) {
	t.Parallel()
	unsigned, err := jwt.NewWithClaims(jwt.SigningMethodNone, s.claims(t)).SignedString(jwt.UnsafeAllowNoneSignatureType)
	if err != nil {
		t.Fatal(err)
	}
	forged := s.sign(t, s.claims(t), "another key of more than thirty-two bytes")
	head, signature := s.ann.Token[:strings.LastIndexByte(s.ann.Token, '.')], s.ann.Token[strings.LastIndexByte(s.ann.Token, '.'):]
	theirs := s.bob.Token[:strings.LastIndexByte(s.bob.Token, '.')]

	required, optional := s.operations()
	everywhere := append(required, optional...)
	for name, token := range map[string]string{
		"garbage":                 "garbage",
		"not base64":              "!.!.!",
		"without a signature":     head,
		"with an empty signature": head + ".",
		"unsigned":                unsigned,
		"signed by another key":   forged,
		"of another user's claim": theirs + signature,
		"with something behind":   s.ann.Token + "x",
		"too long":                strings.Repeat("x", 8<<10),
		"twice":                   s.ann.Token + " " + s.ann.Token,
	} {
		calls := everywhere[:1]
		if name == "garbage" || name == "unsigned" {
			calls = everywhere
		}
		for _, c := range calls {
			c.token = token
			got := s.do(t, c)
			if got.status != http.StatusUnauthorized {
				t.Errorf("a token %s was accepted", name)
			}
			got.wantError(t, http.StatusUnauthorized, "token", isMissing)
		}
	}

	// These two know no 401: a token that says nothing is no token.
	slug := s.ann.publish(t, s.title("Ignored token")).Slug
	for _, target := range []string{"/tags", at(slug)} {
		s.holder("garbage").get(t, target).want(t, http.StatusOK)
	}
}

func (s *suite) testTokenSigned(t *testing.T) {
	t.Parallel()
	if s.target.JWTSecret == "" {
		t.Skip("Target.JWTSecret is empty: expired tokens and tokens of unknown users are not tested")
	}
	valid := s.claims(t)
	s.holder(s.sign(t, valid, s.target.JWTSecret)).get(t, "/user").want(t, http.StatusOK)

	expired := s.claims(t)
	for _, claim := range []string{"iat", "nbf"} {
		if _, ok := expired[claim]; ok {
			expired[claim] = time.Now().Add(-48 * time.Hour).Unix()
		}
	}
	expired["exp"] = time.Now().Add(-24 * time.Hour).Unix()
	required, optional := s.operations()
	for _, c := range append(required, optional...) {
		c.token = s.sign(t, expired, s.target.JWTSecret)
		s.do(t, c).wantError(t, http.StatusUnauthorized, "token", isMissing)
	}

	// The signature is right, but nobody has this identity (any more).
	slug := s.ann.publish(t, s.title("Unknown user")).Slug
	for _, subject := range []string{"999999999999", "0", "-1", "99999999999999999999999", "ann", ""} {
		claims := s.claims(t)
		claims["sub"] = subject
		ghost := s.holder(s.sign(t, claims, s.target.JWTSecret))
		for _, got := range []*answer{
			ghost.get(t, "/user"),
			ghost.put(t, "/user", obj{"user": obj{"bio": "x"}}),
			ghost.post(t, "/articles", newArticle(s.title("Ghost"))),
			ghost.post(t, at(slug, "favorite"), nil),
			ghost.post(t, at(slug, "comments"), obj{"comment": obj{"body": "Boo"}}),
			ghost.post(t, profileOf(s.ann.Username)+"/follow", nil),
		} {
			got.wantError(t, http.StatusUnauthorized, "token", isMissing)
		}
	}
}

func (s *suite) testTokenScheme(t *testing.T) {
	t.Parallel()
	for _, header := range []string{"", "Token", "Token ", "Bearer " + s.ann.Token, "Basic YW5uOmFubg==", s.ann.Token, "Token" + s.ann.Token} {
		s.do(t, call{method: http.MethodGet, target: "/user", header: http.Header{"Authorization": {header}}}).
			wantError(t, http.StatusUnauthorized, "token", isMissing)
	}
	// Schemes have no case (RFC 9110, section 11.1).
	s.do(t, call{method: http.MethodGet, target: "/user", header: http.Header{"Authorization": {"token " + s.ann.Token}}}).want(t, http.StatusOK)
}

// holder is whoever comes with the token.
func (s *suite) holder(token string) actor {
	return actor{user: user{Token: token}, suite: s}
}

// claims reads the claims of a genuine token.
func (s *suite) claims(t *testing.T) jwt.MapClaims {
	t.Helper()
	claims := jwt.MapClaims{}
	if _, _, err := jwt.NewParser().ParseUnverified(s.ann.Token, claims); err != nil {
		t.Fatalf("read the token of the application: %v", err)
	}
	return claims
}

func (s *suite) sign(t *testing.T, claims jwt.MapClaims, key string) string {
	t.Helper()
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString([]byte(key))
	if err != nil {
		t.Fatal(err)
	}
	return token
}
