package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/metric"

	"github.com/loadlinehq/loadline/events"
	"github.com/loadlinehq/loadline/events/natsjs"
)

type eventsCmd struct {
	Relay     relayCmd        `cmd:"" help:"Publish what the outbox holds, until Ctrl-C: for applications that do not run the relay themselves."`
	Republish republishCmd    `cmd:"" help:"Publish again what was published before, from the archive: for a stream that is lost."`
	Status    eventsStatusCmd `cmd:"" help:"Show what waits in the outbox, and who relays it."`
	Rejected  rejectedCmd     `cmd:"" help:"See to the events that the broker never took. What handlers have failed at is not here: the broker has it, as dead letters."`
}

// meshFlags say where the events are, where they go, and how the streams are made there.
// What makes a stream has all of them: by others it would be another stream.
type meshFlags struct {
	databaseFlag
	driverFlags

	Source string `default:"/" env:"LOADLINE_EVENTS_SOURCE" help:"Who writes the events, as CloudEvents has it."`
}

// driverFlags are what the driver of the broker needs.
type driverFlags struct {
	brokerFlags
	streamFlags

	Wait time.Duration `default:"30s" env:"LOADLINE_EVENTS_WAIT" help:"How long to wait, at the start, for a database or a broker that is away."`
}

// brokerFlags lead to the broker.
type brokerFlags struct {
	NATS        string `name:"nats" env:"NATS_URL" placeholder:"URL" help:"The broker, or several of its servers with commas between them."`
	Credentials string `name:"nats-credentials" env:"NATS_CREDENTIALS" type:"existingfile" placeholder:"FILE" help:"The broker's user: a file of credentials, as nsc makes it."`
	CA          string `name:"nats-ca" env:"NATS_CA" type:"existingfile" placeholder:"FILE" help:"Who has signed the broker's certificate, in PEM; the system's authorities when left out."`
}

// streamFlags are the fields of natsjs.Config that say how streams are.
type streamFlags struct {
	Stream        string `group:"Streams:" default:"${stream}" env:"LOADLINE_EVENTS_STREAM" field:"Config.Stream" help:"Name of the stream of events."`
	DeadLetters   string `group:"Streams:" default:"${dead_letters}" env:"LOADLINE_EVENTS_DEAD_LETTERS" field:"Config.DeadLetters" help:"Name of the stream of dead letters."`
	Advisories    string `group:"Streams:" default:"${advisories}" env:"LOADLINE_EVENTS_ADVISORIES" field:"Config.Advisories" help:"Name of the stream of what the broker has given up."`
	SubjectPrefix string `group:"Streams:" env:"LOADLINE_EVENTS_SUBJECT_PREFIX" placeholder:"PREFIX." field:"Config.SubjectPrefix" help:"Before each subject, with a dot at its end: for several environments on one broker."`

	Replicas           int           `group:"Streams:" env:"LOADLINE_EVENTS_REPLICAS" placeholder:"N" field:"Config.Replicas" help:"Of each stream; 3 in a cluster and 1 on a single server when left out."`
	MaxAge             time.Duration `group:"Streams:" default:"${max_age}" env:"LOADLINE_EVENTS_MAX_AGE" field:"Config.MaxAge" help:"How long events are kept, handled or not."`
	MaxBytes           byteSize      `group:"Streams:" default:"${max_bytes}" env:"LOADLINE_EVENTS_MAX_BYTES" field:"Config.MaxBytes" help:"Of events, which the broker sets aside."`
	MaxMessages        int64         `group:"Streams:" env:"LOADLINE_EVENTS_MAX_MESSAGES" placeholder:"N" field:"Config.MaxMessages" help:"Number of events that are kept; no bound when left out."`
	DeadLetterMaxAge   time.Duration `group:"Streams:" default:"${dead_letter_max_age}" env:"LOADLINE_EVENTS_DEAD_LETTER_MAX_AGE" field:"Config.DeadLetterMaxAge" help:"How long dead letters are kept."`
	DeadLetterMaxBytes byteSize      `group:"Streams:" default:"${dead_letter_max_bytes}" env:"LOADLINE_EVENTS_DEAD_LETTER_MAX_BYTES" field:"Config.DeadLetterMaxBytes" help:"Of dead letters, which the broker sets aside."`
	Duplicates         time.Duration `group:"Streams:" env:"LOADLINE_EVENTS_DUPLICATES" placeholder:"DURATION" field:"Config.Duplicates" help:"How long the broker knows what it has stored; ${duplicates} when left out, or --max-age if that is less."`
	AtomicBatches      bool          `group:"Streams:" env:"LOADLINE_EVENTS_ATOMIC_BATCHES" field:"Config.AtomicBatches" help:"Store a batch with one write to the disk: much faster where the broker has sync_interval: always, and slower elsewhere."`
	UpdateOnDrift      bool          `group:"Streams:" env:"LOADLINE_EVENTS_UPDATE_ON_DRIFT" field:"Config.Update" help:"Change streams that are there and are otherwise than these flags say."`
}

// missing reports what is not set.
func (f *meshFlags) missing() error {
	return errors.Join(f.databaseFlag.missing(), f.driverFlags.missing())
}

func (f *driverFlags) missing() error {
	if f.NATS == "" {
		return errors.New("--nats (variable NATS_URL) is not set: it is the broker, such as nats://127.0.0.1:4222")
	}
	return nil
}

// driver connects to the broker, and makes the streams or checks them.
func (f *driverFlags) driver(ctx context.Context, log *slog.Logger, meters metric.MeterProvider) (*natsjs.Driver, error) {
	c := natsjs.Config{
		URL: f.NATS, Stream: f.Stream, DeadLetters: f.DeadLetters, Advisories: f.Advisories, SubjectPrefix: f.SubjectPrefix,
		Replicas: f.Replicas, MaxAge: f.MaxAge, MaxBytes: int64(f.MaxBytes), MaxMessages: f.MaxMessages,
		DeadLetterMaxAge: f.DeadLetterMaxAge, DeadLetterMaxBytes: int64(f.DeadLetterMaxBytes), Duplicates: f.Duplicates,
		AtomicBatches: f.AtomicBatches, Update: f.UpdateOnDrift, Logger: log, MeterProvider: meters,
	}
	if f.Credentials != "" {
		c.Options = append(c.Options, nats.UserCredentials(f.Credentials))
	}
	if f.CA != "" {
		c.Options = append(c.Options, nats.RootCAs(f.CA))
	}
	within, cancel := context.WithTimeout(ctx, f.Wait)
	defer cancel()
	driver, err := natsjs.Open(within, c)
	switch {
	case err != nil && ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case errors.Is(err, events.ErrUnavailable):
		return nil, fmt.Errorf("the broker was away for %v; is it running, with JetStream, and is it where --nats (variable NATS_URL) says: %w", f.Wait, err)
	}
	return driver, err
}
