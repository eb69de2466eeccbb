package telemetry

import (
	"crypto/sha256"
	"crypto/subtle"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// AdminConfig says who may look.
type AdminConfig struct {
	// Token is what must be sent, as a bearer token or as the password of basic authentication. Without one, only this machine is
	// answered: set one where a proxy on this machine leads here.
	Token string
	// Page is served at /loadline and below: see package telemetry/live. Default none.
	Page http.Handler
}

// Admin is for a port of its own, that the internet does not reach: /metrics for Prometheus, /debug/pprof, and a page. A metric that cannot be shown is left
// out, and logged.
func (t *Telemetry) Admin(c AdminConfig) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(t.registry, promhttp.HandlerOpts{
		ErrorHandling: promhttp.ContinueOnError, ErrorLog: slog.NewLogLogger(t.log.Handler(), slog.LevelError),
	}))
	profiles(mux)
	if c.Page != nil {
		mux.Handle("/loadline", c.Page)
		mux.Handle("/loadline/", c.Page)
	}
	return c.Guard(mux)
}

// Guard answers those who may look.
func (c AdminConfig) Guard(next http.Handler) http.Handler {
	want := sha256.Sum256([]byte(c.Token))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "no-store")
		switch {
		case r.Header.Get("Sec-Fetch-Site") == "cross-site":
			http.Error(w, "another site's page must not ask", http.StatusForbidden)
		case c.Token == "" && !isHere(r):
			http.Error(w, "only this machine may look: set a token for others", http.StatusForbidden)
		case c.Token != "" && !matches(r, want):
			w.Header().Set("WWW-Authenticate", `Basic realm="loadline"`)
			http.Error(w, "the token is missing, or is another", http.StatusUnauthorized)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// isHere: the caller is on this machine, has asked for it by its address or as localhost, and asks for himself. A name that points here is what a page of
// another site uses to read what is here.
func isHere(r *http.Request) bool {
	for _, forwarded := range []string{"X-Forwarded-For", "Forwarded", "X-Real-Ip", "Via"} {
		if len(r.Header[forwarded]) > 0 {
			return false
		}
	}
	caller, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil || !caller.Addr().Unmap().IsLoopback() {
		return false
	}
	host := r.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	addr, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return host == "localhost" || err == nil && addr.Unmap().IsLoopback()
}

func matches(r *http.Request, want [sha256.Size]byte) bool {
	_, token, ok := r.BasicAuth()
	if !ok {
		token, ok = strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	}
	got := sha256.Sum256([]byte(token))
	return ok && subtle.ConstantTimeCompare(got[:], want[:]) == 1
}
