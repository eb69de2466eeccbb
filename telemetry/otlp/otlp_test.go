package otlp_test

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.uber.org/goleak"

	"github.com/loadlinehq/loadline/telemetry"
	"github.com/loadlinehq/loadline/telemetry/otlp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// What there is at the end is sent before Shutdown returns.
func TestExport(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	got := make(map[string]int64)
	collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		got[r.URL.Path] += r.ContentLength
	}))
	defer collector.Close()
	transport := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	spans, err := otlp.Spans(t.Context(), otlptracehttp.WithEndpointURL(collector.URL+"/v1/traces"), otlptracehttp.WithHTTPClient(transport))
	if err != nil {
		t.Fatal(err)
	}
	reader, err := otlp.Metrics(t.Context(), time.Hour, otlpmetrichttp.WithEndpointURL(collector.URL+"/v1/metrics"), otlpmetrichttp.WithHTTPClient(transport))
	if err != nil {
		t.Fatal(err)
	}
	tel, err := telemetry.New(t.Context(), telemetry.Config{Service: "shop", SpanExporter: spans, Readers: []metric.Reader{reader}, Ratio: 1})
	if err != nil {
		t.Fatal(err)
	}
	_, span := tel.Traces.Tracer("test").Start(t.Context(), "work")
	span.End()
	if err := tel.Shutdown(context.Background()); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	for _, path := range []string{"/v1/traces", "/v1/metrics"} {
		if got[path] == 0 {
			t.Errorf("nothing is sent to %s: %v", path, got)
		}
	}
}

// A collector that is away, or never answers, holds nobody up for longer than Shutdown's context.
func TestCollectorAway(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0") // it takes connections, and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	for name, address := range map[string]string{"refuses": "http://127.0.0.1:1", "is silent": "http://" + silent.Addr().String()} {
		transport := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		spans, err := otlp.Spans(t.Context(), otlptracehttp.WithEndpointURL(address), otlptracehttp.WithHTTPClient(transport))
		if err != nil {
			t.Fatal(err)
		}
		tel, err := telemetry.New(t.Context(), telemetry.Config{Service: "shop", SpanExporter: spans, Ratio: 1, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		for range 10_000 { // more than are kept until they are sent
			_, span := tel.Traces.Tracer("test").Start(t.Context(), "work")
			span.End()
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("it %s: 10,000 spans took %v", name, took)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
		began = time.Now()
		_ = tel.Shutdown(ctx)
		cancel()
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("it %s: Shutdown took %v", name, took)
		}
	}
}
