package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/alecthomas/kong"

	"github.com/loadlinehq/loadline/events"
	"github.com/loadlinehq/loadline/outbox"
)

type republishCmd struct {
	meshFlags

	Since  string   `required:"" placeholder:"TIME" help:"From when on: 2026-11-24T14:00:00Z, or how long ago: 90m."`
	Until  string   `placeholder:"TIME" help:"Before when; now when left out."`
	Type   []string `placeholder:"TYPE" help:"Of these types alone."`
	Key    []string `sep:"none" placeholder:"KEY" help:"Of this key alone, or of several by several flags."`
	Tenant string   `placeholder:"NAME" help:"Of this tenant alone."`
	Rate   int      `default:"${rate}" field:"RepublishConfig.PerSecond" help:"Events per second, at most: their handlers have others to handle."`
	DryRun bool     `help:"Count, and publish nothing; needs no broker."`
}

// Help is shown below the flags.
func (republishCmd) Help() string {
	return `A stream that was lost is made again, as the flags say: give those that the relay has, by the same variables for instance.
Events keep their ids; who has handled one passes over it.`
}

// Run publishes again, and says how far it has come.
func (c *republishCmd) Run(ctx context.Context, command *kong.Context) error {
	now := time.Now()
	since, err1 := moment(c.Since, now)
	until, err2 := now, error(nil)
	if c.Until != "" {
		until, err2 = moment(c.Until, now)
	}
	missing := c.missing()
	if c.DryRun {
		missing = c.databaseFlag.missing()
	}
	if err := errors.Join(err1, err2, missing); err != nil {
		return err
	}
	conn, err := c.connect(ctx, c.Wait)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var broker events.Driver
	if !c.DryRun {
		driver, err := c.driver(ctx, logger(command, slog.LevelWarn), nil)
		if err != nil {
			return err
		}
		defer driver.Close()
		broker = driver
	}
	told := time.Now()
	done, err := outbox.Republish(ctx, conn, broker, since, until, outbox.Filter{Types: c.Type, Keys: c.Key, Tenant: c.Tenant}, outbox.RepublishConfig{
		Source: c.Source, PerSecond: c.Rate, DryRun: c.DryRun,
		Progress: func(r outbox.Republished) {
			if time.Since(told) > time.Second {
				told = time.Now()
				fmt.Fprintf(command.Stderr, "%d published, up to %s\n", r.Published, r.Until.Format(time.RFC3339))
			}
		},
	})
	fmt.Fprintf(command.Stdout, "found %d, published %d, rejected %d\n", done.Found, done.Published, done.Rejected)
	if err == nil {
		return nil
	}
	if !done.Until.IsZero() {
		fmt.Fprintf(command.Stderr, "go on with --since %s\n", done.Until.Format(time.RFC3339Nano))
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return named(err)
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
