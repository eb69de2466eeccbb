package contract

import (
	"net/http"
	"net/textproto"
	"slices"
	"strings"
	"testing"
)

func (s *suite) testHTTP(t *testing.T) {
	t.Run("unknown routes", s.testUnknownRoutes)
	t.Run("wrong methods", s.testWrongMethods)
	t.Run("HEAD", s.testHead)
	t.Run("CORS", s.testCORS)
	t.Run("validators", s.testValidators)
}

// Who has what there is is not sent it again, and is when it has changed; what is personal is kept by nobody else.
func (s *suite) testValidators(t *testing.T) {
	t.Parallel()
	author := s.register(t, "validator") // of whom nothing else changes meanwhile
	slug := author.publish(t, "Asked for again").Slug
	get := func(a actor, target, etag string) *answer {
		c := a.call(http.MethodGet, target, nil)
		c.undocumented = true
		if etag != "" {
			c.header = http.Header{"If-None-Match": {etag}}
		}
		return s.do(t, c)
	}
	article := "/articles/" + slug
	for _, a := range []actor{author, s.anyone} {
		for _, target := range []string{article, article + "/comments", "/articles?author=" + author.Username, "/profiles/" + author.Username} {
			first := get(a, target, "").want(t, http.StatusOK)
			etag, control := first.header.Get("ETag"), first.header.Get("Cache-Control")
			if etag == "" || control != "private, no-cache" {
				t.Fatalf("%s: ETag %q, Cache-Control %q\n%s", target, etag, control, first)
			}
			again := get(a, target, etag).want(t, http.StatusNotModified)
			if len(again.body) > 0 || again.header.Get("ETag") != etag || again.header.Get("Cache-Control") != control {
				t.Errorf("%s: 304 is not as 200 was\n%s", target, again)
			}
		}
	}
	etag := get(author, article, "").want(t, http.StatusOK).header.Get("ETag")
	s.do(t, s.bob.call(http.MethodPost, article+"/favorite", nil)).want(t, http.StatusOK)
	get(s.bob, article, etag).want(t, http.StatusOK) // what he sees is not what she has seen
	s.do(t, author.call(http.MethodPut, article, obj{"article": obj{"description": "changed"}})).want(t, http.StatusOK)
	get(author, article, etag).want(t, http.StatusOK)
	for _, got := range []*answer{
		s.do(t, author.call(http.MethodGet, "/user", nil)).want(t, http.StatusOK),
		s.do(t, author.call(http.MethodPut, "/user", obj{"user": obj{"image": nil}})).want(t, http.StatusOK),
		get(s.anyone, "/articles/none-such", "").want(t, http.StatusNotFound),
	} {
		if control := got.header.Get("Cache-Control"); !strings.Contains(control, "no-store") {
			t.Errorf("Cache-Control is %q\n%s", control, got)
		}
	}
}

func (s *suite) testUnknownRoutes(t *testing.T) {
	t.Parallel()
	for _, target := range []string{
		"", "/", "/nothing", "/user/nothing", "/users/login/nothing", "/articles/", "/articles/x/nothing",
		"/articles/x/comments/1/nothing", "/profiles", "/profiles/", "/profiles/x/nothing", "/tags/x",
	} {
		for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodDelete} {
			got := s.do(t, call{method: method, target: target, token: s.ann.Token, undocumented: true}).want(t, http.StatusNotFound)
			wantEnvelope(t, got)
		}
	}
}

