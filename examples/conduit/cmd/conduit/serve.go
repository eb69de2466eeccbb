package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/loadlinehq/loadline/examples/conduit/auth"
	"github.com/loadlinehq/loadline/examples/conduit/httpapi"
	"github.com/loadlinehq/loadline/examples/conduit/postgres"
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

type serveCmd struct {
	databaseFlags
	PoolMax      int32         `name:"pool-max" env:"CONDUIT_POOL_MAX" default:"20" help:"The most connections to the database."`
	Host         string        `env:"CONDUIT_HOST" default:"127.0.0.1" help:"The address to listen on."`
	Port         uint16        `env:"PORT" default:"8080" help:"The port to listen on."`
	Secret       string        `name:"jwt-secret" env:"CONDUIT_JWT_SECRET" placeholder:"SECRET" help:"What tokens are signed with, at least 32 bytes and the same for all instances."`
	Origins      []string      `name:"cors-origins" env:"CONDUIT_CORS_ORIGINS" default:"*" help:"The origins of browser front ends, separated by commas."`
	DrainDelay   time.Duration `env:"CONDUIT_DRAIN_DELAY" default:"0s" help:"How long to go on serving after SIGTERM while /readyz says no, for a load balancer to notice."`
	DrainTimeout time.Duration `env:"CONDUIT_DRAIN_TIMEOUT" default:"10s" help:"How long to wait for requests to end, after the delay."`
}

// Validate is called by kong.
func (c *serveCmd) Validate() error {
	if err := c.databaseFlags.Validate(); err != nil {
		return err
	}
	if c.Secret == "" {
		return errors.New("CONDUIT_JWT_SECRET is not set: tokens are signed with it; make one with `openssl rand -base64 32`")
	}
	if c.PoolMax < 1 {
		return fmt.Errorf("CONDUIT_POOL_MAX is %d: at least one connection is needed", c.PoolMax)
	}
	if c.DrainDelay < 0 || c.DrainTimeout < 0 {
		return errors.New("CONDUIT_DRAIN_DELAY and CONDUIT_DRAIN_TIMEOUT cannot be negative")
	}
	return nil
}

// Run serves until ctx ends, then drains.
func (c *serveCmd) Run(ctx context.Context) error {
	log := slog.New(slog.NewJSONHandler(os.Stderr, nil))

	tokens, err := auth.NewTokens(c.Secret)
	if err != nil {
		return fmt.Errorf("CONDUIT_JWT_SECRET: %w", err)
	}
	db, err := postgres.Open(ctx, postgres.Config{URL: c.URL, MaxConns: c.PoolMax})
	if err != nil {
		return fmt.Errorf("DATABASE_URL: %w", err)
	}
	defer db.Close()

	health := httpapi.NewHealth(db.Ping)
	server := &http.Server{
		Handler: httpapi.New(httpapi.Config{
			Store:       postgres.NewStore(db),
			Passwords:   auth.NewHasher(),
			Tokens:      tokens,
			Health:      health,
			Logger:      log,
			CORSOrigins: c.Origins,
		}),
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}

	listener, err := net.Listen("tcp", net.JoinHostPort(c.Host, fmt.Sprint(c.Port)))
	if err != nil {
		return fmt.Errorf("PORT: %w", err)
	}
	log.Info("serving", slog.String("address", listener.Addr().String()))
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}

	log.Info("draining", slog.Duration("delay", c.DrainDelay), slog.Duration("timeout", c.DrainTimeout))
	health.Drain()
	time.Sleep(c.DrainDelay)
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.DrainTimeout)
	defer cancel()
	if err := server.Shutdown(drain); err != nil {
		server.Close()
		return fmt.Errorf("some requests did not end within CONDUIT_DRAIN_TIMEOUT: %w", err)
	}
	return nil
}
