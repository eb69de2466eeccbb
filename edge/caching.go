package edge

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/loadlinehq/loadline/causal"
	"github.com/loadlinehq/loadline/tenancy"
)

// CachePolicy is what caches may do with an answer. Its zero value forbids to keep it.
type CachePolicy struct {
	// Browser is how long a browser may use it without asking, and Shared how long a cache between may, such as a CDN's. For
	// what changes, leave Browser at 0: nothing can be purged there.
	Browser, Shared time.Duration
	// StaleWhileRevalidate and StaleIfError are for how long after that a CDN may give it while it asks, and when it gets no
	// answer. Browsers are not told: one that did so would show its user the past.
	StaleWhileRevalidate, StaleIfError time.Duration
	// Validate has caches ask each time, with its ETag, when they may keep it otherwise for no time. It is what personal answers can
	// have.
	Validate bool
	// Vary names headers of requests that the answer depends on.
	Vary []string
	// ETag has answers that have none be given a weak one, of their bytes: they are held back up to 256 KiB.
	ETag bool
	// Immutable: it never changes.
	Immutable bool
}

// NoStore is the policy that forbids to keep an answer.
var NoStore = CachePolicy{}

// Public is for what all see, and what is purged when it changes: half a minute in the CDN, a minute more while it asks, and ten
// when it gets no answer.
func Public() CachePolicy {
	return CachePolicy{Shared: 30 * time.Second, StaleWhileRevalidate: time.Minute, StaleIfError: 10 * time.Minute, ETag: true}
}

// Personal is for what one user sees: his browser may keep it, and asks each time.
func Personal() CachePolicy { return CachePolicy{Validate: true, ETag: true} }

// CachingConfig needs a Policy.
type CachingConfig struct {
	// Policy is that of a request's answer, mostly by its route: see [RouteOf].
	Policy func(*http.Request) CachePolicy
	// Purge has a CDN drop what has one of the keys, as it was named in Surrogate-Key and Cache-Tag. Default none.
	Purge func(ctx context.Context, keys []string) error
}

// Caching sets headers for caches.
type Caching struct{ c CachingConfig }

// NewCaching checks the configuration.
func NewCaching(c CachingConfig) (*Caching, error) {
	if c.Policy == nil {
		return nil, errors.New("edge: CachingConfig.Policy is missing")
	}
	return &Caching{c}, nil
}

const (
	// maxHashed bounds an answer that is held back for its ETag.
	maxHashed = 256 << 10
	// maxKeys bounds Surrogate-Key: Fastly takes 16 KiB, Cloudflare as much.
	maxKeysBytes = 16 << 10
	// purgeBatch is how many keys Fastly takes at once.
	purgeBatch = 256
)

// Handler sets Cache-Control, CDN-Cache-Control (RFC 9213), Vary and ETag in answers to GET and HEAD, and answers 304 where
// the client has what there is. A handler that sets Cache-Control itself is left alone.
//
// An answer is kept by shared caches only if it is nobody's: not where the request has an Authorization or a cookie, a
// session that has seen something, or a tenant, nor where the answer sets a cookie; such a policy becomes [NoStore] then, or
// what of it is for the user's own browser. So who has just written, and has the token's cookie, gets past the CDN,
// if that passes requests with a cookie on.
func (c *Caching) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			next.ServeHTTP(w, r)
			return
		}
		a := &cached{ResponseWriter: w, r: r, policy: c.c.Policy(r)}
		next.ServeHTTP(a, r)
		a.end()
	})
}

// Purge has the CDN drop all that has one of the tags. Call it when they have been invalidated: before, it would be given what is
// cached.
func (c *Caching) Purge(ctx context.Context, tags ...string) error {
	if c.c.Purge == nil {
		return nil
	}
	var errs []error
	for batch := range slices.Chunk(tags, purgeBatch) {
		keys := make([]string, len(batch))
		for i, tag := range batch {
			keys[i] = surrogateKey(tag)
		}
		errs = append(errs, c.c.Purge(ctx, keys))
	}
	return errors.Join(errs...)
}

