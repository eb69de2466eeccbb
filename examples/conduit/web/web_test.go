package web_test

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/loadlinehq/loadline/examples/conduit/auth"
	"github.com/loadlinehq/loadline/examples/conduit/httpapi"
	"github.com/loadlinehq/loadline/examples/conduit/live"
	"github.com/loadlinehq/loadline/examples/conduit/postgres"
	"github.com/loadlinehq/loadline/examples/conduit/web"
	"github.com/loadlinehq/loadline/internal/stack"
	"github.com/loadlinehq/loadline/internal/stack/stacktest"
)

// TestMain is also the NATS server of the stack.
func TestMain(m *testing.M) {
	if stack.ServeNATS() {
		return
	}
	m.Run()
}

// disconnected notes whose connections were ended.
type disconnected []string

func (d *disconnected) Disconnect(_ context.Context, user string) error {
	*d = append(*d, user)
	return nil
}

// site is a page with an API on a database of its own.
type site struct {
	url  string
	ends *disconnected
}

// newSite has sessions in Redis, or in memory where the address is "".
func newSite(t *testing.T, redis, prefix string) *site {
	t.Helper()
	return newLimitedSite(t, redis, prefix, nil)
}

func newLimitedSite(t *testing.T, redis, prefix string, limits *httpapi.Limits) *site {
	t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	db, err := postgres.Open(t.Context(), postgres.Config{URL: stacktest.Postgres(t, stacktest.Migrated(postgres.Migrations)).URL, MaxConns: 4})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	tokens, err := auth.NewTokens(strings.Repeat("s", auth.MinSecretBytes))
	if err != nil {
		t.Fatal(err)
	}
	store := postgres.NewStore(db, postgres.Immediately{})
	api, err := httpapi.New(httpapi.Config{
		Store: store, Viewed: store.Viewed, Passwords: auth.NewHasher(), Tokens: tokens, Health: httpapi.NewHealth(db.Ping), Logger: quiet, CORSOrigins: []string{"*"},
		ArticleChannel: live.ArticleChannel, UserChannel: live.UserChannel, Limits: limits,
	})
	if err != nil {
		t.Fatal(err)
	}
	var sessions *web.Store
	if redis != "" {
		client, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{redis}, DisableCache: true, ForceSingleClient: true})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(client.Close)
		sessions = web.NewStore(client, prefix)
	}
	s := &site{ends: new(disconnected)}
	config := web.Config{API: api, Sessions: web.NewSessions(sessions, false), Tokens: tokens, Live: s.ends, Log: quiet}
	if limits != nil {
		config.Limit = limits.ByAddress
	}
	handler, err := web.New(config)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	s.url = server.URL
	return s
}

// browser is one, with its cookies.
type browser struct {
	http.Client
	url string
}

func (s *site) browser(t *testing.T) *browser {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &browser{http.Client{Jar: jar, Timeout: 10 * time.Second}, s.url}
}

func (b *browser) do(t *testing.T, method, path, body string, header ...string) (*http.Response, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, b.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		request.Header.Set(header[i], header[i+1])
	}
	response, err := b.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response, string(text)
}

// want does it and checks the status and a piece of the answer.
func (b *browser) want(t *testing.T, status int, piece, method, path, body string, header ...string) *http.Response {
	t.Helper()
	response, text := b.do(t, method, path, body, header...)
	if response.StatusCode != status || !strings.Contains(text, piece) {
		t.Errorf("%s %s: %s %.300s, want %d and %q", method, path, response.Status, text, status, piece)
	}
	return response
}

const jake = `{"user":{"username":"jake","email":"jake@example.com","password":"correct horse"}}`

