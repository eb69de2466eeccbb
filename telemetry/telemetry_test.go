package telemetry_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/slogtest"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/baggage"
	"go.opentelemetry.io/otel/codes"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"

	"github.com/loadlinehq/loadline/telemetry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func start(t testing.TB, c telemetry.Config) *telemetry.Telemetry {
	t.Helper()
	if c.Service == "" {
		c.Service = "shop"
	}
	made, err := telemetry.New(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := made.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return made
}

func get(t testing.TB, handler http.Handler, target string, change func(r *http.Request)) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, target, nil)
	if change != nil {
		change(r)
	}
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r)
	return w
}

func here(r *http.Request) { r.RemoteAddr, r.Host = "127.0.0.1:50000", "127.0.0.1:9464" }

// A request is in the metrics by its route, in a trace that has its route as well, and what has failed is exported though its trace was
// not sampled.
func TestRequests(t *testing.T) {
	t.Parallel()
	exported := tracetest.NewInMemoryExporter()
	tel := start(t, telemetry.Config{Version: "v1.2.3", Ratio: -1, SpanProcessors: []sdk.SpanProcessor{sdk.NewSimpleSpanProcessor(exported)}, Histograms: telemetry.Classic})
	mux := http.NewServeMux()
	status := http.StatusOK
	mux.HandleFunc("GET example.com/articles/{slug}", func(w http.ResponseWriter, r *http.Request) {
		if trace.SpanFromContext(r.Context()).SpanContext().TraceID() == (trace.TraceID{7}) {
			t.Error("a stranger's trace goes on here")
		}
		if baggage.FromContext(r.Context()).Len() > 0 {
			t.Error("a stranger's baggage goes on here")
		}
		w.WriteHeader(status)
	})
	mux.HandleFunc("GET /stream", func(http.ResponseWriter, *http.Request) {})
	handler := tel.HTTP(telemetry.HTTPConfig{
		Route:   func(r *http.Request) string { _, pattern := mux.Handler(r); return pattern },
		Untimed: func(r *http.Request) bool { return r.URL.Path == "/stream" },
	})(mux)
	stranger := func(r *http.Request) {
		r.Header.Set("Baggage", "said=by-a-stranger")
		r.Header.Set("Traceparent", "00-07000000000000000000000000000000-0100000000000000-01")
	}
	for range 3 {
		get(t, handler, "/articles/some-slug", stranger)
		get(t, handler, "/stream", nil)
	}
	if n := len(exported.GetSpans()); n != 0 {
		t.Errorf("%d spans are exported, and strangers do not decide that", n)
	}
	status = http.StatusBadGateway
	get(t, handler, "/articles/other", nil)
	spans := exported.GetSpans()
	if len(spans) != 1 || spans[0].Name != "GET /articles/{slug}" || !has(spans[0].Attributes, "http.route", "/articles/{slug}") || !has(spans[0].Attributes, "loadline.kept", "failed") {
		t.Errorf("%+v", spans)
	}
	if r := spans[0].Resource; !has(r.Attributes(), "service.name", "shop") || !has(r.Attributes(), "service.version", "v1.2.3") {
		t.Errorf("%v", r)
	}

	text := get(t, tel.Admin(telemetry.AdminConfig{}), "/metrics", here).Body.String()
	for _, want := range []string{
		`http_server_request_duration_seconds_count{http_request_method="GET",http_response_status_code="200",http_route="/articles/{slug}"`,
		`http_response_status_code="502"`, `le="0.11"`, `le="0.12"`, `loadline_traces_total{outcome="failed"} 1`, `loadline_deploy_time_seconds{`, `service_version="v1.2.3"`,
		"go_goroutine_count", "process_cpu_seconds_total",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("/metrics has no %s", want)
		}
	}
	for _, not := range []string{"some-slug", "/stream", "server_address", "example.com"} {
		if strings.Contains(text, not) {
			t.Errorf("/metrics has %s", not)
		}
	}
	if t.Failed() {
		t.Log(text)
	}
}

// What a client says of the server, or takes for a method, makes no series and no name; and a panic is a failed trace.
func TestFewNames(t *testing.T) {
	t.Parallel()
	exported := tracetest.NewInMemoryExporter()
	tel := start(t, telemetry.Config{Ratio: -1, Keep: 1000, SpanProcessors: []sdk.SpanProcessor{sdk.NewSimpleSpanProcessor(exported)}, Histograms: telemetry.Classic})
	panics := false
	handler := tel.HTTP(telemetry.HTTPConfig{Route: func(*http.Request) string { return "/x" }})(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if panics {
			panic(http.ErrAbortHandler)
		}
		w.WriteHeader(http.StatusInternalServerError)
	}))
	for i := range 50 {
		get(t, handler, "/", func(r *http.Request) {
			r.Host, r.Method = fmt.Sprintf("h%d.example:%d", i, 1000+i), fmt.Sprint("BREW", i)
		})
	}
	text := get(t, tel.Admin(telemetry.AdminConfig{}), "/metrics", here).Body.String()
	if n := strings.Count(text, "http_server_request_duration_seconds_count{"); n != 1 {
		t.Errorf("there are %d series of one route", n)
	}
	for _, s := range exported.GetSpans() {
		if s.Name != "HTTP /x" {
			t.Errorf("a span is named %s", s.Name)
		}
	}
	exported.Reset()
	panics = true
	func() {
		defer func() { _ = recover() }()
		get(t, handler, "/", nil)
	}()
	if spans := exported.GetSpans(); len(spans) != 1 || spans[0].Status.Code != codes.Error {
		t.Errorf("%+v", spans)
	}
}

