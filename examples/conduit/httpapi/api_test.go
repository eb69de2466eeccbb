package httpapi_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/loadlinehq/loadline/causal"
	"github.com/loadlinehq/loadline/examples/conduit"
	"github.com/loadlinehq/loadline/examples/conduit/auth"
	"github.com/loadlinehq/loadline/examples/conduit/httpapi"
)

// stub is a store that knows one article and fails with err when that is set.
// The methods it does not have panic.
type stub struct {
	httpapi.Store
	err    error
	marked *int64 // the viewer whose marks were asked for
}

func (s stub) Article(context.Context, string) (conduit.Article, error) {
	return conduit.Article{ID: 1, Slug: "s", TagList: []string{}}, s.err
}

func (s stub) ListArticles(context.Context, conduit.ArticleFilter, conduit.Window) (conduit.ArticlePage, error) {
	return conduit.ArticlePage{}, s.err
}

func (s stub) Marks(_ context.Context, viewer int64, _, _ []int64) (conduit.Marks, error) {
	if s.marked != nil {
		*s.marked = viewer
	}
	return conduit.Marks{Favorited: []int64{1}}, nil
}

func (s stub) UserByID(context.Context, int64) (conduit.User, error) { return conduit.User{}, s.err }

func (s stub) UserByEmail(context.Context, string) (conduit.User, error) {
	return conduit.User{}, s.err
}

// CreateUser makes user 7, as the database of system 1 does.
func (s stub) CreateUser(ctx context.Context, r conduit.Registration, _ string) (conduit.User, error) {
	if session := causal.FromContext(ctx); session != nil {
		session.Add(causal.Mark{System: 1, Timeline: 1, LSN: 5})
	}
	return conduit.User{Profile: conduit.Profile{ID: 7, Username: r.Username}}, s.err
}

func (s stub) UpdateUser(context.Context, int64, conduit.UserChange, string) (conduit.User, error) {
	return conduit.User{}, s.err
}

func (s stub) CreateArticle(context.Context, int64, conduit.Draft) (conduit.Article, error) {
	return conduit.Article{}, s.err
}

func (s stub) UpdateArticle(_ context.Context, _ int64, slug string, c conduit.ArticleChange) (conduit.Article, error) {
	return conduit.Article{Slug: slug, TagList: c.TagList}, s.err
}

func (s stub) DeleteComment(_ context.Context, _ int64, _ string, id int64) error {
	if id != 7 {
		return conduit.ErrCommentNotFound
	}
	return s.err
}

// tokenOf returns what a user sends.
func (s server) tokenOf(t *testing.T, id int64) string {
	t.Helper()
	token, err := s.issue.Issue(id)
	if err != nil {
		t.Fatal(err)
	}
	return "Token " + token
}

type server struct {
	issue   *auth.Tokens
	handler http.Handler
	token   string // of user 42
	log     *bytes.Buffer
	health  *httpapi.Health
	tokens  causal.Store
}

func newServer(t *testing.T, store httpapi.Store) server { return newLimited(t, store, nil) }

func newLimited(t *testing.T, store httpapi.Store, limits *httpapi.Limits, proxies ...string) server {
	t.Helper()
	keys, err := causal.NewKeys([]byte(strings.Repeat("k", causal.MinKeySize)))
	if err != nil {
		t.Fatal(err)
	}
	memory, err := causal.NewMemory(causal.MemoryConfig{})
	if err != nil {
		t.Fatal(err)
	}
	sessions, err := causal.NewHTTP(causal.HTTPConfig{Keys: keys, Store: memory, Principal: httpapi.Principal, DisableCookie: true})
	if err != nil {
		t.Fatal(err)
	}
	tokens, err := auth.NewTokens(strings.Repeat("s", auth.MinSecretBytes))
	if err != nil {
		t.Fatal(err)
	}
	token, err := tokens.Issue(42)
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	health := httpapi.NewHealth(func(context.Context) error {
		if s, ok := store.(stub); ok {
			return s.err
		}
		return nil
	})
	handler, err := httpapi.New(httpapi.Config{
		Store:       store,
		Passwords:   auth.NewHasher(),
		Tokens:      tokens,
		Health:      health,
		Logger:      slog.New(slog.NewTextHandler(&log, nil)),
		CORSOrigins: []string{"*"},
		Sessions:    sessions,
		Viewed:      func(context.Context, int64) error { return nil },
		Limits:      limits, TrustedProxies: proxies,
	})
	if err != nil {
		t.Fatal(err)
	}
	return server{
		issue:   tokens,
		handler: handler,
		token:   "Token " + token,
		log:     &log,
		health:  health,
		tokens:  memory,
	}
}

