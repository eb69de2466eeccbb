// Package otlp exports telemetry by OTLP over HTTP, for package telemetry. It is a package of its own because of what it links.
//
//	exporter, err := otlp.Spans(ctx)
//	reader, err := otlp.Metrics(ctx, 15*time.Second)
//	t, err := telemetry.New(ctx, telemetry.Config{Service: "shop", SpanExporter: exporter, Readers: []metric.Reader{reader}})
//
// Where to is said by the standard's variables, OTEL_EXPORTER_OTLP_ENDPOINT and the others
// (https://opentelemetry.io/docs/specs/otel/protocol/exporter/), or by options; without either it is http://localhost:4318. A collector that is
// away costs memory within bounds, and what it was not sent.
package otlp

import (
	"context"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/metric"
	sdk "go.opentelemetry.io/otel/sdk/trace"
)

// Spans connects when there is something to send.
func Spans(ctx context.Context, options ...otlptracehttp.Option) (sdk.SpanExporter, error) {
	e, err := otlptracehttp.New(ctx, options...)
	if err != nil {
		return nil, fmt.Errorf("otlp: %w", err)
	}
	return e, nil
}

// Metrics sends them each time the interval has passed. Default of OpenTelemetry is a minute; autoscaling wants 15 s or less.
func Metrics(ctx context.Context, interval time.Duration, options ...otlpmetrichttp.Option) (metric.Reader, error) {
	e, err := otlpmetrichttp.New(ctx, options...)
	if err != nil {
		return nil, fmt.Errorf("otlp: %w", err)
	}
	return metric.NewPeriodicReader(e, metric.WithInterval(interval)), nil
}
