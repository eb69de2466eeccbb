package causal

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"time"
)

// HeaderName is the header, and the trailer, that a token travels in, and the cookie's
// default name.
const HeaderName = "Causal-Token"

const (
	// DefaultCookieAge is a guess: longer than a failover takes, so that who has lost a
	// write in it is told.
	DefaultCookieAge = 24 * time.Hour
	// DefaultStoreTimeout is a guess: what a page can wait for, and Redis never needs.
	DefaultStoreTimeout = 100 * time.Millisecond
)

// HTTPConfig says how sessions travel between requests. Only Keys are required.
type HTTPConfig struct {
	// Keys sign what is given to clients.
	Keys Keys

	// Store and Principal, both or neither, are for clients that keep neither cookie nor
	// header. Principal returns who has been authenticated, or the empty string; so the
	// handler belongs behind authentication.
	Store     Store
	Principal func(*http.Request) string
	// StoreTimeout bounds each use of the store; a save is tried twice within it. Default
	// 100 ms. When it is too small, reads go to the primary without need. A store that has not answered three times
	// is asked what it has twice a second, by one request that waits; what is written it is told all the same.
	StoreTimeout time.Duration

	// AbsentMeansNew takes a request with neither a token nor a known principal for that of
	// a client which has not written yet. By default it may be one that keeps nothing, and
	// reads the primary. Set it when all clients keep the cookie, as browsers do.
	AbsentMeansNew bool

	// CookieName is the cookie's, of letters, digits and !#$%&'*+-.^_`|~. Default Causal-Token.
	CookieName string
	// CookieAge is how long a client keeps it. Default 24 h. It must be longer than a
	// replica may lag.
	CookieAge time.Duration
	// InsecureCookie sends it over plain HTTP as well.
	InsecureCookie bool
	// DisableCookie leaves the header alone.
	DisableCookie bool

	// Logger is told when the store fails. Default slog.Default().
	Logger *slog.Logger
}

// Validate reports all fields that cannot be.
func (c HTTPConfig) Validate() error {
	var errs []error
	if c.Keys.IsZero() {
		errs = append(errs, errors.New("causal: HTTPConfig.Keys: there is none; see NewKeys"))
	}
	if (c.Store == nil) != (c.Principal == nil) {
		errs = append(errs, errors.New("causal: HTTPConfig.Store and Principal: one is of no use without the other"))
	}
	if c.StoreTimeout < 0 || c.CookieAge < 0 || c.CookieAge > 0 && c.CookieAge < time.Second {
		errs = append(errs, fmt.Errorf("causal: HTTPConfig.StoreTimeout (%v) must not be negative, and CookieAge (%v) at least a second", c.StoreTimeout, c.CookieAge))
	}
	if i := strings.IndexFunc(c.CookieName, notInToken); i >= 0 {
		errs = append(errs, fmt.Errorf("causal: HTTPConfig.CookieName (%q) has a character that a cookie's name cannot have, at byte %d; letters, digits and %s can be in it", c.CookieName, i+1, tokenMarks))
	}
	return errors.Join(errs...)
}

// tokenMarks are those of an HTTP token (RFC 9110, section 5.6.2), which is what a cookie's
// name must be (RFC 6265, section 4.1.1). net/http drops a cookie with another name.
const tokenMarks = "!#$%&'*+-.^_`|~"