func (s server) do(t *testing.T, method, target, authorization, body string) *http.Response {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, target, strings.NewReader(body))
	if authorization != "" {
		r.Header.Set("Authorization", authorization)
	}
	w := httptest.NewRecorder()
	s.handler.ServeHTTP(w, r)
	return w.Result()
}

// problems returns the errors in an answer.
func problems(t *testing.T, res *http.Response) map[string][]string {
	t.Helper()
	if got := res.Header.Get("Content-Type"); got != "application/json; charset=utf-8" {
		t.Errorf("Content-Type: %q", got)
	}
	var body struct{ Errors map[string][]string }
	if err := json.NewDecoder(res.Body).Decode(&body); err != nil {
		t.Fatal(err)
	}
	return body.Errors
}

func TestErrors(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		err    error
		status int
		field  string
	}{
		{conduit.ErrArticleNotFound, 404, "article"},
		{conduit.ErrArticleForbidden, 403, "article"},
		{conduit.ErrUsernameTaken, 409, "username"},
		{conduit.ErrNoViewer, 401, "token"},
		{conduit.Invalid{"title": {"is odd"}}, 422, "title"},
		{fmt.Errorf("wrapped: %w", conduit.ErrArticleNotFound), 404, "article"},
		{fmt.Errorf("postgres: %w: %w", conduit.ErrUnavailable, io.EOF), 503, "server"},
		{fmt.Errorf("%w: %w", auth.ErrBusy, context.DeadlineExceeded), 503, "server"},
		{context.DeadlineExceeded, 503, "server"},
		{errors.New("a bug"), 500, "server"},
	} {
		t.Run(test.err.Error(), func(t *testing.T) {
			t.Parallel()
			s := newServer(t, stub{err: test.err})
			res := s.do(t, "GET", "/api/articles/s", "", "")
			if res.StatusCode != test.status {
				t.Errorf("status %d, want %d", res.StatusCode, test.status)
			}
			got := problems(t, res)
			if fields := slices.Collect(maps.Keys(got)); !slices.Equal(fields, []string{test.field}) {
				t.Errorf("errors %v, want one of %s", got, test.field)
			}
			if strings.Contains(fmt.Sprint(got), "bug") || strings.Contains(fmt.Sprint(got), "EOF") {
				t.Errorf("errors %v give away the cause", got)
			}
			if retry := res.Header.Get("Retry-After"); (retry != "") != (test.status == 503) {
				t.Errorf("Retry-After %q", retry)
			}
			if logged := strings.Contains(s.log.String(), "level=ERROR"); logged != (test.status >= 500) {
				t.Errorf("the log says %s", s.log)
			}
		})
	}
}

func TestErrorsByRoute(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, method, target, body string
		err                        error
		status                     int
	}{
		{"the token of a deleted user", "GET", "/api/user", "", conduit.ErrUserNotFound, 401},
		{"a deleted user changes", "PUT", "/api/user", `{"user":{}}`, conduit.ErrUserNotFound, 401},
		{"the contract has no 409", "PUT", "/api/user", `{"user":{}}`, conduit.ErrEmailTaken, 422},
		{"an unknown e-mail", "POST", "/api/users/login", `{"user":{"email":"a@b","password":"p"}}`, conduit.ErrUserNotFound, 401},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t, stub{err: test.err})
			if res := s.do(t, test.method, test.target, s.token, test.body); res.StatusCode != test.status {
				t.Errorf("status %d, want %d: %v", res.StatusCode, test.status, problems(t, res))
			}
		})
	}
}

