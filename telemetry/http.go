package telemetry

import (
	"context"
	"net/http"
	"runtime/pprof"

	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
)

// HTTPConfig says what requests are.
type HTTPConfig struct {
	// Route is what a request is counted by, one of few: edge.RouteOf, or the pattern of a router. Default http.Request.Pattern, which a
	// mux further in may not set where it is seen.
	Route func(*http.Request) string
	// Trusted are callers whose traces go on here, and who decide whether they are sampled, such as one's own services. Others' begin
	// anew, with a link: they could have all of theirs exported. Default nobody.
	Trusted func(*http.Request) bool
	// Untimed are open for long, such as streams, WebSockets and long polls: they are neither traced nor measured. Default none.
	Untimed func(*http.Request) bool
}

// HTTP traces and measures requests, by OpenTelemetry's conventions (http.server.request.duration and others), and labels what they do with
// their route in CPU profiles.
func (t *Telemetry) HTTP(c HTTPConfig) func(http.Handler) http.Handler {
	route := c.Route
	if route == nil {
		route = func(r *http.Request) string { return r.Pattern }
	}
	options := []otelhttp.Option{
		otelhttp.WithTracerProvider(t.Traces), otelhttp.WithMeterProvider(t.Meters), otelhttp.WithPropagators(t.Propagator),
		otelhttp.WithPublicEndpointFn(func(r *http.Request) bool { return c.Trusted == nil || !c.Trusted(r) }),
		otelhttp.WithSpanNameFormatter(func(_ string, r *http.Request) string {
			if route := route(r); route != "" {
				return r.Method + " " + route
			}
			return r.Method
		}),
	}
	if c.Untimed != nil {
		options = append(options, otelhttp.WithFilter(func(r *http.Request) bool { return !c.Untimed(r) }))
	}
	measured := otelhttp.NewMiddleware("", options...)
	return func(next http.Handler) http.Handler {
		return measured(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			name := route(r)
			if name == "" {
				next.ServeHTTP(w, r)
				return
			}
			if labeler, found := otelhttp.LabelerFromContext(r.Context()); found {
				labeler.Add(semconv.HTTPRoute(name))
			}
			if span := trace.SpanFromContext(r.Context()); span.IsRecording() {
				span.SetAttributes(semconv.HTTPRoute(name))
			}
			pprof.Do(r.Context(), pprof.Labels("route", name), func(ctx context.Context) { next.ServeHTTP(w, r.WithContext(ctx)) })
		}))
	}
}
