package main

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/alecthomas/kong"

	"github.com/loadlinehq/loadline/outbox"
)

// statusLimit bounds how long the status takes, for who asks by the minute.
const statusLimit = 10 * time.Second

type eventsStatusCmd struct {
	databaseFlag
	JSON   bool          `name:"json" help:"Print JSON."`
	MaxAge time.Duration `placeholder:"DURATION" help:"End with 1 when an event has waited for longer: for a probe, or cron."`
}

// Run prints the status, also when something has waited for too long.
func (c *eventsStatusCmd) Run(ctx context.Context, command *kong.Context) error {
	ctx, cancel := context.WithTimeout(ctx, statusLimit)
	defer cancel()
	conn, err := c.connect(ctx, databaseWait)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	stats, err := outbox.ReadStats(ctx, conn)
	if err != nil {
		return named(err)
	}
	if c.JSON {
		err = printJSON(newOutboxStatus(stats))
	} else {
		err = printOutbox(command.Stdout, stats, time.Now())
	}
	if err == nil && c.MaxAge > 0 && stats.Oldest > c.MaxAge {
		err = fmt.Errorf("an event has waited for %v, longer than %v; is a relay active, and does the broker take events", stats.Oldest.Round(time.Millisecond), c.MaxAge)
	}
	return err
}

// outboxStatus is outbox.Stats with units in the names.
type outboxStatus struct {
	OldestSeconds        float64       `json:"oldestSeconds"`
	Depth                int64         `json:"depth"`
	Bytes                int64         `json:"bytes"`
	InvalidationsSeconds float64       `json:"invalidationsSeconds"`
	Held                 int64         `json:"held"`
	Dead                 int64         `json:"dead"`
	Relays               []relayStatus `json:"relays"`
}

type relayStatus struct {
	Shard  int       `json:"shard"`
	Active bool      `json:"active"`
	Holder string    `json:"holder"`
	Epoch  int64     `json:"epoch"`
	Since  time.Time `json:"since"`
	Paused string    `json:"paused"`
}

func newOutboxStatus(s outbox.Stats) outboxStatus {
	status := outboxStatus{
		OldestSeconds: s.Oldest.Seconds(), Depth: s.Depth, Bytes: s.Bytes, InvalidationsSeconds: s.Invalidations.Seconds(),
		Held: s.Held, Dead: s.Dead, Relays: []relayStatus{},
	}
	for _, r := range s.Relays {
		status.Relays = append(status.Relays, relayStatus{r.Shard, r.Active, r.Holder, r.Epoch, r.Since, r.Paused})
	}
	return status
}

func printOutbox(out io.Writer, s outbox.Stats, now time.Time) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "oldest\t%v\tage of the first event that waits\n", s.Oldest.Round(time.Millisecond))
	fmt.Fprintf(table, "depth\t%d\tevents that wait, at most\n", s.Depth)
	fmt.Fprintf(table, "bytes\t%d\tof the table\n", s.Bytes)
	fmt.Fprintf(table, "invalidations\t%v\tage of the first that the cache has not taken\n", s.Invalidations.Round(time.Millisecond))
	fmt.Fprintf(table, "held\t%d\tevents that have failed, and hold back their keys\n", s.Held)
	fmt.Fprintf(table, "dead\t%d\tevents that were refused for good; loadline events rejected list\n", s.Dead)
	fmt.Fprintln(table)
	if len(s.Relays) == 0 {
		fmt.Fprintln(table, "no relay has ever run")
		return table.Flush()
	}
	if err := table.Flush(); err != nil { // another table
		return err
	}
	fmt.Fprintln(table, "SHARD\tRELAY\tEPOCH\tSINCE\tSTATE")
	for _, r := range s.Relays {
		state, holder := "active", r.Holder
		switch {
		case !r.Active:
			state, holder = "gone", "none"
		case r.Paused != "":
			state = "waits for the broker: " + r.Paused
		}
		fmt.Fprintf(table, "%d\t%s\t%d\t%v\t%s\n", r.Shard, printable(holder), r.Epoch, now.Sub(r.Since).Round(time.Second), state)
	}
	return table.Flush()
}
