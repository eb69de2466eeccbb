package telemetry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"go.opentelemetry.io/contrib/instrumentation/runtime"
	"go.opentelemetry.io/otel/attribute"
	exporter "go.opentelemetry.io/otel/exporters/prometheus"
	otelmetric "go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
)

const scope = "github.com/loadlinehq/loadline/telemetry"

// Telemetry is a process's. It may be used by several goroutines.
type Telemetry struct {
	// Traces and Meters are for the Config of other packages.
	Traces *sdk.TracerProvider
	Meters *metric.MeterProvider
	// Propagator takes traces from service to service: W3C's trace context and baggage.
	Propagator propagation.TextMapPropagator

	resource *resource.Resource
	registry *prometheus.Registry
	keeper   *keeper // nil: nothing is exported
	log      *slog.Logger
}

// Gatherer has the metrics as Prometheus is shown them.
func (t *Telemetry) Gatherer() prometheus.Gatherer { return t.registry }

// shutdownTimeout is for what there is at the end, when its context has ended.
const shutdownTimeout = 5 * time.Second

// New sets it up. Its metrics are those of the Go runtime, loadline.traces{outcome}, which says what became of traces, and
// loadline.deploy.time{service.version}, in seconds since 1970.
func New(ctx context.Context, c Config) (*Telemetry, error) {
	c = c.withDefaults()
	if err := c.validate(); err != nil {
		return nil, err
	}
	t := &Telemetry{
		Propagator: propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{}),
		registry:   prometheus.NewRegistry(),
		log:        c.Logger,
	}
	attributes := append([]attribute.KeyValue{
		semconv.ServiceName(c.Service), semconv.ServiceVersion(c.Version), semconv.ServiceInstanceID(uuid.NewString()),
		attribute.String("loadline.deploy.time", c.Deployed.UTC().Format("2006-01-02T15:04:05Z")),
	}, c.Attributes...)
	var err error
	t.resource, err = resource.New(ctx, resource.WithTelemetrySDK(), resource.WithHost(), resource.WithAttributes(attributes...), resource.WithFromEnv())
	if err != nil { // the rest of it is there
		c.Logger.WarnContext(ctx, "telemetry: not all is known of this process, or OTEL_RESOURCE_ATTRIBUTES is not understood", "error", err)
	}

	t.registry.MustRegister(collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	prom, err := exporter.New(exporter.WithRegisterer(t.registry), exporter.WithoutScopeInfo())
	if err != nil {
		return nil, fmt.Errorf("telemetry: %w", err)
	}
	options := []metric.Option{metric.WithResource(t.resource), metric.WithReader(prom), metric.WithView(view(c.Histograms))}
	for _, r := range c.Readers {
		options = append(options, metric.WithReader(r))
	}
	t.Meters = metric.NewMeterProvider(options...)
	t.Traces = t.tracerProvider(c)
	if err := errors.Join(runtime.Start(runtime.WithMeterProvider(t.Meters)), t.observe(c)); err != nil {
		return nil, errors.Join(err, t.Shutdown(ctx))
	}
	return t, nil
}

func (t *Telemetry) tracerProvider(c Config) *sdk.TracerProvider {
	processors := c.SpanProcessors
	if c.SpanExporter != nil {
		processors = append([]sdk.SpanProcessor{sdk.NewBatchSpanProcessor(&logged{SpanExporter: c.SpanExporter, log: c.Logger}, sdk.WithBatchTimeout(c.Export))}, processors...)
	}
	if len(processors) == 0 {
		return sdk.NewTracerProvider(sdk.WithResource(t.resource), sdk.WithSampler(sdk.NeverSample()))
	}
	sampler := sdk.ParentBased(sdk.TraceIDRatioBased(c.Ratio))
	t.keeper = newKeeper(processors, c.Slow, c.Keep)
	if c.Keep > 0 {
		sampler = sdk.AlwaysRecord(sampler)
	}
	return sdk.NewTracerProvider(sdk.WithResource(t.resource), sdk.WithSampler(sampler), sdk.WithSpanProcessor(t.keeper))
}

func (t *Telemetry) observe(c Config) error {
	meter := t.Meters.Meter(scope)
	deployed, err1 := meter.Float64ObservableGauge("loadline.deploy.time", otelmetric.WithUnit("s"), otelmetric.WithDescription("When this version was deployed, since 1970."))
	traces, err2 := meter.Int64ObservableCounter("loadline.traces", otelmetric.WithUnit("{trace}"), otelmetric.WithDescription("What became of traces: dropped, or exported for a reason."))
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	running, _ := t.resource.Set().Value(semconv.ServiceVersionKey) // the environment may have said another
	version := otelmetric.WithAttributes(semconv.ServiceVersion(running.AsString()))
	at := float64(c.Deployed.UnixMilli()) / 1000
	_, err := meter.RegisterCallback(func(_ context.Context, o otelmetric.Observer) error {
		o.ObserveFloat64(deployed, at, version)
		if t.keeper != nil {
			for i, name := range outcomeNames {
				o.ObserveInt64(traces, t.keeper.outcomes[i].Load(), otelmetric.WithAttributes(attribute.String("outcome", name)))
			}
		}
		return nil
	}, deployed, traces)
	return err
}

// Shutdown exports what there is, and ends it. It returns when that is done, or ctx is; if that has ended before, as a signal's has, it
// takes five seconds at most.
func (t *Telemetry) Shutdown(ctx context.Context) error {
	if ctx.Err() != nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
		defer cancel()
	}
	// Beside each other: one collector that hangs must not take the other's time.
	traces := make(chan error, 1)
	go func() { traces <- t.Traces.Shutdown(ctx) }()
	return errors.Join(t.Meters.Shutdown(ctx), <-traces)
}

// logged says when spans could not be exported, now and then.
type logged struct {
	sdk.SpanExporter
	log  *slog.Logger
	lost atomic.Int64 // since it was said last
	said atomic.Int64 // when, in seconds
}

const sayEvery = 10 // seconds

// ExportSpans returns nil: it has said what is to be said.
func (l *logged) ExportSpans(ctx context.Context, spans []sdk.ReadOnlySpan) error {
	err := l.SpanExporter.ExportSpans(ctx, spans)
	if err == nil {
		return nil
	}
	lost, last, now := l.lost.Add(int64(len(spans))), l.said.Load(), time.Now().Unix()
	if (now-last >= sayEvery || now < last) && l.said.CompareAndSwap(last, now) {
		l.lost.Add(-lost)
		l.log.WarnContext(ctx, "telemetry: spans could not be exported", "spans", lost, "error", err)
	}
	return nil
}
