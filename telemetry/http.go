package telemetry

import (
	"context"
	"net/http"
	"runtime/pprof"
	"strings"

	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/baggage"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
)

// HTTPConfig says what requests are.
type HTTPConfig struct {
	// Route is what a request is counted by, one of few: edge.RouteOf, or the pattern of a router. What is before the path in it, a method or a
	// host, is left out. Default http.Request.Pattern, which a mux further in may not set where it is seen.
	Route func(*http.Request) string
	// Trusted are callers whose traces and baggage go on here, and who decide whether they are sampled, such as one's own services. Others' begin
	// anew, with a link: they could have all of theirs exported. It is asked before edge.ClientAddress has found the client's. Default nobody.
	Trusted func(*http.Request) bool
	// Untimed are open for long, such as streams, WebSockets and long polls: they are neither traced nor measured. Default none.
	Untimed func(*http.Request) bool
}

func (c *HTTPConfig) route(r *http.Request) string {
	route := r.Pattern
	if c.Route != nil {
		route = c.Route(r)
	}
	if i := strings.IndexByte(route, '/'); i > 0 {
		route = route[i:]
	}
	return route
}

func (c *HTTPConfig) trusts(r *http.Request) bool { return c.Trusted != nil && c.Trusted(r) }

func (c *HTTPConfig) name(_ string, r *http.Request) string {
	method := r.Method
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodConnect, http.MethodOptions, http.MethodTrace:
	default:
		method = "HTTP" // a client's own word
	}
	if route := c.route(r); route != "" {
		return method + " " + route
	}
	return method
}

// HTTP traces and measures requests, by OpenTelemetry's conventions (http.server.request.duration and others), and labels what they do with
// their route in CPU profiles. A panic that passes through is a failed trace, and is not measured: recover further in, as edge.Chain does.
func (t *Telemetry) HTTP(c HTTPConfig) func(http.Handler) http.Handler {
	options := []otelhttp.Option{
		otelhttp.WithTracerProvider(t.Traces), otelhttp.WithMeterProvider(t.Meters), otelhttp.WithPropagators(t.Propagator),
		otelhttp.WithPublicEndpointFn(func(r *http.Request) bool { return !c.trusts(r) }), otelhttp.WithSpanNameFormatter(c.name),
	}
	if c.Untimed != nil {
		options = append(options, otelhttp.WithFilter(func(r *http.Request) bool { return !c.Untimed(r) }))
	}
	measured := otelhttp.NewMiddleware("", options...)
	return func(next http.Handler) http.Handler {
		return measured(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			ctx, span, route := r.Context(), trace.SpanFromContext(r.Context()), c.route(r)
			if route != "" {
				if labeler, found := otelhttp.LabelerFromContext(ctx); found {
					labeler.Add(semconv.HTTPRoute(route))
				}
				span.SetAttributes(semconv.HTTPRoute(route))
			}
			if baggage.FromContext(ctx).Len() > 0 && !c.trusts(r) {
				ctx = baggage.ContextWithoutBaggage(ctx)
			}
			returned := false
			defer func() {
				if !returned {
					span.SetStatus(codes.Error, "it panics")
				}
			}()
			pprof.Do(ctx, pprof.Labels("route", route), func(ctx context.Context) {
				inner := r.WithContext(ctx)
				defer func() { r.MultipartForm = inner.MultipartForm }() // net/http deletes its files
				next.ServeHTTP(w, inner)
			})
			returned = true
		}))
	}
}
