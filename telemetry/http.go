package telemetry

import (
	"context"
	"net/http"
	"runtime/pprof"
	"strings"
	"time"

	"go.opentelemetry.io/otel/baggage"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/semconv/v1.43.0/httpconv"
	"go.opentelemetry.io/otel/trace"
)

// HTTPConfig says what requests are.
type HTTPConfig struct {
	// Route is what a request is counted by, one of few: edge.RouteOf, or the pattern of a router. What is before the path in it, a method or a
	// host, is left out. Default http.Request.Pattern, as a mux further in sets it.
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

// HTTP traces and measures requests by OpenTelemetry's conventions, and labels what they do with their route in CPU profiles. Its metric is
// http.server.request.duration, in seconds. A panic that passes through is a failed trace, and is not measured: recover further in, as edge.Chain
// does. otelhttp would do as well, at a third more (docs/adr/0016).
//
// The conventions: https://opentelemetry.io/docs/specs/semconv/http/.
func (t *Telemetry) HTTP(c HTTPConfig) func(http.Handler) http.Handler {
	// The error is of a name that is no name.
	duration, _ := httpconv.NewServerRequestDuration(t.Meters.Meter(scope))
	h := &requests{HTTPConfig: c, tracer: t.Traces.Tracer(scope), propagator: t.Propagator, duration: duration.Inst(), endpoints: newEndpoints()}
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if c.Untimed != nil && c.Untimed(r) {
				next.ServeHTTP(w, r)
				return
			}
			h.serve(w, r, next)
		})
	}
}

// requests are those of one handler.
type requests struct {
	HTTPConfig

	tracer     trace.Tracer
	propagator propagation.TextMapPropagator
	duration   metric.Float64Histogram
	endpoints  *endpoints
}

func (h *requests) serve(w http.ResponseWriter, r *http.Request, next http.Handler) {
	began := time.Now()
	e := h.endpoints.of(r.Method, h.route(r))
	ctx, span := h.start(r, e)
	defer span.End()
	returned := false
	defer func() {
		if !returned {
			span.SetStatus(codes.Error, "it panics")
		}
	}()

	outer := ctx
	ctx = pprof.WithLabels(ctx, e.labels)
	pprof.SetGoroutineLabels(ctx)
	defer pprof.SetGoroutineLabels(outer)
	inner, answered := r.WithContext(ctx), &answered{ResponseWriter: w}
	defer func() { r.MultipartForm = inner.MultipartForm }() // net/http deletes its files
	next.ServeHTTP(answered, inner)
	returned = true

	if e.route == "" { // it was not known yet
		if e = h.endpoints.of(r.Method, h.route(inner)); e.route != "" {
			span.SetName(e.name)
			span.SetAttributes(e.routeAttribute())
		}
	}
	status := answered.statusCode()
	o := e.outcome(r, status)
	span.SetAttributes(o.span...)
	if status >= http.StatusInternalServerError {
		span.SetStatus(codes.Error, "")
	}
	h.duration.Record(ctx, time.Since(began).Seconds(), o.series...)
}

var ofServer = trace.WithSpanKind(trace.SpanKindServer)

// start begins the span, in the caller's trace if he is trusted.
func (h *requests) start(r *http.Request, e *endpoint) (context.Context, trace.Span) {
	options := [4]trace.SpanStartOption{ofServer, trace.WithAttributes(e.attributes(r)...)}
	n := 2
	ctx := h.propagator.Extract(r.Context(), propagation.HeaderCarrier(r.Header))
	if !h.trusts(r) {
		options[n] = trace.WithNewRoot()
		n++
		if caller := trace.SpanContextFromContext(ctx); caller.IsValid() && caller.IsRemote() {
			options[n] = trace.WithLinks(trace.Link{SpanContext: caller})
			n++
		}
		if baggage.FromContext(ctx).Len() > 0 {
			ctx = baggage.ContextWithoutBaggage(ctx)
		}
	}
	return h.tracer.Start(ctx, e.name, options[:n]...)
}
