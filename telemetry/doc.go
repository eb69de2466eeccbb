// Package telemetry sets OpenTelemetry up for a service: traces that are worth keeping, metrics that can be merged, logs that
// name their trace, and a port for those who operate it.
//
//	t, err := telemetry.New(ctx, telemetry.Config{Service: "shop", SpanExporter: exporter})
//	defer t.Shutdown(ctx)
//	router, err := db.Open(ctx, db.Config{Primary: url, TracerProvider: t.Traces, MeterProvider: t.Meters})
//	log := slog.New(telemetry.LogHandler(slog.NewJSONHandler(os.Stderr, nil)))
//	go http.ListenAndServe("127.0.0.1:9464", t.Admin(telemetry.AdminConfig{}))
//	handler = t.HTTP(telemetry.HTTPConfig{Route: edge.RouteOf})(handler)
//	client := &http.Client{Transport: otelhttp.NewTransport(nil, otelhttp.WithPropagators(t.Propagator))}
//
// Of traces a tenth is exported, as their callers have decided; and beyond that each one that has failed or was slow here,
// which nobody can know when it begins: all are recorded, and held back until their local root ends, within bounds. What
// happened to such a trace in other services is there only if they have kept it, too.
//
// Durations are exponential histograms, whose quantiles can be computed over all instances, or, for a Prometheus that
// does not take these, classic ones whose edges are close enough for a p95.
//
// Nothing is global: hand the providers to what needs them, or set them by otel.SetTracerProvider and otel.SetMeterProvider.
// An exporter by OTLP is in package telemetry/otlp, which alone links its protocol.
package telemetry
