package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/alecthomas/kong"
	"go.opentelemetry.io/otel/metric"
	"golang.org/x/sync/errgroup"

	"github.com/loadlinehq/loadline/causal"
	"github.com/loadlinehq/loadline/events"
	"github.com/loadlinehq/loadline/realtime"
	"github.com/loadlinehq/loadline/realtime/jwtauth"
)

type gatewayCmd struct {
	Realtime realtimeCmd `cmd:"" help:"Tell browsers what events say, by WebSocket and what goes where that does not."`
}

type realtimeCmd struct {
	driverFlags

	Listen string   `default:"127.0.0.1:8090" env:"LOADLINE_REALTIME_LISTEN" help:"Where to serve."`
	Path   string   `default:"/realtime" env:"LOADLINE_REALTIME_PATH" help:"Under which path."`
	Redis  []string `name:"redis" env:"REDIS_URL" placeholder:"URL" help:"What gateways share: redis://host:port, redis+cluster:// or redis+sentinel://; several are shards. When left out, this is the only gateway."`
	Prefix string   `default:"${realtime_prefix}" env:"LOADLINE_REALTIME_PREFIX" help:"Before all keys in Redis."`

	Namespaces []string `name:"namespace" sep:";" required:"" env:"LOADLINE_REALTIME_NAMESPACES" placeholder:"NAME=WHO,..." help:"Channels NAME:... and who may listen: anyone, known or own (the user that the channel names). Then, with commas: history=100/5m, state, presence, publish=WHO."`
	Feeds      []string `name:"feed" sep:";" env:"LOADLINE_REALTIME_FEEDS" placeholder:"TYPE=CHANNEL" help:"Events of a type, or TYPE@VERSION, and the channel that is told of them, such as comment.posted=article:{slug}: {slug} is the field of that name in the event's payload, which is sent as it is."`
	Group      string   `default:"realtime" env:"LOADLINE_REALTIME_GROUP" help:"Name of the consumer group, the same of all gateways."`

	Secrets   []string `name:"jwt-secret" env:"LOADLINE_REALTIME_JWT_SECRET" placeholder:"TEXT" help:"By which clients' tokens are signed (HS256); several, with commas, while one is replaced."`
	Audience  string   `name:"jwt-audience" env:"LOADLINE_REALTIME_JWT_AUDIENCE" help:"That a token must be for."`
	Issuer    string   `name:"jwt-issuer" env:"LOADLINE_REALTIME_JWT_ISSUER" help:"That a token must be from."`
	Tenant    string   `name:"jwt-tenant" env:"LOADLINE_REALTIME_JWT_TENANT" placeholder:"CLAIM" help:"Claim that has the client's tenant; there are none when left out."`
	Anonymous bool     `env:"LOADLINE_REALTIME_ANONYMOUS" help:"Let clients in that have no token, as nobody."`
	Origins   []string `name:"origin" env:"LOADLINE_REALTIME_ORIGINS" placeholder:"URL" help:"Other sites whose pages may connect."`

	CausalSecret string        `env:"LOADLINE_CAUSAL_SECRET" placeholder:"TEXT" help:"By which the application signs its causal tokens; publications carry none when left out."`
	Drain        time.Duration `default:"${realtime_drain}" env:"LOADLINE_REALTIME_DRAIN" help:"How long to take to send clients away when asked to end. 0s: all at once."`
	Metrics      string        `env:"LOADLINE_REALTIME_METRICS" placeholder:"ADDRESS" help:"Where to serve /metrics for Prometheus, and /healthz: 200 while new clients are taken. Not at all when left out."`
}

// Help is shown below the flags.
func (realtimeCmd) Help() string {
	return `An application that is written in Go can have the gateway in itself: package realtime. This one is for the others, and
for those who want to deploy one without the other: docs/realtime.md.`
}

