package httpapi

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"github.com/rs/cors"

	"github.com/loadlinehq/loadline/causal"
)

// RequestTimeout bounds the work for one request, waiting for a connection or
// for a turn to hash a password included.
const RequestTimeout = 10 * time.Second

const (
	requestIDHeader = "X-Request-Id"
	maxRequestID    = 64
)

// middleware puts around next what every request gets.
func (a *api) middleware(origins []string, sessions *causal.HTTP, next http.Handler) http.Handler {
	if sessions != nil {
		next = sessions.Handler(next)
	}
	next = a.recoverPanics(allowOrigins(origins, next))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		info := &requestInfo{id: incomingID(r)}
		info.viewer, info.viewerErr = a.authenticate(r)
		w.Header().Set(requestIDHeader, info.id)
		ctx := context.WithValue(r.Context(), requestInfoKey{}, info)
		ctx, cancel := context.WithTimeout(ctx, RequestTimeout)
		defer cancel()
		a.logAccess(w, r.WithContext(ctx), next)
	})
}

// requestInfo is what is known of a request, for all who see it or a copy of it.
type requestInfo struct {
	id        string
	route     string // the pattern, once there is one
	viewer    int64  // 0: nobody
	viewerErr error
}

type requestInfoKey struct{}

func infoOf(ctx context.Context) *requestInfo {
	if info, ok := ctx.Value(requestInfoKey{}).(*requestInfo); ok {
		return info
	}
	return new(requestInfo)
}

// incomingID returns the id that the client or a proxy has given the request,
// if it is fit to be logged, or a new one.
func incomingID(r *http.Request) string {
	id := r.Header.Get(requestIDHeader)
	odd := func(c rune) bool {
		return !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.ContainsRune("._-", c))
	}
	if id == "" || len(id) > maxRequestID || strings.ContainsFunc(id, odd) {
		return rand.Text()
	}
	return id
}

// logAccess serves the request and logs what came of it.
func (a *api) logAccess(w http.ResponseWriter, r *http.Request, next http.Handler) {
	start := time.Now()
	rec := &recorder{ResponseWriter: w}
	info := infoOf(r.Context())
	defer func() {
		level := slog.LevelInfo
		if info.route == "/healthz" || info.route == "/readyz" {
			level = slog.LevelDebug // asked every second, and of no interest
		}
		a.log.LogAttrs(r.Context(), level, "request",
			slog.String("request_id", info.id),
			slog.String("method", r.Method),
			slog.String("route", info.route),
			slog.Int("status", rec.status),
			slog.Float64("duration_ms", float64(time.Since(start).Microseconds())/1000),
			slog.Int("bytes", rec.bytes))
	}()
	next.ServeHTTP(rec, r)
}

// recorder notes what is sent.
type recorder struct {
	http.ResponseWriter
	status int
	bytes  int
}

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
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

// recoverPanics turns a panic into an answer. A panic after the answer has
// begun can only end the connection.
func (a *api) recoverPanics(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			v := recover()
			if v == nil {
				return
			}
			if err, ok := v.(error); ok && errors.Is(err, http.ErrAbortHandler) {
				panic(v)
			}
			a.log.ErrorContext(r.Context(), "panic",
				slog.String("request_id", infoOf(r.Context()).id),
				slog.String("route", infoOf(r.Context()).route),
				slog.Any("panic", v),
				slog.String("stack", string(debug.Stack())))
			if rec, ok := w.(*recorder); ok && rec.status != 0 {
				panic(http.ErrAbortHandler)
			}
			writeJSON(w, http.StatusInternalServerError, problem("server", "has failed"))
		}()
		next.ServeHTTP(w, r)
	})
}

// allowOrigins lets browser front ends on these other origins use the API.
func allowOrigins(origins []string, next http.Handler) http.Handler {
	if len(origins) == 0 {
		return next // to cors, none would mean all
	}
	return cors.New(cors.Options{
		AllowedOrigins: origins,
		AllowedMethods: []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodDelete},
		AllowedHeaders: []string{"Authorization", "Content-Type", requestIDHeader, causal.HeaderName},
		ExposedHeaders: []string{requestIDHeader, "Retry-After", causal.HeaderName},
		MaxAge:         int((10 * time.Minute).Seconds()),
	}).Handler(next)
}
