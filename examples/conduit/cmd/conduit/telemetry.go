package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/metric"
	sdk "go.opentelemetry.io/otel/sdk/trace"

	"github.com/loadlinehq/loadline/edge"
	"github.com/loadlinehq/loadline/internal/invalid"
	"github.com/loadlinehq/loadline/telemetry"
	"github.com/loadlinehq/loadline/telemetry/live"
	"github.com/loadlinehq/loadline/telemetry/otlp"
)

// telemetryConfig says what is exported, and who may look.
type telemetryConfig struct {
	// Enabled measures and traces. Without it nothing below counts.
	Enabled bool `yaml:"enabled" env:"CONDUIT_TELEMETRY"`
	// OTLP is the URL of a collector, such as http://127.0.0.1:4318. Empty, and without Admin, traces are not recorded.
	OTLP string `yaml:"otlp" env:"OTEL_EXPORTER_OTLP_ENDPOINT"`
	// SampleRatio is the share of traces that is exported beside those that have failed or were slow.
	SampleRatio float64 `yaml:"sampleRatio" env:"CONDUIT_SAMPLE_RATIO"`
	// Slow is from how long on a request's trace is exported.
	Slow time.Duration `yaml:"slow" env:"CONDUIT_SLOW"`
	// MetricsEvery is how often metrics are sent to the collector.
	MetricsEvery time.Duration `yaml:"metricsEvery" env:"CONDUIT_METRICS_EVERY"`
	// ClassicHistograms are for a Prometheus that takes no native ones.
	ClassicHistograms bool `yaml:"classicHistograms" env:"CONDUIT_CLASSIC_HISTOGRAMS"`
	// Admin is where /loadline, /metrics and /debug/pprof are served. Empty: nowhere.
	Admin string `yaml:"admin" env:"LOADLINE_ADMIN"`
	// AdminToken is what others than this machine must send.
	AdminToken string `yaml:"adminToken" env:"CONDUIT_ADMIN_TOKEN" secret:"true"`
}

func defaultTelemetryConfig() telemetryConfig {
	return telemetryConfig{Enabled: true, SampleRatio: telemetry.DefaultRatio, Slow: telemetry.DefaultSlow, MetricsEvery: 15 * time.Second}
}

// Validate reports all fields that cannot be.
func (c telemetryConfig) Validate() error {
	_, _, err := net.SplitHostPort(c.Admin)
	collector, urlErr := url.Parse(c.OTLP)
	return errors.Join(
		invalid.If(c.OTLP != "" && (urlErr != nil || collector.Host == "" || collector.Scheme != "http" && collector.Scheme != "https"), "otlp", "is no address of a collector, like http://127.0.0.1:4318"),
		invalid.If(c.SampleRatio < 0 || c.SampleRatio > 1, "sampleRatio", "is %g, not between 0 and 1", c.SampleRatio),
		invalid.If(c.Slow <= 0, "slow", "is %s: it must be more than 0", c.Slow),
		invalid.If(c.MetricsEvery < time.Second, "metricsEvery", "is %s: it must be a second at least", c.MetricsEvery),
		invalid.If(c.Admin != "" && err != nil, "admin", "is %q: it is host and port, like 127.0.0.1:9464", c.Admin),
	)
}

// newLogger logs with the ids of traces. The recorder has what the admin port shows of them; nil: there is none.
func newLogger(c telemetryConfig) (*slog.Logger, *live.Recorder) {
	var handler slog.Handler = slog.NewJSONHandler(os.Stderr, nil)
	var recorder *live.Recorder
	if c.Enabled && c.Admin != "" {
		recorder = live.NewRecorder(c.Slow)
		handler = recorder.LogHandler(handler)
	}
	return slog.New(telemetry.LogHandler(handler)), recorder
}

// openTelemetry sets it up for all packages, and serves the admin port until the function that it returns is called, which exports what there is.
func openTelemetry(ctx context.Context, c telemetryConfig, recorder *live.Recorder, log *slog.Logger) (*telemetry.Telemetry, func(), error) {
	config := telemetry.Config{Service: "conduit", Ratio: c.SampleRatio, Slow: c.Slow, Logger: log}
	if c.SampleRatio == 0 {
		config.Ratio = -1
	}
	if c.ClassicHistograms {
		config.Histograms = telemetry.Classic
	}
	if c.OTLP != "" {
		spans, err := otlp.Spans(ctx, otlptracehttp.WithEndpointURL(strings.TrimSuffix(c.OTLP, "/")+"/v1/traces"))
		if err != nil {
			return nil, nil, fmt.Errorf("telemetry.otlp: %w", err)
		}
		reader, err := otlp.Metrics(ctx, c.MetricsEvery, otlpmetrichttp.WithEndpointURL(strings.TrimSuffix(c.OTLP, "/")+"/v1/metrics"))
		if err != nil {
			return nil, nil, fmt.Errorf("telemetry.otlp: %w", err)
		}
		config.SpanExporter, config.Readers = spans, []metric.Reader{reader}
	}
	if recorder != nil {
		config.SpanProcessors = []sdk.SpanProcessor{recorder}
	}
	t, err := telemetry.New(ctx, config)
	if err != nil {
		return nil, nil, err
	}
	stop := func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		if err := t.Shutdown(ctx); err != nil {
			log.Warn("telemetry was not exported", slog.Any("error", err))
		}
	}
	otel.SetTracerProvider(t.Traces)
	otel.SetMeterProvider(t.Meters)
	otel.SetTextMapPropagator(t.Propagator)
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { log.Warn("telemetry is not exported", slog.Any("error", err)) }))
	if c.Admin == "" {
		return t, stop, nil
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", c.Admin)
	if err != nil {
		stop()
		return nil, nil, fmt.Errorf("telemetry.admin: %w", err)
	}
	page, err := live.Of(live.Local(t.Gatherer(), recorder))
	if err != nil {
		_ = listener.Close()
		stop()
		return nil, nil, err
	}
	log.Info("/loadline, /metrics and /debug/pprof are served", slog.String("address", listener.Addr().String()))
	server := &http.Server{Handler: t.Admin(telemetry.AdminConfig{Token: c.AdminToken, Page: page}), WriteTimeout: 2 * time.Minute}
	edge.ServerDefaults(server)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			log.Error("the admin port is served no longer", slog.Any("error", err))
		}
	}()
	return t, func() {
		page.Close()
		_ = server.Close() // whoever profiles will see that it has ended
		<-ended
		stop()
	}, nil
}