func TestRoutes(t *testing.T) {
	t.Parallel()
	s := newServer(t, stub{})
	for _, test := range []struct {
		method, target string
		status         int
		allow          string
	}{
		{"GET", "/", 404, ""},
		{"GET", "/api/nothing", 404, ""},
		{"GET", "/api/tags/", 404, ""},
		{"GET", "//api/tags", 404, ""},
		{"GET", "/api/../api/tags", 404, ""},
		{"POST", "/api/tags", 405, "GET, HEAD, OPTIONS"},
		{"DELETE", "/api/articles/feed", 405, "GET, HEAD, OPTIONS"},
		{"GET", "/api/users", 405, "POST, OPTIONS"},
		{"BREW", "/api/articles/s", 405, "DELETE, GET, PUT, HEAD, OPTIONS"},
	} {
		res := s.do(t, test.method, test.target, s.token, "")
		if res.StatusCode != test.status {
			t.Errorf("%s %s: status %d, want %d", test.method, test.target, res.StatusCode, test.status)
		}
		problems(t, res)
		want := slices.Sorted(strings.SplitSeq(test.allow, ", "))
		if got := slices.Sorted(strings.SplitSeq(res.Header.Get("Allow"), ", ")); !slices.Equal(got, want) {
			t.Errorf("%s %s: Allow %q, want %q", test.method, test.target, got, want)
		}
	}
	for _, test := range []struct {
		method string
		status int
	}{{"HEAD", 200}, {"OPTIONS", 204}} {
		if res := s.do(t, test.method, "/api/articles/s", "", ""); res.StatusCode != test.status {
			t.Errorf("%s: status %d, want %d", test.method, res.StatusCode, test.status)
		}
	}
}

func TestViewer(t *testing.T) {
	t.Parallel()
	var marked int64
	s := newServer(t, stub{marked: &marked})
	lower := "token" + strings.TrimPrefix(s.token, "Token")
	bearer := "Bearer" + strings.TrimPrefix(s.token, "Token")
	for _, test := range []struct {
		name, method, target, authorization string
		status                              int
		viewer                              int64 // whose marks are shown
	}{
		{"optional, with a token", "GET", "/api/articles/s", s.token, 200, 42},
		{"the scheme in another case", "GET", "/api/articles/s", lower, 200, 42},
		{"anonymous", "GET", "/api/articles/s", "", 200, 0},
		{"no 401 in the contract", "GET", "/api/articles/s", "Token garbage", 200, 0},
		{"another scheme there", "GET", "/api/articles/s", bearer, 200, 0},
		{"optional, with a bad token", "GET", "/api/articles", "Token garbage", 401, 0},
		{"optional, with another scheme", "GET", "/api/articles", bearer, 401, 0},
		{"optional, without", "GET", "/api/articles", "", 200, 0},
		{"required, without", "POST", "/api/articles", "", 401, 0},
		{"required, with a bad token", "DELETE", "/api/articles/s", "Token garbage", 401, 0},
		{"required, with an empty token", "DELETE", "/api/articles/s", "Token ", 401, 0},
		{"401 comes before 422", "POST", "/api/articles", "", 401, 0},
	} {
		marked = 0
		res := s.do(t, test.method, test.target, test.authorization, "")
		if res.StatusCode != test.status || marked != test.viewer {
			t.Errorf("%s: status %d and viewer %d, want %d and %d", test.name, res.StatusCode, marked, test.status, test.viewer)
		}
		if test.status == 401 {
			if diff := cmp.Diff(map[string][]string{"token": {"is missing"}}, problems(t, res)); diff != "" {
				t.Errorf("%s: %s", test.name, diff)
			}
		}
	}
}