// Profiles are on the admin port, and on no other.
func TestProfiles(t *testing.T) {
	t.Parallel()
	admin := start(t, telemetry.Config{}).Admin(telemetry.AdminConfig{})
	for target, want := range map[string]int{
		"/debug/pprof/": 200, "/debug/pprof/heap": 200, "/debug/pprof/goroutine?debug=1": 200, "/debug/pprof/none": 404, "/debug/pprof/profile?seconds=0.1": 200,
		"/debug/pprof/trace?seconds=0.1": 200, "/debug/pprof/profile?seconds=1000000": 400, "/debug/pprof/profile?seconds=x": 400,
	} {
		w := get(t, admin, target, here)
		if w.Code != want || w.Body.Len() == 0 {
			t.Errorf("%s: %d, %d bytes", target, w.Code, w.Body.Len())
		}
	}
	if _, pattern := http.DefaultServeMux.Handler(httptest.NewRequest(http.MethodGet, "/debug/pprof/heap", nil)); pattern != "" {
		t.Errorf("http.DefaultServeMux serves %s", pattern)
	}
}

// A metric that cannot be shown does not hide the others.
func TestBadMetric(t *testing.T) {
	t.Parallel()
	var log strings.Builder
	tel := start(t, telemetry.Config{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	for _, scope := range []string{"a", "b"} {
		c, err := tel.Meters.Meter(scope).Int64Counter("twice")
		if err != nil {
			t.Fatal(err)
		}
		c.Add(t.Context(), 1)
	}
	w := get(t, tel.Admin(telemetry.AdminConfig{}), "/metrics", here)
	if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "go_goroutine_count") {
		t.Errorf("%d %.300s", w.Code, w.Body)
	}
}

// Those that are trusted decide.
func TestTrustedCaller(t *testing.T) {
	t.Parallel()
	exported := tracetest.NewInMemoryExporter()
	tel := start(t, telemetry.Config{Ratio: -1, SpanProcessors: []sdk.SpanProcessor{sdk.NewSimpleSpanProcessor(exported)}})
	handler := tel.HTTP(telemetry.HTTPConfig{Trusted: func(*http.Request) bool { return true }})(http.NotFoundHandler())
	get(t, handler, "/", func(r *http.Request) {
		r.Header.Set("Traceparent", "00-07000000000000000000000000000000-0100000000000000-01")
	})
	spans := exported.GetSpans()
	if len(spans) != 1 || spans[0].SpanContext.TraceID() != (trace.TraceID{7}) || spans[0].Parent.SpanID() != (trace.SpanID{1}) {
		t.Errorf("%+v", spans)
	}
}

func has(attributes []attribute.KeyValue, key attribute.Key, value string) bool {
	for _, a := range attributes {
		if a.Key == key && a.Value.AsString() == value {
			return true
		}
	}
	return false
}

// Without an exporter traces are not recorded, and have ids for logs.
func TestWithoutExporter(t *testing.T) {
	t.Parallel()
	tel := start(t, telemetry.Config{})
	var log strings.Builder
	logger := slog.New(telemetry.LogHandler(slog.NewTextHandler(&log, nil)))
	handler := tel.HTTP(telemetry.HTTPConfig{})(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if trace.SpanFromContext(r.Context()).IsRecording() {
			t.Error("a span is recorded for nobody")
		}
		logger.InfoContext(r.Context(), "here")
	}))
	get(t, handler, "/", nil)
	if !strings.Contains(log.String(), "trace_id=") {
		t.Errorf("%q", log.String())
	}
}

// It keeps to what all handlers keep to.
func TestLogHandlerContract(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	slogtest.Run(t, func(*testing.T) slog.Handler {
		log.Reset()
		return telemetry.LogHandler(slog.NewJSONHandler(&log, nil))
	}, func(t *testing.T) map[string]any {
		var line map[string]any
		if err := json.Unmarshal(log.Bytes(), &line); err != nil {
			t.Fatal(err)
		}
		return line
	})
}

