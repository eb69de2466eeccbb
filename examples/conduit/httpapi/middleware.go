package httpapi

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/rs/cors"

	"github.com/loadlinehq/loadline/causal"
	"github.com/loadlinehq/loadline/edge"
)

// RequestTimeout bounds the work for one request, waiting for a connection or
// for a turn to hash a password included.
const RequestTimeout = 10 * time.Second

// middleware is what stands before every route, outermost first: see edge.Chain.
func (a *api) middleware(c Config, mux *http.ServeMux) (func(http.Handler) http.Handler, error) {
	errs := edgeErrors(a.log)
	chain := edge.ChainConfig{
		Errors:       errs,
		Mux:          mux,
		Telemetry:    a.logAccess,
		Address:      edge.ClientAddressConfig{Trusted: c.TrustedProxies},
		CORS:         corsOf(c.CORSOrigins),
		MaxBody:      -1, // read says it in the contract's words
		Deadline:     edge.DeadlineConfig{Default: RequestTimeout, Errors: errs},
		Authenticate: a.identify,
	}
	if c.Telemetry != nil { // outside, so that what is logged names its trace
		chain.Telemetry = func(next http.Handler) http.Handler { return c.Telemetry(a.logAccess(next)) }
	}
	if c.Sessions != nil {
		chain.Session = c.Sessions.Handler
	}
	if c.Idempotency != nil {
		chain.Idempotency = &edge.IdempotencyConfig{Store: c.Idempotency, Principal: Principal, Applies: mayHaveKey, Errors: errs}
	}
	if c.Limits != nil {
		chain.Limit, chain.Shed = c.Limits.ofClient, c.Limits.shed
	}
	caching, err := edge.NewCaching(edge.CachingConfig{Policy: cachePolicy})
	if err != nil {
		return nil, err
	}
	chain.Caching = caching.Handler
	return edge.Chain(chain)
}

// cachePolicy has clients ask each time, and spares them what they have. There is no CDN that could be told what has changed.
func cachePolicy(r *http.Request) edge.CachePolicy {
	switch edge.RouteOf(r) {
	case "/api/user", "/healthz", "/readyz", "/":
		return edge.NoStore
	}
	return edge.Personal()
}

// mayHaveKey is for users alone: what others may post, registrations and logins, is answered with credentials, which are not
// to be kept, and a stranger must not fill the table.
func mayHaveKey(r *http.Request) bool {
	return r.Method == http.MethodPost && infoOf(r.Context()).viewer != 0 && edge.RouteOf(r) != "/"
}

// requestInfo is what is known of a request, for all who see it or a copy of it.
type requestInfo struct {
	viewer    int64 // 0: nobody
	viewerErr error
}

type requestInfoKey struct{}

func infoOf(ctx context.Context) *requestInfo {
	if info, ok := ctx.Value(requestInfoKey{}).(*requestInfo); ok {
		return info
	}
	return new(requestInfo)
}

// identify finds out who asks. That nobody does, or with a bad name, is for routes to mind.
func (a *api) identify(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		info := new(requestInfo)
		info.viewer, info.viewerErr = a.authenticate(r)
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), requestInfoKey{}, info)))
	})
}

// logAccess serves the request and logs what came of it.
func (a *api) logAccess(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		rec := &recorder{ResponseWriter: w}
		route := edge.RouteOf(r)
		defer func() {
			level := slog.LevelInfo
			if isHealth(r) {
				level = slog.LevelDebug // asked every second, and of no interest
			}
			a.log.LogAttrs(r.Context(), level, "request",
				slog.String("request_id", edge.RequestID(r.Context())),
				slog.String("method", r.Method),
				slog.String("route", route),
				slog.Int("status", rec.status),
				slog.Float64("duration_ms", float64(time.Since(start).Microseconds())/1000),
				slog.Int("bytes", rec.bytes))
		}()
		next.ServeHTTP(rec, r)
	})
}

// recorder notes what is sent.
type recorder struct {
	http.ResponseWriter
	status int
	bytes  int
}

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 && (status >= 200 || status == http.StatusSwitchingProtocols) {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	n, err := r.ResponseWriter.Write(b)
	r.bytes += n
	return n, err
}

// Unwrap serves http.ResponseController.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// corsOf lets browser front ends on these other origins use the API.
func corsOf(origins []string) *cors.Options {
	if len(origins) == 0 {
		return nil // to cors, none would mean all
	}
	return &cors.Options{
		AllowedOrigins: origins,
		AllowedMethods: []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodDelete},
		AllowedHeaders: []string{"Authorization", "Content-Type", "If-None-Match", edge.RequestIDHeader, edge.IdempotencyKeyHeader, causal.HeaderName},
		ExposedHeaders: []string{"ETag", edge.RequestIDHeader, edge.ReplayedHeader, "Retry-After", "RateLimit", "RateLimit-Policy", causal.HeaderName, channelHeader},
		MaxAge:         int((10 * time.Minute).Seconds()),
	}
}
