package edge

import (
	"fmt"
	"net/http"
	"time"
)

// Limits of [ServerDefaults].
const (
	DefaultReadHeaderTimeout = 5 * time.Second
	DefaultIdleTimeout       = 2 * time.Minute
	DefaultMaxHeader         = 64 << 10
)

// ServerDefaults sets what of a server is not set and would let strangers hold connections and memory: how long a request's
// header may take, how long a connection may be idle, and how long a header may be. It leaves ReadTimeout and
// WriteTimeout alone, which end streams; [MaxBody] and [Deadline] bound the rest by route.
func ServerDefaults(s *http.Server) {
	if s.ReadHeaderTimeout == 0 {
		s.ReadHeaderTimeout = DefaultReadHeaderTimeout
	}
	if s.IdleTimeout == 0 {
		s.IdleTimeout = DefaultIdleTimeout
	}
	if s.MaxHeaderBytes == 0 {
		s.MaxHeaderBytes = DefaultMaxHeader
	}
}

// SecurityHeaders tell browsers what not to do with an answer. A handler may set others. Its zero value has defaults that
// suit an API, and pages that nobody frames.
type SecurityHeaders struct {
	// HSTS has browsers use nothing but TLS for so long, which cannot be taken back. Default: not said.
	HSTS time.Duration
	// ContentSecurityPolicy is default "frame-ancestors 'none'", and "-" for none.
	ContentSecurityPolicy string
	// ReferrerPolicy is default "strict-origin-when-cross-origin".
	ReferrerPolicy string
}

// Handler sets the headers.
func (s SecurityHeaders) Handler(next http.Handler) http.Handler {
	set := http.Header{"X-Content-Type-Options": {"nosniff"}}
	switch s.ContentSecurityPolicy {
	case "":
		set["Content-Security-Policy"] = []string{"frame-ancestors 'none'"}
	case "-":
	default:
		set["Content-Security-Policy"] = []string{s.ContentSecurityPolicy}
	}
	if s.ReferrerPolicy == "" {
		s.ReferrerPolicy = "strict-origin-when-cross-origin"
	}
	set["Referrer-Policy"] = []string{s.ReferrerPolicy}
	if s.HSTS > 0 {
		set["Strict-Transport-Security"] = []string{fmt.Sprintf("max-age=%d", int64(s.HSTS/time.Second))}
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		for name, values := range set {
			h[name] = values[:1:1] // nobody appends to ours
		}
		next.ServeHTTP(w, r)
	})
}

// CrossOrigin refuses, with 403, what a page of another origin has a browser do with its user's cookies: by
// http.CrossOriginProtection. A request without a cookie passes: there is nothing to be abused.
func CrossOrigin(p *http.CrossOriginProtection, e Errors) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if len(r.Header["Cookie"]) > 0 {
				if err := p.Check(r); err != nil {
					e.Answer(w, r, &Problem{Status: http.StatusForbidden, Detail: err.Error()})
					return
				}
			}
			next.ServeHTTP(w, r)
		})
	}
}