func (s *suite) testWrongMethods(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ method, target, allowed string }{
		{http.MethodPatch, "/user", "GET, PUT"},
		{http.MethodDelete, "/user", "GET, PUT"},
		{http.MethodGet, "/users", "POST"},
		{http.MethodGet, "/users/login", "POST"},
		{http.MethodPut, "/articles", "GET, POST"},
		{http.MethodPost, "/articles/x", "GET, PUT, DELETE"},
		{http.MethodGet, "/articles/x/favorite", "POST, DELETE"},
		{http.MethodPut, "/articles/x/comments", "GET, POST"},
		{http.MethodGet, "/articles/x/comments/1", "DELETE"},
		{http.MethodPost, "/profiles/x", "GET"},
		{http.MethodGet, "/profiles/x/follow", "POST, DELETE"},
		{http.MethodPost, "/tags", "GET"},
		{"BREW", "/tags", "GET"},
	} {
		got := s.do(t, call{method: test.method, target: test.target, undocumented: true}).want(t, http.StatusMethodNotAllowed)
		wantEnvelope(t, got)
		allow := strings.Split(got.header.Get("Allow"), ", ")
		for method := range strings.SplitSeq(test.allowed, ", ") {
			if !slices.Contains(allow, method) {
				t.Errorf("Allow is %q, wanted %s in it\n%s", allow, method, got)
			}
		}
	}
}

// wantEnvelope checks the form of an answer outside the OpenAPI file.
func wantEnvelope(t *testing.T, a *answer) {
	t.Helper()
	if err := checkEnvelope(a.status, a.header, a.body); err != nil {
		t.Errorf("%v\n%s", err, a)
	}
}

func (s *suite) testHead(t *testing.T) {
	t.Parallel()
	for target, want := range map[string]int{
		"/tags": http.StatusOK, "/articles": http.StatusOK, at(s.name("unknown")): http.StatusNotFound, "/user": http.StatusUnauthorized,
	} {
		got := s.do(t, call{method: http.MethodHead, target: target, undocumented: true}).want(t, want)
		if len(got.body) > 0 || got.header.Get("Content-Type") != contentType {
			t.Errorf("HEAD with Content-Type %q and a body of %d bytes\n%s", got.header.Get("Content-Type"), len(got.body), got)
		}
	}
}

// testCORS asks as a browser does for a front end on another origin.
func (s *suite) testCORS(t *testing.T) {
	t.Parallel()
	const origin = "https://front-end.example"
	for _, test := range []struct{ method, target string }{
		{http.MethodPost, "/users"},
		{http.MethodPut, "/user"},
		{http.MethodPost, "/articles"},
		{http.MethodGet, "/articles/feed"},
		{http.MethodDelete, at("any-slug", "favorite")},
		{http.MethodDelete, at("any-slug", "comments", "1")},
	} {
		got := s.do(t, call{method: http.MethodOptions, target: test.target, undocumented: true, header: http.Header{
			"Origin":                         {origin},
			"Access-Control-Request-Method":  {test.method},
			"Access-Control-Request-Headers": {"authorization,content-type"},
		}})
		if got.status != http.StatusOK {
			got.want(t, http.StatusNoContent)
		}
		wantOrigin(t, got, origin)
		if methods := got.header.Get("Access-Control-Allow-Methods"); !allows(methods, test.method) {
			t.Errorf("Access-Control-Allow-Methods is %q\n%s", methods, got)
		}
		headers := strings.ToLower(got.header.Get("Access-Control-Allow-Headers"))
		if !allows(headers, "authorization") || !allows(headers, "content-type") {
			t.Errorf("Access-Control-Allow-Headers is %q\n%s", headers, got)
		}
	}
	// Errors must be readable from there, too.
	for _, c := range []call{
		{method: http.MethodGet, target: "/tags"},
		{method: http.MethodGet, target: "/user"},
		{method: http.MethodGet, target: at(s.name("unknown"))},
		{method: http.MethodPost, target: "/users", body: obj{}},
	} {
		c.header = http.Header{"Origin": {origin}}
		wantOrigin(t, s.do(t, c), origin)
	}
}

func wantOrigin(t *testing.T, a *answer, origin string) {
	t.Helper()
	if got := a.header.Get("Access-Control-Allow-Origin"); got != "*" && got != origin {
		t.Errorf("Access-Control-Allow-Origin is %q\n%s", got, a)
	}
}

// allows tells whether a comma-separated header has the value.
func allows(header, value string) bool {
	for part := range strings.SplitSeq(header, ",") {
		if textproto.TrimString(part) == value {
			return true
		}
	}
	return false
}
