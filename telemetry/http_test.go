package telemetry_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"mime/multipart"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime/pprof"
	"slices"
	"strings"
	"testing"

	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/loadlinehq/loadline/telemetry"
)

func muxed(status int) *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("/articles/{slug}", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) })
	mux.HandleFunc("/silent", func(http.ResponseWriter, *http.Request) {})
	return mux
}

// Requests are traced and measured as OpenTelemetry's own instrumentation does, but for what is named here.
func TestLikeOtelhttp(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, method, target string
		status               int
		change               func(r *http.Request)
	}{
		{"read", "GET", "/articles/one", 200, nil},
		{"nothing is said", "GET", "/silent", 200, nil},
		{"no route", "GET", "/none", 404, nil},
		{"write", "POST", "/articles/one", 201, func(r *http.Request) { r.Header.Set("User-Agent", "test/1.0") }},
		{"failure", "PUT", "/articles/one", 503, nil},
		{"refusal", "DELETE", "/articles/one", 422, nil},
		{"own method", "BREW", "/articles/one", 418, nil},
		{"port", "GET", "/articles/one", 200, func(r *http.Request) { r.Host = "shop.example:8080" }},
		{"IPv6", "GET", "/articles/one", 200, func(r *http.Request) { r.Host, r.RemoteAddr = "[2001:db8::1]", "[2001:db8::2]:4444" }},
		{"encrypted", "GET", "/articles/one", 200, func(r *http.Request) {
			r.TLS, r.Proto, r.ProtoMajor, r.ProtoMinor = &tls.ConnectionState{}, "HTTP/2.0", 2, 0
		}},
		{"HTTP/1.0", "GET", "/articles/one", 200, func(r *http.Request) { r.Proto, r.ProtoMinor = "HTTP/1.0", 0 }},
		{"a stranger's trace", "GET", "/articles/one", 200, func(r *http.Request) {
			r.Header.Set("Traceparent", "00-07000000000000000000000000000000-0100000000000000-01")
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			measure := func(wrap func(*telemetry.Telemetry, http.Handler) http.Handler) (tracetest.SpanStub, []attribute.KeyValue) {
				exported, reader := tracetest.NewInMemoryExporter(), metric.NewManualReader()
				tel := start(t, telemetry.Config{Ratio: 1, SpanProcessors: []sdk.SpanProcessor{sdk.NewSimpleSpanProcessor(exported)}, Readers: []metric.Reader{reader}, Histograms: telemetry.Classic})
				r := httptest.NewRequestWithContext(t.Context(), c.method, c.target, nil)
				if c.change != nil {
					c.change(r)
				}
				w := httptest.NewRecorder()
				wrap(tel, muxed(c.status)).ServeHTTP(w, r)
				if w.Code != c.status {
					t.Fatalf("%d", w.Code)
				}
				spans := exported.GetSpans()
				if len(spans) != 1 {
					t.Fatalf("%d spans", len(spans))
				}
				return spans[0], measured(t, reader)
			}
			ours, series := measure(func(tel *telemetry.Telemetry, next http.Handler) http.Handler {
				return tel.HTTP(telemetry.HTTPConfig{})(next)
			})
			theirs, theirSeries := measure(func(tel *telemetry.Telemetry, next http.Handler) http.Handler {
				return otelhttp.NewHandler(next, "", otelhttp.WithTracerProvider(tel.Traces), otelhttp.WithMeterProvider(tel.Meters), otelhttp.WithPropagators(tel.Propagator),
					otelhttp.WithPublicEndpointFn(func(*http.Request) bool { return true }))
			})
			if ours.Name != theirs.Name || ours.SpanKind != theirs.SpanKind || ours.Status.Code != theirs.Status.Code || len(ours.Links) != len(theirs.Links) || ours.Parent.IsValid() {
				t.Errorf("%s %v %v %v, and otelhttp has %s %v %v %v", ours.Name, ours.SpanKind, ours.Status, ours.Links, theirs.Name, theirs.SpanKind, theirs.Status, theirs.Links)
			}
			compare(t, "span", ours.Attributes, theirs.Attributes)
			compare(t, "series", series, theirSeries)
		})
	}
}

