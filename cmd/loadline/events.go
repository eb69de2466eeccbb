package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/alecthomas/kong"
	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/loadlinehq/loadline/events/natsjs"
	"github.com/loadlinehq/loadline/outbox"
)

type eventsCmd struct {
	Relay     relayCmd     `cmd:"" help:"Publish what the outbox holds, until Ctrl-C: for applications that do not run the relay themselves."`
	Republish republishCmd `cmd:"" help:"Publish again what was published before, from the archive: for a stream that is lost."`
}

// meshFlags say where the outbox is, and where the broker.
type meshFlags struct {
	URL      string `env:"DATABASE_URL" placeholder:"URL" help:"The database with the outbox."`
	NATS     string `name:"nats" env:"NATS_URL" placeholder:"URL" help:"The broker."`
	MaxBytes int64  `default:"1073741824" help:"Of events on the broker's disk, where the stream is made."`
	Source   string `default:"/" help:"Who writes the events, as CloudEvents has it."`
}

func (f *meshFlags) open(ctx context.Context, log *slog.Logger) (*natsjs.Driver, error) {
	var errs []error
	if f.URL == "" {
		errs = append(errs, errors.New("--url (variable DATABASE_URL) is not set: it is the connection string of the database with the outbox"))
	}
	if f.NATS == "" {
		errs = append(errs, errors.New("--nats (variable NATS_URL) is not set: it is the broker's, such as nats://127.0.0.1:4222"))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return natsjs.Open(ctx, natsjs.Config{URL: f.NATS, MaxBytes: f.MaxBytes, DeadLetterMaxBytes: max(f.MaxBytes/5, 1<<20), Logger: log})
}

type relayCmd struct {
	meshFlags
	Shard int `help:"Which share of the events, where there are several."`
}

// Run relays until ctx is done.
func (c *relayCmd) Run(ctx context.Context) (err error) {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	driver, err := c.open(ctx, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, driver.Close()) }()
	relay, err := outbox.NewRelay(outbox.RelayConfig{DSN: c.URL, Driver: driver, Hints: driver.Hints("outbox"), Source: c.Source, Shard: c.Shard, Logger: log})
	if err != nil {
		return err
	}
	var g errgroup.Group
	g.Go(func() error { return driver.Run(ctx) })
	g.Go(func() error { return relay.Run(ctx) })
	return g.Wait()
}

type republishCmd struct {
	meshFlags
	Since  string   `required:"" placeholder:"TIME" help:"From when on: 2026-11-24T14:00:00Z, or how long ago: 90m."`
	Until  string   `placeholder:"TIME" help:"Before when; now when left out."`
	Type   []string `placeholder:"TYPE" help:"Of these types alone."`
	Key    []string `placeholder:"KEY" help:"Of these keys alone."`
	Tenant string   `placeholder:"NAME" help:"Of this tenant alone."`
	Rate   int      `default:"500" help:"Events per second, at most: their handlers have others to handle."`
	DryRun bool     `help:"Count, and publish nothing."`
}

// Run publishes again, and says how far it has come.
func (c *republishCmd) Run(ctx context.Context, command *kong.Context) (err error) {
	now := time.Now()
	since, err1 := moment(c.Since, now)
	until, err2 := now, error(nil)
	if c.Until != "" {
		until, err2 = moment(c.Until, now)
	}
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	driver, err := c.open(ctx, slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, driver.Close()) }()
	conn, err := pgx.Connect(ctx, c.URL)
	if err != nil {
		return fmt.Errorf("database: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	told := time.Now()
	done, err := outbox.Republish(ctx, conn, driver, since, until, outbox.Filter{Types: c.Type, Keys: c.Key, Tenant: c.Tenant}, outbox.RepublishConfig{
		Source: c.Source, PerSecond: c.Rate, DryRun: c.DryRun,
		Progress: func(r outbox.Republished) {
			if time.Since(told) > time.Second {
				told = time.Now()
				fmt.Fprintf(command.Stderr, "%d published, up to %s\n", r.Published, r.Until.Format(time.RFC3339))
			}
		},
	})
	fmt.Fprintf(command.Stdout, "found %d, published %d, rejected %d\n", done.Found, done.Published, done.Rejected)
	if err != nil && !done.Until.IsZero() {
		err = fmt.Errorf("%w; go on with --since %s", err, done.Until.Format(time.RFC3339Nano))
	}
	return err
}

// moment is a time, or how long ago it was.
func moment(text string, now time.Time) (time.Time, error) {
	if ago, err := time.ParseDuration(text); err == nil && ago > 0 {
		return now.Add(-ago), nil
	}
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		return at, nil
	}
	return time.Time{}, fmt.Errorf("%q is no time: it is like 2026-11-24T14:00:00Z, or like 90m for how long ago", text)
}