// SurrogateKeys names what an answer is of, for a CDN's purge: the tags that package cache invalidates. Call it before the answer
// begins. Keys beyond 16 KiB are left out, and the answer is not kept by shared caches.
func SurrogateKeys(w http.ResponseWriter, tags ...string) {
	h := w.Header()
	for _, tag := range tags {
		key := surrogateKey(tag)
		if had := h.Get("Surrogate-Key"); had == "" {
			h.Set("Surrogate-Key", key)
			h.Set("Cache-Tag", key)
		} else if len(had)+1+len(key) <= maxKeysBytes {
			h.Set("Surrogate-Key", had+" "+key)
			h.Set("Cache-Tag", h.Get("Cache-Tag")+","+key)
		} else {
			h.Set("Cache-Control", "no-store") // it could not be purged
		}
	}
}

// surrogateKey is a tag without what separates keys.
func surrogateKey(tag string) string {
	key := url.QueryEscape(tag)
	if len(key) > 200 {
		sum := sha256.Sum256([]byte(tag))
		key = base64.RawURLEncoding.EncodeToString(sum[:])
	}
	return key
}

// personal reports whether an answer is somebody's.
func personal(r *http.Request, h http.Header) bool {
	if len(r.Header["Authorization"]) > 0 || len(r.Header["Cookie"]) > 0 || len(h["Set-Cookie"]) > 0 {
		return true
	}
	if session := causal.FromContext(r.Context()); session != nil && !session.Token().IsZero() {
		return true
	}
	_, tenant := tenancy.FromContext(r.Context())
	return tenant
}

func (p CachePolicy) set(r *http.Request, h http.Header) {
	for _, name := range p.Vary {
		addVary(h, name)
	}
	if len(h["Cache-Control"]) > 0 {
		return
	}
	switch {
	case p.Shared > 0 && !personal(r, h):
		h.Set("Cache-Control", fmt.Sprintf("public, max-age=%d, s-maxage=%d%s", seconds(p.Browser), seconds(p.Shared), p.immutable()))
		cdn := fmt.Sprintf("max-age=%d", seconds(p.Shared))
		if p.StaleWhileRevalidate > 0 {
			cdn += fmt.Sprintf(", stale-while-revalidate=%d", seconds(p.StaleWhileRevalidate))
		}
		if p.StaleIfError > 0 {
			cdn += fmt.Sprintf(", stale-if-error=%d", seconds(p.StaleIfError))
		}
		h.Set("CDN-Cache-Control", cdn)
		// Who comes with credentials is given another.
		addVary(h, "Authorization")
		addVary(h, "Cookie")
		return
	case p.Browser > 0:
		addVary(h, "Authorization") // two may use one browser, one after the other
		addVary(h, "Cookie")
		h.Set("Cache-Control", fmt.Sprintf("private, max-age=%d%s", seconds(p.Browser), p.immutable()))
	case p.Validate:
		h.Set("Cache-Control", "private, no-cache")
	default:
		h.Set("Cache-Control", "private, no-store")
	}
	h.Del("Surrogate-Key")
	h.Del("Cache-Tag")
}

func (p CachePolicy) immutable() string {
	if p.Immutable {
		return ", immutable"
	}
	return ""
}

func seconds(d time.Duration) int64 { return int64(d / time.Second) }

func addVary(h http.Header, name string) {
	for _, line := range h["Vary"] {
		for had := range strings.SplitSeq(line, ",") {
			if had = strings.TrimSpace(had); had == "*" || strings.EqualFold(had, name) {
				return
			}
		}
	}
	h.Add("Vary", name)
}

// cached is an answer to GET or HEAD.
type cached struct {
	http.ResponseWriter
	r      *http.Request
	policy CachePolicy

	status int          // 0: not begun
	held   bytes.Buffer // for the ETag
	holds  bool
	spoilt bool // the handler has said 200, and then something else
	empty  bool // what is written is not sent: it is a 304
}

func (c *cached) WriteHeader(status int) {
	if c.holds && status >= 200 {
		c.spoilt = true // as net/http, it goes on with the first; but nobody is to keep it
		return
	}
	if status < 200 && status != http.StatusSwitchingProtocols || c.status != 0 {
		c.ResponseWriter.WriteHeader(status)
		return
	}
	c.status = status
	h := c.Header()
	if status != http.StatusOK || c.r.Header.Get("Range") != "" {
		if status == http.StatusOK || status == http.StatusPartialContent || status == http.StatusNotModified {
			c.policy.set(c.r, h)
		} else if len(h["Cache-Control"]) == 0 {
			h.Set("Cache-Control", "private, no-store")
		}
		c.ResponseWriter.WriteHeader(status)
		return
	}
	c.policy.set(c.r, h)
	if h.Get("ETag") == "" && c.policy.ETag && c.r.Method == http.MethodGet && !strings.HasSuffix(h.Get("Cache-Control"), "no-store") {
		c.holds = true
		return
	}
	c.begin()
}

