package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/loadlinehq/loadline/edge"
	"github.com/loadlinehq/loadline/examples/conduit/auth"
	"github.com/loadlinehq/loadline/examples/conduit/httpapi"
	"github.com/loadlinehq/loadline/examples/conduit/live"
	"github.com/loadlinehq/loadline/examples/conduit/web"
	"github.com/loadlinehq/loadline/internal/invalid"
	"github.com/loadlinehq/loadline/telemetry"
)

// Bounds of a connection. The handlers' own deadline is 10 s; the others leave
// it room.
const (
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 10 * time.Second
	writeTimeout      = 25 * time.Second // counts from the end of the header, so it includes reading the body
	idleTimeout       = 2 * time.Minute
	maxHeaderBytes    = 32 << 10
)

// serverConfig says where to listen, for whom, and how to stop.
type serverConfig struct {
	Host string `yaml:"host" env:"CONDUIT_HOST"`
	Port uint16 `yaml:"port" env:"PORT"`
	// CORSOrigins are those of browser front ends; "*" is any. None without an item.
	CORSOrigins []string `yaml:"corsOrigins" env:"CONDUIT_CORS_ORIGINS"`
	// DrainDelay is how long to go on serving after SIGTERM while /readyz says no,
	// for a load balancer to notice.
	DrainDelay time.Duration `yaml:"drainDelay" env:"CONDUIT_DRAIN_DELAY"`
	// DrainTimeout is how long to wait for requests to end, after the delay.
	DrainTimeout time.Duration `yaml:"drainTimeout" env:"CONDUIT_DRAIN_TIMEOUT"`
}

func defaultServerConfig() serverConfig {
	return serverConfig{Host: "127.0.0.1", Port: 8080, CORSOrigins: []string{"*"}, DrainTimeout: 10 * time.Second}
}

// Validate reports all fields that cannot be.
func (c serverConfig) Validate() error {
	return errors.Join(
		invalid.If(c.DrainDelay < 0, "drainDelay", "is %s: it cannot be negative", c.DrainDelay),
		invalid.If(c.DrainTimeout < 0, "drainTimeout", "is %s: it cannot be negative", c.DrainTimeout),
	)
}

// The arms that can be compared.
const (
	armLoadline = "loadline"
	armMonolith = "monolith"
)

type serveCmd struct {
	Arm string `env:"CONDUIT_ARM" enum:"loadline,monolith" default:"loadline" help:"What to serve on: ${enum}. The monolith has one pool, to the primary, and the same queries."`
}

// Run serves until ctx ends, then drains.
func (c *serveCmd) Run(ctx context.Context, app *commands) error {
	s := defaultSettings()
	if _, err := app.load(&s); err != nil {
		return err
	}
	return serve(ctx, s, c.Arm)
}

func serve(ctx context.Context, s settings, arm string) error {
	log, recorder := newLogger(s.Telemetry)
	var measured edge.Middleware
	if s.Telemetry.Enabled {
		t, stopTelemetry, err := openTelemetry(ctx, s.Telemetry, recorder, log)
		if err != nil {
			return err
		}
		defer stopTelemetry()
		measured = t.HTTP(telemetry.HTTPConfig{Route: edge.RouteOf})
	}

	tokens, err := auth.NewTokens(s.Auth.JWTSecret)
	if err != nil {
		return err
	}
	open := openLoadline
	if arm == armMonolith {
		open = openMonolith
	}
	backend, err := open(ctx, s, log)
	if err != nil {
		return err
	}
	defer backend.close()

	health := httpapi.NewHealth(backend.ping)
	config := httpapi.Config{
		Store:       backend.store,
		Viewed:      backend.viewed,
		Passwords:   auth.NewHasher(),
		Tokens:      tokens,
		Health:      health,
		Logger:      log,
		CORSOrigins: s.HTTP.CORSOrigins,
		Sessions:    backend.sessions,
		Idempotency: backend.idempotency,

		TrustedProxies: s.Edge.TrustedProxies,
		Limits:         backend.limits,
		Telemetry:      measured,
	}
	pages := web.Config{Sessions: backend.web, Tokens: tokens, TrustedProxies: s.Edge.TrustedProxies, Log: log}
	if backend.live != nil {
		config.ArticleChannel, config.UserChannel, pages.Live = live.ArticleChannel, live.UserChannel, backend.live
	}
	if backend.limits != nil {
		pages.Limit = backend.limits.ByAddress
	}
	if pages.API, err = httpapi.New(config); err != nil {
		return err
	}
	page, err := web.New(pages)
	if err != nil {
		return err
	}
	handler, err := withWeb(pages.API, page, backend.live, s.Edge.TrustedProxies)
	if err != nil {
		return err
	}
	server := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}

	listener, err := net.Listen("tcp", net.JoinHostPort(s.HTTP.Host, fmt.Sprint(s.HTTP.Port)))
	if err != nil {
		return fmt.Errorf("http.host, http.port: %w", err)
	}
	stopLive := func() {}
	if backend.live != nil {
		stopLive = runUntilClosed(ctx, log, "browsers are told nothing any more", backend.live.Run)
		defer stopLive()
	}
	log.Info("serving", slog.String("address", listener.Addr().String()), slog.String("arm", arm))
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}

	log.Info("draining", slog.Duration("delay", s.HTTP.DrainDelay), slog.Duration("timeout", s.HTTP.DrainTimeout))
	health.Drain()
	time.Sleep(s.HTTP.DrainDelay)
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.HTTP.DrainTimeout)
	defer cancel()
	// Beside each other: who is sent away comes back to other instances, and requests end meanwhile.
	var leaving sync.WaitGroup
	leaving.Go(stopLive)
	defer leaving.Wait()
	if err := server.Shutdown(drain); err != nil {
		server.Close()
		return fmt.Errorf("some requests did not end within http.drainTimeout: %w", err)
	}
	return nil
}