func TestInput(t *testing.T) {
	t.Parallel()
	s := newServer(t, stub{})
	for _, test := range []struct {
		name, method, target, body string
		status                     int
		field, message             string
	}{
		{"empty body", "POST", "/api/articles", "", 422, "body", "is not valid JSON"},
		{"cut short", "POST", "/api/articles", `{"article":`, 422, "body", "is not valid JSON"},
		{"more than one value", "POST", "/api/articles", `{"article":{}} {}`, 422, "body", "is not valid JSON"},
		{"not an object", "POST", "/api/articles", `[]`, 422, "body", "has a wrong type of value"},
		{"no object", "POST", "/api/articles", `{}`, 422, "article", "can't be blank"},
		{"null", "PUT", "/api/articles/s", `{"article":null}`, 422, "article", "can't be blank"},
		{"wrong type", "POST", "/api/articles", `{"article":{"title":1}}`, 422, "body", `has a wrong type of value in "title"`},
		{"wrong type inside", "PUT", "/api/articles/s", `{"article":{"tagList":[{}]}}`, 422, "body", `has a wrong type of value in "tagList"`},
		{"not UTF-8", "PUT", "/api/articles/s", "{\"article\":{\"title\":\"\xff\"}}", 422, "body", "is not UTF-8"},
		{"NUL", "PUT", "/api/articles/s", `{"article":{"body":"\u0000"}}`, 422, "body", "is invalid"},
		{"too large", "PUT", "/api/articles/s", strings.Repeat(" ", 1<<20) + "{}", 422, "body", "is too large (maximum is 1048576 bytes)"},
		{"null for a text", "PUT", "/api/articles/s", `{"article":{"title":null}}`, 422, "title", "can't be blank"},
		{"null for the tags", "PUT", "/api/articles/s", `{"article":{"tagList":null}}`, 422, "tagList", "must be a list"},
		{"null for the tags of a new article", "POST", "/api/articles", `{"article":{"tagList":null}}`, 422, "tagList", "must be a list"},
		{"null for a tag", "PUT", "/api/articles/s", `{"article":{"tagList":[null]}}`, 422, "tagList", "can't be blank"},
		{"nothing to change", "PUT", "/api/articles/s", `{"article":{"more":1},"more":1}`, 200, "", ""},

		{"limit", "GET", "/api/articles?limit=0", "", 422, "limit", "must be at least 1"},
		{"limit not a number", "GET", "/api/articles?limit=ten", "", 422, "limit", "must be a number"},
		{"limit empty", "GET", "/api/articles?limit=", "", 422, "limit", "must be a number"},
		{"limit huge", "GET", "/api/articles?limit=" + strings.Repeat("9", 99), "", 200, "", ""},
		{"offset", "GET", "/api/articles?offset=-1", "", 422, "offset", "must be at least 0"},
		{"offset huge", "GET", "/api/articles?offset=" + strings.Repeat("9", 99), "", 200, "", ""},
		{"filter with NUL", "GET", "/api/articles?tag=%00", "", 422, "tag", "is invalid"},
		{"filter not UTF-8", "GET", "/api/articles?author=%ff", "", 422, "author", "is invalid"},
		{"query not a query", "GET", "/api/articles?author=%zz", "", 422, "query", "is invalid"},

		{"comment", "DELETE", "/api/articles/s/comments/7", "", 204, "", ""},
		{"comment not a number", "DELETE", "/api/articles/s/comments/seven", "", 422, "id", "must be a number"},
		{"comment out of range", "DELETE", "/api/articles/s/comments/99999999999999999999", "", 404, "comment", "not found"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			res := s.do(t, test.method, test.target, s.token, test.body)
			if res.StatusCode != test.status {
				t.Errorf("status %d, want %d", res.StatusCode, test.status)
			}
			if test.field == "" {
				return
			}
			got := problems(t, res)
			if !slices.Equal(got[test.field], []string{test.message}) {
				t.Errorf("errors %v, want %s %s", got, test.field, test.message)
			}
		})
	}
}
