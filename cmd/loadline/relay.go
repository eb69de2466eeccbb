package main

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/alecthomas/kong"
	"go.opentelemetry.io/otel/metric"
	"golang.org/x/sync/errgroup"

	"github.com/loadlinehq/loadline/outbox"
)

type relayCmd struct {
	meshFlags

	Shard     int           `env:"LOADLINE_RELAY_SHARD" field:"RelayConfig.Shard" placeholder:"N" help:"Which share of the events, where there are several; 0 when left out."`
	Batch     int           `default:"${batch}" env:"LOADLINE_RELAY_BATCH" field:"RelayConfig.Batch" help:"Events that are published at once."`
	Poll      time.Duration `default:"${poll}" env:"LOADLINE_RELAY_POLL" field:"RelayConfig.Poll" help:"How often to look without a hint."`
	OnPoison  string        `default:"${on_poison}" enum:"skip,block" env:"LOADLINE_RELAY_ON_POISON" field:"RelayConfig.OnPoison" help:"What becomes of the key of an event that the broker never takes: skip goes on with the next, block waits for loadline events rejected."`
	Retention time.Duration `default:"${retention}" env:"LOADLINE_RELAY_RETENTION" field:"RelayConfig.Retention" help:"How long the archive lasts from which republish publishes; negative, as in --retention=-1s: there is none."`
	LeaseName string        `env:"LOADLINE_RELAY_LEASE_NAME" field:"RelayConfig.Name" placeholder:"NAME" help:"Who has the lease, as status shows it; the host and the process when left out."`
	LeaseTTL  time.Duration `name:"lease-ttl" default:"${lease_ttl}" env:"LOADLINE_RELAY_LEASE_TTL" field:"RelayConfig.LeaseTTL" help:"After how long without a sign of life another relay takes over."`

	Metrics string `env:"LOADLINE_RELAY_METRICS" placeholder:"ADDRESS" help:"Where to serve /metrics for Prometheus, and /healthz: 200 while this relay has the lease or stands by for it. Not at all when left out."`
}

// Help is shown below the flags.
func (relayCmd) Help() string {
	return `Several relays may run: one of a shard publishes, and the others stand by for it. Only at the start does it end when the
database or the broker is away; later it waits for them.

Where a stream is missing, it is made as the flags say. Give the same ones to republish, or a stream that was lost is made
again as another.`
}

// Run relays until ctx is done.
func (c *relayCmd) Run(ctx context.Context, command *kong.Context) (err error) {
	if err := c.missing(); err != nil {
		return err
	}
	log := logger(command, slog.LevelInfo)
	var meters metric.MeterProvider // the global one, which keeps nothing
	var m *monitor
	if c.Metrics != "" {
		if m, err = newMonitor(ctx, c.Metrics, log); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, m.close(ctx)) }()
		meters = m.meters
	}
	if err := c.ready(ctx); err != nil {
		return err
	}
	driver, err := c.driver(ctx, log, meters)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, driver.Close()) }()
	relay, err := outbox.NewRelay(outbox.RelayConfig{
		DSN: c.URL, Driver: driver, Hints: driver.Hints("outbox"), Source: c.Source, Shard: c.Shard, Batch: c.Batch, Poll: c.Poll,
		OnPoison: outbox.Poison(c.OnPoison), Retention: c.Retention, Name: c.LeaseName, LeaseTTL: c.LeaseTTL, Logger: log, MeterProvider: meters,
	})
	if err != nil {
		return err
	}
	if m != nil {
		// A broker that is away is none of its faults: starting the process again would not bring it back.
		m.is(func() (string, bool) {
			state := relay.State()
			return string(state), state == outbox.Leading || state == outbox.StandingBy
		})
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return driver.Run(ctx) })
	g.Go(func() error { return relay.Run(ctx) })
	return g.Wait()
}

// ready fails where the relay would try again for ever what a person has to mend.
func (c *relayCmd) ready(ctx context.Context) error {
	conn, err := c.connect(ctx, c.Wait)
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, "select invalidation_low from loadline.outbox, loadline.outbox_sent, loadline.outbox_relay limit 0")
	return errors.Join(named(err), conn.Close(context.WithoutCancel(ctx)))
}