// Run serves until ctx is done, and then drains.
func (c *realtimeCmd) Run(ctx context.Context, command *kong.Context) (err error) {
	log := logger(command, slog.LevelInfo)
	config, feeds, err := c.config()
	if err != nil {
		return err
	}
	var meters metric.MeterProvider
	var m *monitor
	if c.Metrics != "" {
		if m, err = newMonitor(ctx, c.Metrics, log); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, m.close(ctx)) }()
		meters = m.meters
	}
	config.Logger, config.MeterProvider = log, meters
	gateway, err := realtime.Open(ctx, config)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, gateway.Close()) }()
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", c.Listen)
	if err != nil {
		return fmt.Errorf("--listen is where to serve, as in 127.0.0.1:8090 or :8090: %w", err)
	}
	defer listener.Close()
	server := &http.Server{Handler: c.handler(gateway), ReadHeaderTimeout: 5 * time.Second}

	g, running := errgroup.WithContext(ctx)
	if len(feeds) > 0 {
		driver, err := c.driver(ctx, log, meters)
		if err != nil {
			return err
		}
		defer func() { _ = driver.Close() }()
		consumer, err := c.consumer(driver, gateway, feeds, log, meters)
		if err != nil {
			return err
		}
		g.Go(func() error { return driver.Run(running) })
		g.Go(func() error { return consumer.Run(running) })
	}
	g.Go(func() error {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	g.Go(func() error {
		err := gateway.Run(running)
		closing, cancel := context.WithTimeout(context.WithoutCancel(running), time.Second)
		defer cancel()
		if server.Shutdown(closing) != nil {
			_ = server.Close()
		}
		return err
	})
	if m != nil {
		m.is(func() (string, bool) {
			if gateway.Ready() {
				return "ready", true
			}
			return "draining", false
		})
	}
	log.InfoContext(ctx, "loadline: realtime channels are served", "address", listener.Addr().String(), "path", c.Path)
	return g.Wait()
}

func (c *realtimeCmd) handler(gateway *realtime.Gateway) http.Handler {
	path := "/" + strings.Trim(c.Path, "/")
	if path == "/" {
		return gateway.Handler()
	}
	mux := http.NewServeMux()
	mux.Handle(path+"/", http.StripPrefix(path, gateway.Handler()))
	return mux
}

func (c *realtimeCmd) config() (config realtime.Config, feeds []feed, err error) {
	config = realtime.Config{
		Redis: c.Redis, Prefix: c.Prefix, Origins: c.Origins, Drain: c.Drain, Namespaces: make(map[string]realtime.Namespace, len(c.Namespaces)),
	}
	if c.Drain == 0 {
		config.Drain = time.Nanosecond // nothing would be the package's own
	}
	var errs []error
	for _, text := range c.Namespaces {
		name, namespace, err := parseNamespace(text)
		if err != nil {
			errs = append(errs, fmt.Errorf("--namespace: %w", err))
			continue
		}
		config.Namespaces[name] = namespace
	}
	for _, text := range c.Feeds {
		f, err := parseFeed(text)
		if err == nil && config.Namespaces[f.namespace].Subscribe == nil && len(errs) == 0 {
			err = fmt.Errorf("%q is into namespace %s, which no --namespace names", text, f.namespace)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("--feed: %w", err))
		}
		feeds = append(feeds, f)
	}
	if len(feeds) > 0 {
		errs = append(errs, c.missing())
	}
	if c.Anonymous {
		config.Authenticate = realtime.Anonymous
	}
	if len(c.Secrets) > 0 {
		secrets := make([][]byte, len(c.Secrets))
		for i, secret := range c.Secrets {
			secrets[i] = []byte(secret)
		}
		var err error
		config.Token, err = jwtauth.New(jwtauth.Config{Secrets: secrets, Audience: c.Audience, Issuer: c.Issuer, Tenant: c.Tenant})
		errs = append(errs, err)
	} else if !c.Anonymous {
		errs = append(errs, errors.New("--jwt-secret and --anonymous are missing: one of them says who a client is"))
	}
	if c.CausalSecret != "" {
		var err error
		config.Keys, err = causal.NewKeys([]byte(c.CausalSecret))
		errs = append(errs, err)
	}
	return config, feeds, errors.Join(errs...)
}

func (c *realtimeCmd) consumer(driver events.Driver, gateway *realtime.Gateway, feeds []feed, log *slog.Logger, meters metric.MeterProvider) (*events.Consumer, error) {
	// A group that is new has nothing to tell of what is over.
	consumer, err := events.NewConsumer(driver, events.ConsumerConfig{Group: c.Group, StartAt: time.Now().Add(-time.Minute), Logger: log, MeterProvider: meters})
	if err != nil {
		return nil, err
	}
	for _, f := range feeds {
		f.handle(consumer, gateway)
	}
	return consumer, nil
}