func measured(t *testing.T, reader metric.Reader) []attribute.KeyValue {
	t.Helper()
	var all metricdata.ResourceMetrics
	if err := reader.Collect(t.Context(), &all); err != nil {
		t.Fatal(err)
	}
	for _, s := range all.ScopeMetrics {
		for _, m := range s.Metrics {
			if m.Name == "http.server.request.duration" {
				points := m.Data.(metricdata.Histogram[float64]).DataPoints
				if len(points) != 1 || points[0].Count != 1 || m.Unit != "s" {
					t.Errorf("%+v", m)
				}
				return points[0].Attributes.ToSlice()
			}
		}
	}
	t.Fatal("nothing is measured")
	return nil
}

func compare(t *testing.T, what string, ours, theirs []attribute.KeyValue) {
	t.Helper()
	// It names an error, the route of a span though a mux further in finds it, and HTTP/2 as "2", as the conventions want; does not guess by a
	// header what the client is; and counts no bytes.
	more := []attribute.Key{"error.type", "http.route", "network.protocol.version"}
	less := []attribute.Key{"client.address", "http.request.body.size", "http.response.body.size", "network.protocol.version"}
	for _, a := range ours {
		if !slices.Contains(theirs, a) && !slices.Contains(more, a.Key) {
			t.Errorf("%s: %v is not otelhttp's: %v", what, a, theirs)
		}
	}
	for _, a := range theirs {
		if !slices.Contains(ours, a) && !slices.Contains(less, a.Key) {
			t.Errorf("%s: otelhttp has %v: %v", what, a, ours)
		}
	}
}

// What a Route returns of too many values is measured, and not remembered.
func TestManyRoutes(t *testing.T) {
	t.Parallel()
	tel := start(t, telemetry.Config{})
	handler := tel.HTTP(telemetry.HTTPConfig{Route: func(r *http.Request) string { return r.URL.Path }})(http.NotFoundHandler())
	for i := range 2500 {
		get(t, handler, fmt.Sprint("/", i), nil)
	}
	text := get(t, tel.Admin(telemetry.AdminConfig{}), "/metrics", here).Body.String()
	if n := strings.Count(text, "http_server_request_duration_seconds_count{"); n < 1000 || n > 2100 {
		t.Errorf("%d series", n)
	}
}

// A handler finds what net/http offers, and the route among its goroutine's labels, and nobody after it does.
func TestWriter(t *testing.T) {
	t.Parallel()
	exported := tracetest.NewInMemoryExporter()
	tel := start(t, telemetry.Config{Ratio: 1, SpanProcessors: []sdk.SpanProcessor{sdk.NewSimpleSpanProcessor(exported)}})
	mux := http.NewServeMux()
	mux.HandleFunc("/flush", func(w http.ResponseWriter, r *http.Request) {
		if label, _ := pprof.Label(r.Context(), "route"); label != "/flush" {
			t.Errorf("the label is %q", label)
		}
		w.WriteHeader(http.StatusEarlyHints)
		w.(http.Flusher).Flush()
		w.WriteHeader(http.StatusTeapot) // net/http says that this is too late
		if _, ok := w.(io.ReaderFrom); !ok {
			t.Error("sendfile is not possible")
		}
		_, _ = io.Copy(w, strings.NewReader("text"))
	})
	mux.HandleFunc("/hijack", func(w http.ResponseWriter, r *http.Request) {
		conn, rw, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = rw.WriteString("HTTP/1.1 101 Switching Protocols\r\n\r\n")
		_ = rw.Flush()
		_ = conn.Close()
	})
	mux.HandleFunc("/form", func(_ http.ResponseWriter, r *http.Request) { _ = r.ParseMultipartForm(1) })
	handler := tel.HTTP(telemetry.HTTPConfig{Route: func(r *http.Request) string { return r.URL.Path }})(mux)
	forms := make(chan *multipart.Form, 3)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handler.ServeHTTP(w, r)
		forms <- r.MultipartForm
		if label, found := pprof.Label(r.Context(), "route"); found {
			t.Errorf("the label is still %q", label)
		}
	}))
	defer server.Close()

	response, err := http.Get(server.URL + "/flush")
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(response.Body)
	_ = response.Body.Close()
	if response.StatusCode != http.StatusOK || string(body) != "text" {
		t.Errorf("%d %q", response.StatusCode, body)
	}
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(conn, "GET /hijack HTTP/1.1\r\nHost: x\r\n\r\n")
	if line, err := bufio.NewReader(conn).ReadString('\n'); !strings.Contains(line, "101") {
		t.Errorf("%q %v", line, err)
	}
	_ = conn.Close()
	response, err = http.Post(server.URL+"/form", `multipart/form-data; boundary=x`, strings.NewReader("--x\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--x--\r\n"))
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	<-forms
	<-forms
	if <-forms == nil {
		t.Error("the files of a form stay on the disk")
	}
	for _, s := range exported.GetSpans() {
		want := map[string]int64{"GET /flush": 200, "GET /hijack": 101, "POST /form": 200}[s.Name]
		if !slices.Contains(s.Attributes, attribute.Int64("http.response.status_code", want)) {
			t.Errorf("%s: %v", s.Name, s.Attributes)
		}
	}
}

