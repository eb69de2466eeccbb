package web

import (
	"context"
	"embed"
	"io/fs"
	"log/slog"
	"net/http"
	"strings"

	"github.com/loadlinehq/loadline/edge"
	"github.com/loadlinehq/loadline/examples/conduit/auth"
	"github.com/loadlinehq/loadline/examples/conduit/httpapi"
)

//go:embed site
var site embed.FS

// policy lets the page have what this server has, and nothing else.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; " +
	"form-action 'none'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// Live ends the connections of who has logged out; package live has it.
type Live interface {
	Disconnect(ctx context.Context, user string) error
}

// Config holds what the page is made of.
type Config struct {
	// API is the handler of the whole API, of which the page shows what it says; it is required, as are Sessions and Tokens.
	API      http.Handler
	Sessions *Sessions
	Tokens   *auth.Tokens
	// Live is nil where nobody tells browsers what happens.
	Live Live
	// TrustedProxies are those of httpapi.Config.
	TrustedProxies []string
	// Limit is before all that asks for a session, such as httpapi.Limits.ByAddress: a cookie that somebody has made up is asked for as well. Default none.
	Limit edge.Middleware
	Log   *slog.Logger
}

type handler struct {
	c      Config
	errors edge.Errors
}

// New returns the handler of / and of all below /web/.
func New(c Config) (http.Handler, error) {
	files, err := fs.Sub(site, "site")
	if err != nil {
		return nil, err
	}
	static, err := edge.NewStatic(files)
	if err != nil {
		return nil, err
	}
	h := &handler{c: c, errors: edge.Errors{Log: c.Log}}
	mux := http.NewServeMux()
	mux.Handle("GET /{$}", static)
	mux.Handle("/web/", http.StripPrefix("/web", static))
	for pattern, asks := range map[string]http.HandlerFunc{
		"GET /web/session":   h.session,
		"POST /web/login":    h.enter("/api/users/login"),
		"POST /web/register": h.enter("/api/users"),
		"POST /web/logout":   h.leave,
		"/web/api/":          h.pass,
	} {
		if c.Limit == nil {
			mux.Handle(pattern, asks)
			continue
		}
		mux.Handle(pattern, c.Limit(asks))
	}
	chain, err := edge.Chain(edge.ChainConfig{
		Errors:   h.errors,
		Mux:      mux,
		Address:  edge.ClientAddressConfig{Trusted: c.TrustedProxies},
		Headers:  edge.SecurityHeaders{ContentSecurityPolicy: policy, ReferrerPolicy: "same-origin"},
		Deadline: edge.DeadlineConfig{Default: httpapi.RequestTimeout, Errors: h.errors},
	})
	if err != nil {
		return nil, err
	}
	return chain(h.fromHere(mux)), nil
}

// Serves reports whether a path is the page's.
func Serves(path string) bool { return path == "/" || strings.HasPrefix(path, "/web/") }

// fromHere refuses what pages of other sites have a browser do. edge.CrossOrigin is for who has a cookie; here a stranger's page could log in a visitor
// who has none yet, as somebody else.
func (h *handler) fromHere(next http.Handler) http.Handler {
	protection := http.NewCrossOriginProtection()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := protection.Check(r); err != nil {
			h.errors.Answer(w, r, &edge.Problem{Status: http.StatusForbidden, Detail: err.Error()})
			return
		}
		next.ServeHTTP(w, r)
	})
}

// pass has the API answer as the session's user.
func (h *handler) pass(w http.ResponseWriter, r *http.Request) {
	token, err := h.c.Sessions.Token(r)
	if err != nil {
		h.unavailable(w, r, err)
		return
	}
	h.c.API.ServeHTTP(w, inner(r, r.Method, strings.TrimPrefix(r.URL.Path, "/web"), strings.TrimPrefix(r.URL.RawPath, "/web"), token))
}

// inner is a request to the API in the name of who has sent another.
func inner(r *http.Request, method, path, rawPath, token string) *http.Request {
	asked := r.Clone(r.Context())
	asked.Method, asked.URL.Path, asked.URL.RawPath = method, path, rawPath
	// The API knows neither cookies nor, here, other origins: it is asked from its own.
	for _, name := range []string{"Cookie", "Authorization", "Origin"} {
		asked.Header.Del(name)
	}
	if token != "" {
		asked.Header.Set("Authorization", "Token "+token)
	}
	return asked
}
