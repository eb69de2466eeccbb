package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	exporter "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/sdk/metric"
)

// monitor serves the metrics and the health of a process.
type monitor struct {
	meters  *metric.MeterProvider
	state   atomic.Pointer[func() (state string, ok bool)] // nil: it waits for its servers
	server  http.Server
	serving sync.WaitGroup
	failed  error // of serving
}

// newMonitor listens, and serves until close.
func newMonitor(ctx context.Context, addr string, log *slog.Logger) (*monitor, error) {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	reader, err := exporter.New(exporter.WithRegisterer(registry), exporter.WithoutTargetInfo())
	if err != nil {
		return nil, fmt.Errorf("--metrics: %w", err)
	}
	m := &monitor{meters: metric.NewMeterProvider(metric.WithReader(reader))}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("--metrics is where to listen, as in 127.0.0.1:9464 or :9464: %w", errors.Join(err, m.meters.Shutdown(ctx)))
	}
	log.InfoContext(ctx, "loadline: /metrics and /healthz are served", "address", listener.Addr().String())
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", m.health)
	m.server = http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, WriteTimeout: 30 * time.Second}
	m.serving.Go(func() {
		if err := m.server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			m.failed = fmt.Errorf("--metrics: %w", err)
		}
	})
	return m, nil
}

// is says how the process is from now on.
func (m *monitor) is(state func() (state string, ok bool)) { m.state.Store(&state) }

func (m *monitor) health(w http.ResponseWriter, _ *http.Request) {
	state, ok := "starting", false
	if f := m.state.Load(); f != nil {
		state, ok = (*f)()
	}
	if !ok {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	fmt.Fprintln(w, state)
}

// close ends it, and what it still answers, and returns why it has served no longer.
func (m *monitor) close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if m.server.Shutdown(ctx) != nil {
		_ = m.server.Close()
	}
	m.serving.Wait()
	return errors.Join(m.failed, m.meters.Shutdown(ctx))
}