// A browser has a cookie that scripts cannot read, and its server the token; what it asks is asked as its user, until it leaves.
func TestSession(t *testing.T) {
	t.Parallel()
	set := stacktest.New(t)
	address := strings.TrimPrefix(set.RedisURL, "redis://")
	for name, redis := range map[string]string{"Redis": address, "memory": ""} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, redis, set.KeyPrefix+name+":")
			b := s.browser(t)
			b.want(t, 200, `{"user":null,"channel":"","live":true}`, "GET", "/web/session", "")
			b.want(t, 401, "token", "GET", "/web/api/user", "")
			response := b.want(t, 200, `"username":"jake"`, "POST", "/web/register", jake)
			cookies := response.Cookies()
			if len(cookies) != 1 || !cookies[0].HttpOnly || cookies[0].SameSite != http.SameSiteLaxMode || cookies[0].Secure || cookies[0].Path != "/" || cookies[0].MaxAge < 80000 {
				t.Fatalf("the cookie is %v", cookies)
			}
			_, text := b.do(t, "GET", "/web/session", "")
			var said struct {
				User    struct{ Username, Token string }
				Channel string
			}
			if err := json.Unmarshal([]byte(text), &said); err != nil || said.User.Username != "jake" || said.User.Token != "" || said.Channel != "user:1" {
				t.Errorf("the session is %s", text)
			}
			b.want(t, 201, `"title":"News"`, "POST", "/web/api/articles", `{"article":{"title":"News","description":"d","body":"b"}}`)
			if channel := b.want(t, 200, "", "GET", "/web/api/articles/news", "").Header.Get("Realtime-Channel"); channel != "article:1" {
				t.Errorf("the article's channel is %q", channel)
			}
			// An API's token is none of the page's, and a cookie none of the API's.
			s.browser(t).want(t, 401, "token", "GET", "/web/api/user", "", "Authorization", "Token forged")

			before := cookies[0].Value
			after := b.want(t, 200, `"username":"jake"`, "POST", "/web/login", jake).Cookies()[0].Value
			if before == after {
				t.Error("a login leaves the session its name")
			}
			old := s.browser(t)
			old.want(t, 200, `"user":null`, "GET", "/web/session", "", "Cookie", "conduit="+before)
			if redis != "" {
				out, err := exec.Command("redis-cli", "-u", set.RedisURL, "--scan", "--pattern", set.KeyPrefix+"*").CombinedOutput()
				if err != nil || len(strings.Fields(string(out))) != 1 || strings.Contains(string(out), after) {
					t.Errorf("Redis has %s %v: one session is wanted, by the hash of its name", out, err)
				}
			}

			b.want(t, 204, "", "POST", "/web/logout", "")
			if len(*s.ends) != 1 || (*s.ends)[0] != "1" {
				t.Errorf("connections of %v were ended", *s.ends)
			}
			b.want(t, 200, `"user":null`, "GET", "/web/session", "")
			old.want(t, 200, `"user":null`, "GET", "/web/session", "", "Cookie", "conduit="+after)
			b.want(t, 401, "credentials", "POST", "/web/login", strings.Replace(jake, "correct", "wrong", 1))
		})
	}
}

// Who logs in where another was logged in ends what that one's windows listen to, so that they ask who they are; who logs in again does not.
func TestAnotherLogin(t *testing.T) {
	t.Parallel()
	s := newSite(t, "", "")
	b := s.browser(t)
	b.want(t, 200, "jake", "POST", "/web/register", jake)
	b.want(t, 200, "jake", "POST", "/web/login", jake)
	if len(*s.ends) != 0 {
		t.Errorf("connections of %v were ended", *s.ends)
	}
	b.want(t, 200, "jane", "POST", "/web/register", strings.ReplaceAll(jake, "jake", "jane"))
	b.want(t, 200, `"username":"jane"`, "GET", "/web/session", "")
	if len(*s.ends) != 1 || (*s.ends)[0] != "1" {
		t.Errorf("connections of %v were ended", *s.ends)
	}
}

// What asks for a session is limited by address, whatever the cookie is; the page itself is not, and what the API is asked for is counted once.
func TestLimit(t *testing.T) {
	t.Parallel()
	limits, err := httpapi.NewLimits(httpapi.LimitsConfig{PerMinute: 3, Instances: 1, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = limits.Close() })
	s := newLimitedSite(t, "", "", limits)
	b := s.browser(t)
	for _, path := range []string{"/web/session", "/web/api/tags"} {
		h := b.want(t, 200, "", "GET", path, "", "Cookie", "conduit=made-up").Header
		if says := strings.Join(h.Values("RateLimit"), ", "); strings.Count(says, `"address"`) != 1 {
			t.Errorf("%s: %s, of one address once", path, says)
		}
	}
	refused := func(most int, method, path string) {
		t.Helper()
		for range most { // and some that come to be allowed meanwhile
			response, _ := b.do(t, method, path, jake, "Cookie", "conduit=made-up")
			if response.StatusCode == http.StatusTooManyRequests && response.Header.Get("Retry-After") != "" {
				return
			}
		}
		t.Errorf("%s %s is not refused", method, path)
	}
	refused(10, "GET", "/web/api/tags") // an address without a user has three
	for path, method := range map[string]string{"/web/session": "GET", "/web/logout": "POST", "/web/login": "POST", "/web/register": "POST"} {
		refused(100, method, path)
	}
	b.want(t, 200, "<!doctype html>", "GET", "/", "")
	b.want(t, 200, "", "GET", "/web/app.js", "")
}