// Labels of the caller's goroutine stay, whatever happens in the handler.
func TestLabelsAfterPanic(t *testing.T) {
	t.Parallel()
	exported := tracetest.NewInMemoryExporter()
	tel := start(t, telemetry.Config{Ratio: 1, SpanProcessors: []sdk.SpanProcessor{sdk.NewSimpleSpanProcessor(exported)}})
	handler := tel.HTTP(telemetry.HTTPConfig{Route: func(*http.Request) string { return "/x" }})(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if label, _ := pprof.Label(r.Context(), "job"); label != "test" {
			t.Errorf("the caller's label is %q", label)
		}
		if !trace.SpanFromContext(r.Context()).IsRecording() {
			t.Error("the handler has no span")
		}
		panic("here")
	}))
	pprof.Do(t.Context(), pprof.Labels("job", "test"), func(ctx context.Context) {
		defer func() {
			if recover() == nil {
				t.Error("the panic is lost")
			}
		}()
		handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(ctx, http.MethodGet, "/", nil))
	})
	if spans := exported.GetSpans(); len(spans) != 1 || spans[0].Status.Code != codes.Error {
		t.Errorf("%+v", spans)
	}
}

type nowhere struct{ header http.Header }

func (n nowhere) Header() http.Header       { return n.header }
func (nowhere) Write(b []byte) (int, error) { return len(b), nil }
func (nowhere) WriteHeader(int)             {}

// What a request costs whose trace is recorded and dropped, as most are.
func BenchmarkHTTP(b *testing.B) {
	next := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	discard := func(b *testing.B) *telemetry.Telemetry {
		return start(b, telemetry.Config{Ratio: -1, SpanProcessors: []sdk.SpanProcessor{sdk.NewSimpleSpanProcessor(tracetest.NewNoopExporter())}})
	}
	route := func(*http.Request) string { return "/articles/{slug}" }
	for name, wrap := range map[string]func(tel *telemetry.Telemetry) http.Handler{
		"loadline": func(tel *telemetry.Telemetry) http.Handler {
			return tel.HTTP(telemetry.HTTPConfig{Route: route})(next)
		},
		"otelhttp": func(tel *telemetry.Telemetry) http.Handler {
			return otelhttp.NewHandler(next, "", otelhttp.WithTracerProvider(tel.Traces), otelhttp.WithMeterProvider(tel.Meters), otelhttp.WithPropagators(tel.Propagator),
				otelhttp.WithPublicEndpointFn(func(*http.Request) bool { return true }))
		},
	} {
		b.Run(name, func(b *testing.B) {
			handler := wrap(discard(b))
			r := httptest.NewRequestWithContext(b.Context(), http.MethodGet, "/articles/one", nil)
			r.Header.Set("User-Agent", "Mozilla/5.0 (X11; Linux x86_64)")
			b.ReportAllocs()
			for b.Loop() {
				handler.ServeHTTP(nowhere{http.Header{}}, r)
			}
		})
	}
}
