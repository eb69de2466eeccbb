package telemetry

import (
	"crypto/sha256"
	"crypto/subtle"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"strings"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// AdminConfig says who may look.
type AdminConfig struct {
	// Token is what others than this machine must send, as a bearer token or as the password of basic authentication. Without one, only
	// this machine is answered.
	Token string
}

// Admin is for a port of its own, that the internet does not reach: /metrics for Prometheus, and /debug/pprof.
func (t *Telemetry) Admin(c AdminConfig) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(t.registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return c.guard(mux)
}

func (c AdminConfig) guard(next http.Handler) http.Handler {
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

// isHere: the caller is on this machine, and has asked for it by its address or as localhost. A name that points here is what a page of
// another site uses to read what is here.
func isHere(r *http.Request) bool {
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