// begin sends the header, or that the client has it.
func (c *cached) begin() {
	h := c.Header()
	if c.spoilt || strings.HasPrefix(h.Get("Cache-Control"), "public") && personal(c.r, h) { // it may have become somebody's
		noStore(h)
	}
	if etag := h.Get("ETag"); etag != "" && matches(c.r.Header["If-None-Match"], etag) {
		for _, name := range []string{"Content-Type", "Content-Length", "Content-Encoding", "Last-Modified"} {
			h.Del(name) // RFC 9110, section 15.4.5
		}
		c.empty = true
		c.ResponseWriter.WriteHeader(http.StatusNotModified)
		return
	}
	c.ResponseWriter.WriteHeader(c.status)
}

// release begins with what was held back.
func (c *cached) release() error {
	if !c.holds {
		return nil
	}
	c.holds = false
	c.begin()
	if c.empty {
		return nil
	}
	_, err := c.ResponseWriter.Write(c.held.Bytes())
	return err
}

func (c *cached) Write(p []byte) (int, error) {
	if c.status == 0 {
		if c.Header().Get("Content-Type") == "" && len(p) > 0 {
			c.Header().Set("Content-Type", http.DetectContentType(p)) // as net/http, which may get it in other pieces
		}
		c.WriteHeader(http.StatusOK)
	}
	if c.holds {
		if c.held.Len()+len(p) <= maxHashed {
			return c.held.Write(p)
		}
		if err := c.release(); err != nil {
			return 0, err
		}
	}
	if c.empty {
		return len(p), nil
	}
	return c.ResponseWriter.Write(p)
}

// FlushError is http.ResponseController's. A stream has no ETag.
func (c *cached) FlushError() error {
	if c.status == 0 {
		c.WriteHeader(http.StatusOK)
	}
	if err := c.release(); err != nil {
		return err
	}
	return http.NewResponseController(c.ResponseWriter).Flush()
}

// Flush is http.Flusher's, which some libraries ask for.
func (c *cached) Flush() { _ = c.FlushError() }

// Hijack is http.ResponseController's.
func (c *cached) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(c.ResponseWriter).Hijack()
	if err == nil {
		c.status = http.StatusSwitchingProtocols // there is no answer to be ended
	}
	return conn, rw, err
}

// Unwrap is for http.ResponseController.
func (c *cached) Unwrap() http.ResponseWriter { return c.ResponseWriter }

// noStore takes back what caches were told.
func noStore(h http.Header) {
	for _, name := range []string{"CDN-Cache-Control", "Surrogate-Key", "Cache-Tag", "ETag"} {
		h.Del(name)
	}
	h.Set("Cache-Control", "private, no-store")
}

// end is after the handler, unless it has panicked. One that has given up has not said 200, which Deadline knows, and
// what it has said is not whole.
func (c *cached) end() {
	gaveUp := c.r.Context().Err() != nil
	if c.status == 0 {
		if gaveUp {
			return
		}
		c.WriteHeader(http.StatusOK)
	}
	if !c.holds {
		return
	}
	if gaveUp || c.spoilt {
		c.spoilt = true
		_ = c.release()
		return
	}
	sum := sha256.Sum256(c.held.Bytes())
	// Weak: what compresses the answer on its way changes its bytes.
	c.Header().Set("ETag", `W/"`+base64.RawURLEncoding.EncodeToString(sum[:16])+`"`)
	_ = c.release() // to a client that has gone
}

// matches is RFC 9110, section 13.1.2, by weak comparison.
func matches(lines []string, etag string) bool {
	etag = strings.TrimPrefix(etag, "W/")
	for _, line := range lines {
		for line = strings.TrimSpace(line); line != ""; line = strings.TrimLeft(line, " \t,") {
			if line[0] == '*' {
				return true
			}
			line = strings.TrimPrefix(line, "W/")
			if line == "" || line[0] != '"' {
				break // it is no list of tags
			}
			end := strings.IndexByte(line[1:], '"')
			if end < 0 {
				break
			}
			if line[:end+2] == etag {
				return true
			}
			line = line[end+2:]
		}
	}
	return false
}