func notInToken(r rune) bool {
	return (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') && !strings.ContainsRune(tokenMarks, r)
}

// HTTP gives each request a session, and its client the token.
type HTTP struct {
	c    HTTPConfig
	away away
}

const (
	// maxFailures of the store, one after the other, and it is taken for away. Guess.
	maxFailures = 3
	askEvery    = 500 * time.Millisecond
)

// away is whether the store is to be asked, so that not every request waits for one that hangs.
type away struct {
	failures atomic.Int64
	asked    atomic.Int64 // when it was last, since it is away; since began
	began    time.Time    // and not since 1970: the clock may go back
}

var errAway = errors.New("causal: the store is away")

func (a *away) load(ctx context.Context, timeout time.Duration, store Store, principal string) (Token, error) {
	if a.failures.Load() >= maxFailures {
		last, now := a.asked.Load(), int64(time.Since(a.began))
		if now-last < int64(askEvery) || !a.asked.CompareAndSwap(last, now) {
			return Token{}, errAway
		}
	}
	within, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	t, err := store.Load(within, principal)
	switch {
	case err == nil:
		a.failures.Store(0)
	case ctx.Err() == nil: // or the client has gone, and that says nothing of the store
		if a.failures.Add(1) == maxFailures {
			a.asked.Store(int64(time.Since(a.began)))
		}
	}
	return t, err
}

// NewHTTP checks the configuration.
func NewHTTP(c HTTPConfig) (*HTTP, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	c.StoreTimeout = cmp.Or(c.StoreTimeout, DefaultStoreTimeout)
	c.CookieName = cmp.Or(c.CookieName, HeaderName)
	c.CookieAge = cmp.Or(c.CookieAge, DefaultCookieAge)
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return &HTTP{c: c, away: away{began: time.Now()}}, nil
}

// Handler puts a session into the context of each request that next gets: with what
// the header and the cookie say, and the store. A [DoubtName] puts it in doubt. A token that is not by one of the keys
// is worth nothing, is not the client's fault, and is replaced.
//
// When the session has changed, and is not just what the client has brought, the client
// gets the token with the answer's header. What
// changes after the first byte goes to the store and into a trailer, which browsers do
// not show to anyone: write before you answer. A panic passes through; who answers it
// further out answers with the token. The store is told before the client
// is; when that fails, a client that keeps nothing may read the past until replicas have
// caught up.
func (h *HTTP) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a := &answer{ResponseWriter: w, h: h, ctx: r.Context()}
		a.begin(r)
		returned := false
		defer func() {
			if returned {
				a.end()
			} else { // it panics, and what was written is still there
				a.fall()
			}
		}()
		next.ServeHTTP(a, r.WithContext(WithSession(r.Context(), a.session)))
		returned = true
	})
}

func (a *answer) begin(r *http.Request) {
	h := a.h
	var cookies []*http.Cookie
	if !h.c.DisableCookie {
		cookies = r.CookiesNamed(h.c.CookieName)
	}
	p := h.c.Keys.present(r.Header.Values(HeaderName), cookies)
	t, known := p.token, h.c.AbsentMeansNew || p.some
	a.holds, a.holdsIt = p.token, p.one
	if h.c.Principal != nil {
		a.principal = h.c.Principal(r)
	}
	if a.principal != "" {
		stored, err := h.away.load(a.ctx, h.c.StoreTimeout, h.c.Store, a.principal)
		if err != nil {
			level := slog.LevelWarn
			if errors.Is(err, errAway) || errors.Is(a.ctx.Err(), context.Canceled) { // it was said, or the client has gone
				level = slog.LevelDebug
			}
			h.c.Logger.Log(a.ctx, level, "causal: the store has not answered; the request reads the primary", "error", err)
		}
		known = err == nil && !stored.Incomplete()
		a.kept, a.keptAll = stored, known
		stored.incomplete = false // a doubt of the store's, which the client must not keep
		t = t.Merge(stored)
	}
	a.replace = p.bad
	if p.bad { // it may have said anything, and must not be taken for nothing next time
		t = t.Merge(Unknown())
	}
	a.session = NewSession(t)
	if !known || r.Header.Get(DoubtName) != "" {
		a.session.Doubt()
	}
}

// answer sets the token before the first byte.
type answer struct {
	http.ResponseWriter
	h         *HTTP
	ctx       context.Context
	session   *Session
	principal string
	savedFor  string // whom Identify has named, and who has been told for
	begun     bool
	told      Token // with the header, or seen to need no telling

	holds   Token // what the client has brought,
	holdsIt bool  // if that is all it has, and one
	replace bool  // the client has a token that is worth nothing
	kept    Token // what the store has for the principal,
	keptAll bool  // if it is sure of that
}