// Pages of other sites get nothing done, with cookies or without: a stranger's page must not log anybody in either.
func TestOtherSites(t *testing.T) {
	t.Parallel()
	s := newSite(t, "", "")
	b := s.browser(t)
	for _, header := range [][]string{{"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Site", "same-site"}, {"Origin", "https://evil.example"}} {
		b.want(t, 403, "cross-origin", "POST", "/web/register", jake, header...)
	}
	b.want(t, 200, "jake", "POST", "/web/register", jake, "Sec-Fetch-Site", "same-origin")
	for _, header := range [][]string{{"Sec-Fetch-Site", "cross-site"}, {"Origin", "https://evil.example"}} {
		for _, path := range []string{"/web/api/articles", "/web/logout", "/web/login"} {
			b.want(t, 403, "cross-origin", "POST", path, jake, header...)
		}
		if got := b.want(t, 200, "jake", "GET", "/web/api/user", "", header...).Header; got.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("another site may read %v", got)
		}
	}
}

// While Redis is away visitors read, and who wants to log in is told so at once.
func TestRedisIsAway(t *testing.T) {
	t.Parallel()
	redis := stacktest.StartRedis(t)
	s := newSite(t, redis.Address, "")
	b := s.browser(t)
	b.want(t, 200, "jake", "POST", "/web/register", jake)
	for _, test := range []struct {
		name string
		away func()
	}{{"paused", redis.Pause}, {"killed", func() { redis.Resume(); redis.Kill() }}} {
		test.away()
		began := time.Now()
		visitor := s.browser(t)
		visitor.want(t, 200, "<!doctype html>", "GET", "/", "")
		visitor.want(t, 200, `"user":null`, "GET", "/web/session", "")
		visitor.want(t, 200, "articles", "GET", "/web/api/articles", "")
		for _, path := range []string{"/web/login", "/web/register"} {
			if h := visitor.want(t, 503, "not possible at the moment", "POST", path, jake).Header; h.Get("Retry-After") == "" || h.Get("Set-Cookie") != "" {
				t.Errorf("%s: %v", path, h)
			}
		}
		for _, path := range []string{"/web/session", "/web/api/articles"} {
			if h := b.want(t, 503, "not possible", "GET", path, "").Header; h.Get("Conduit-Away") != "sessions" {
				t.Errorf("%s: %v does not say that it is for sessions", path, h)
			}
		}
		b.want(t, 503, "not possible", "POST", "/web/logout", "")
		if took := time.Since(began); took > 8*time.Second {
			t.Errorf("%s: it takes %v", test.name, took)
		}
	}
}

// By TLS the cookie is of this host alone.
func TestSecureCookie(t *testing.T) {
	t.Parallel()
	s := web.NewSessions(nil, true)
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	if token, err := s.Token(r); token != "" || err != nil {
		t.Errorf("nobody has %q, %v", token, err)
	}
	w := httptest.NewRecorder()
	if err := web.Begin(s, w, r, "t"); err != nil {
		t.Fatal(err)
	}
	cookie := w.Result().Cookies()[0]
	if cookie.Name != "__Host-conduit" || !cookie.Secure || cookie.Path != "/" || cookie.Domain != "" {
		t.Errorf("the cookie is %v", cookie)
	}
	r.AddCookie(cookie)
	if token, err := s.Token(r); token != "t" || err != nil {
		t.Errorf("the session has %q, %v", token, err)
	}
}

// The page is all there, is not framed, and runs nothing but its own.
func TestPage(t *testing.T) {
	t.Parallel()
	s := newSite(t, "", "")
	b := s.browser(t)
	h := b.want(t, 200, "/web/app.js", "GET", "/", "").Header
	for _, piece := range []string{"default-src 'none'", "script-src 'self'", "frame-ancestors 'none'"} {
		if !strings.Contains(h.Get("Content-Security-Policy"), piece) {
			t.Errorf("the policy is %q, without %q", h.Get("Content-Security-Policy"), piece)
		}
	}
	for path, typ := range map[string]string{"/web/app.js": "text/javascript", "/web/app.css": "text/css", "/web/icon.svg": "image/svg"} {
		if h := b.want(t, 200, "", "GET", path, "").Header; !strings.HasPrefix(h.Get("Content-Type"), typ) || h.Get("ETag") == "" {
			t.Errorf("%s: %v", path, h)
		}
	}
	b.want(t, 404, "", "GET", "/web/none.js", "")
}