func TestLogHandler(t *testing.T) {
	t.Parallel()
	var log strings.Builder
	plain := slog.NewTextHandler(&log, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}})
	logger := slog.New(telemetry.LogHandler(plain))
	ctx := trace.ContextWithSpanContext(t.Context(), trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}}))
	const ids = " trace_id=01000000000000000000000000000000 span_id=0200000000000000\n"
	for _, c := range []struct {
		log  func()
		want string
	}{
		{func() { logger.Info("m", "k", 1) }, "level=INFO msg=m k=1\n"},
		{func() { logger.InfoContext(ctx, "m", "k", 1) }, "level=INFO msg=m k=1" + ids},
		{func() { logger.With("a", 1).InfoContext(ctx, "m", "k", 1) }, "level=INFO msg=m a=1 k=1" + ids},
		{func() { logger.With("a", 1).WithGroup("g").With("b", 2).WithGroup("h").InfoContext(ctx, "m", "k", 1) }, "level=INFO msg=m a=1 g.b=2 g.h.k=1" + ids},
		{func() { logger.WithGroup("g").Info("m", "k", 1) }, "level=INFO msg=m g.k=1\n"},
		{func() { logger.WithGroup("g").WithGroup("h").InfoContext(ctx, "m") }, "level=INFO msg=m" + ids},
		{func() { logger.DebugContext(ctx, "m") }, ""},
	} {
		log.Reset()
		c.log()
		if log.String() != c.want {
			t.Errorf("%q, want %q", log.String(), c.want)
		}
	}
}

// Only this machine may look, or who has the token; and no other site's page.
func TestAdmin(t *testing.T) {
	t.Parallel()
	tel := start(t, telemetry.Config{})
	open, closed := tel.Admin(telemetry.AdminConfig{}), tel.Admin(telemetry.AdminConfig{Token: "s3cret"})
	for _, c := range []struct {
		name    string
		handler http.Handler
		change  func(r *http.Request)
		want    int
	}{
		{"here", open, here, 200},
		{"here, by IPv6", open, func(r *http.Request) { r.RemoteAddr, r.Host = "[::1]:1", "[::1]:9464" }, 200},
		{"here, by name", open, func(r *http.Request) { r.RemoteAddr, r.Host = "127.0.0.1:1", "localhost:9464" }, 200},
		{"elsewhere", open, func(r *http.Request) { r.RemoteAddr, r.Host = "192.0.2.1:1", "127.0.0.1" }, 403},
		{"a name that points here", open, func(r *http.Request) { here(r); r.Host = "evil.example:9464" }, 403},
		{"by a proxy here", open, func(r *http.Request) { here(r); r.Header.Set("X-Forwarded-For", "192.0.2.1") }, 403},
		{"another site", open, func(r *http.Request) { here(r); r.Header.Set("Sec-Fetch-Site", "cross-site") }, 403},
		{"no token", closed, here, 401},
		{"another token", closed, func(r *http.Request) { r.Header.Set("Authorization", "Bearer s3cre") }, 401},
		{"the token", closed, func(r *http.Request) { r.Header.Set("Authorization", "Bearer s3cret") }, 200},
		{"as a password", closed, func(r *http.Request) { r.SetBasicAuth("x", "s3cret") }, 200},
		{"an empty token", closed, func(r *http.Request) { r.Header.Set("Authorization", "Bearer ") }, 401},
	} {
		for _, target := range []string{"/metrics", "/debug/pprof/heap"} {
			if w := get(t, c.handler, target, c.change); w.Code != c.want {
				t.Errorf("%s: %s: %d, want %d", c.name, target, w.Code, c.want)
			}
		}
	}
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/metrics", nil)
	here(r)
	w := httptest.NewRecorder()
	if open.ServeHTTP(w, r); w.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", w.Code)
	}
}

// What Prometheus takes as a native histogram has its quantiles within the resolution of its edges.
func TestExponential(t *testing.T) {
	t.Parallel()
	tel := start(t, telemetry.Config{})
	d, err := tel.Meters.Meter("test").Float64Histogram("work.duration")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 1000 {
		d.Record(t.Context(), float64(i+1)/1000)
	}
	w := get(t, tel.Admin(telemetry.AdminConfig{}), "/metrics", func(r *http.Request) {
		here(r)
		r.Header.Set("Accept", "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=text")
	})
	body, _ := io.ReadAll(w.Body)
	if text := string(body); !strings.Contains(text, "work_duration") || !strings.Contains(text, "positive_delta") {
		t.Errorf("there is no native histogram: %d %v %.500s", w.Code, w.Header(), text)
	}
}

func TestBadConfigurations(t *testing.T) {
	t.Parallel()
	_, err := telemetry.New(t.Context(), telemetry.Config{Ratio: 2, Export: time.Hour, Histograms: 9})
	for _, want := range []string{"Service is missing", "Ratio is 2", "Export is 1h0m0s", "Histograms is 9"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not say %q: %v", want, err)
		}
	}
}

func Example() {
	exporter := tracetest.NewInMemoryExporter() // telemetry/otlp has a real one
	t, err := telemetry.New(context.Background(), telemetry.Config{Service: "shop", Version: "v1", SpanExporter: exporter})
	if err != nil {
		panic(err)
	}
	handler := t.HTTP(telemetry.HTTPConfig{Route: func(*http.Request) string { return "/orders/{id}" }})(
		http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) }))
	handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/orders/7", nil))
	_ = t.Traces.ForceFlush(context.Background())
	for _, s := range exporter.GetSpans() {
		fmt.Println(s.Name, s.Status.Code)
	}
	_ = t.Shutdown(context.Background())
	// Output: GET /orders/{id} Error
}
