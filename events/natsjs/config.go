package natsjs

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/metric"
)

// Defaults of [Config].
const (
	DefaultStream      = "EVENTS"
	DefaultDeadLetters = "DLQ"
	DefaultAdvisories  = "ADVISORIES"
	// DefaultMaxAge is a weekend and a day: a guess at how long a group may be away.
	DefaultMaxAge = 72 * time.Hour
	// DefaultMaxBytes is the design's: 10 GB.
	DefaultMaxBytes = 10 << 30
	// DefaultDeadLetterMaxAge and DefaultDeadLetterMaxBytes leave a month to look at what
	// has failed.
	DefaultDeadLetterMaxAge   = 30 * 24 * time.Hour
	DefaultDeadLetterMaxBytes = 2 << 30
	// DefaultDuplicates is longer than a broker's restart. It takes memory for each ID: with
	// IDs, publishing was half as fast as without.
	DefaultDuplicates = 5 * time.Minute
	// DefaultPurgeAt is the design's.
	DefaultPurgeAt = 0.8
	// DefaultInterval is a guess: metrics are read every ten seconds or more.
	DefaultInterval = 5 * time.Second

	advisoriesMaxAge   = 7 * 24 * time.Hour
	advisoriesMaxBytes = 64 << 20
	clusterReplicas    = 3 // of which one may be lost
)

// Config has a usable zero value but for the connection: one of URL and Conn.
type Config struct {
	// URL of the server, or several with commas between them: nats://host:port.
	URL string
	// Options of the connection to URL, such as credentials. They come after the driver's
	// own, and may override them.
	Options []nats.Option
	// Name of the connection to URL, for the server's monitoring. Default loadline.
	Name string
	// Conn is a connection that the application has. It needs nats.MaxReconnects(-1) to
	// survive a long outage, and nats.ReconnectBufSize(-1): without, what was published
	// while the server was away is sent later, behind the back of who was told that it
	// failed. Close leaves it open.
	Conn *nats.Conn

	// Stream, DeadLetters and Advisories are the names of the streams. Default EVENTS, DLQ,
	// ADVISORIES.
	Stream, DeadLetters, Advisories string
	// SubjectPrefix comes before each subject, with a dot at its end: for several
	// environments on one server. Default: none.
	SubjectPrefix string

	// Replicas of the streams. Default 3 in a cluster, 1 on a single server.
	Replicas int
	// MaxAge is how long messages are kept, acknowledged or not. Default 72 h. A group that
	// is away for longer loses some.
	MaxAge time.Duration
	// MaxBytes and MaxMessages bound what is kept; at the bound publishing fails with
	// [events.ErrBackpressure]. The server sets MaxBytes aside, and refuses the stream if it
	// does not have so much. Default 10 GB, and no bound on the number.
	MaxBytes, MaxMessages int64
	// DeadLetterMaxAge and DeadLetterMaxBytes are those of the dead letters. Default 30 days,
	// 2 GB. When they are full, what fails is tried again, until the server gives it up: it
	// stays in the stream then, and is noted among the advisories.
	DeadLetterMaxAge   time.Duration
	DeadLetterMaxBytes int64
	// Duplicates is how long the server knows the IDs that it has stored. Default 5 min.
	Duplicates time.Duration
	// AtomicBatches stores the messages of one call all at once or not at all, with one write
	// to the disk. For servers with sync_interval: always, where it is 20 times as fast; on
	// others it is slower. One that the server refuses is sent message by message.
	AtomicBatches bool
	// Update changes streams and subscriptions that differ from what is asked for. Without
	// it, Open and Subscribe fail where guarantees depend on the difference.
	Update bool

	// PurgeAt is the share of MaxBytes or MaxMessages above which Run deletes what all
	// subscriptions have settled. Default 0.8; a negative value never does.
	PurgeAt float64
	// Interval of Run's work. Default 5 s.
	Interval time.Duration

	Logger        *slog.Logger         // default slog.Default()
	MeterProvider metric.MeterProvider // default: the global one
}

func (c Config) withDefaults() Config {
	c.Name = cmp.Or(c.Name, "loadline")
	c.Stream = cmp.Or(c.Stream, DefaultStream)
	c.DeadLetters = cmp.Or(c.DeadLetters, DefaultDeadLetters)
	c.Advisories = cmp.Or(c.Advisories, DefaultAdvisories)
	c.MaxAge = cmp.Or(c.MaxAge, DefaultMaxAge)
	c.MaxBytes = cmp.Or(c.MaxBytes, DefaultMaxBytes)
	c.DeadLetterMaxAge = cmp.Or(c.DeadLetterMaxAge, DefaultDeadLetterMaxAge)
	c.DeadLetterMaxBytes = cmp.Or(c.DeadLetterMaxBytes, DefaultDeadLetterMaxBytes)
	c.Duplicates = cmp.Or(c.Duplicates, min(DefaultDuplicates, max(c.MaxAge, 0)))
	c.PurgeAt = cmp.Or(c.PurgeAt, DefaultPurgeAt)
	c.Interval = cmp.Or(c.Interval, DefaultInterval)
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.MeterProvider == nil {
		c.MeterProvider = otel.GetMeterProvider()
	}
	return c
}

// Validate reports all fields that cannot be.
func (c Config) Validate() error {
	d := c.withDefaults()
	var errs []error
	wrong := func(is bool, format string, args ...any) {
		if is {
			errs = append(errs, fmt.Errorf("natsjs: Config."+format, args...))
		}
	}
	wrong(c.URL == "" && c.Conn == nil, "URL is missing, and there is no Conn")
	wrong(c.URL != "" && c.Conn != nil, "URL and Conn are both set: which one is it?")
	wrong(c.Conn != nil && len(c.Options) > 0, "Options are for URL: Conn has its own")
	names := map[string]string{}
	for _, s := range []struct{ field, name string }{{"Stream", d.Stream}, {"DeadLetters", d.DeadLetters}, {"Advisories", d.Advisories}} {
		wrong(strings.ContainsAny(s.name, ".*> /\\\t\r\n"), "%s is %q: a stream's name has no spaces, and none of .*>/\\", s.field, s.name)
		wrong(names[s.name] != "", "%s and %s are both %q", s.field, names[s.name], s.name)
		names[s.name] = s.field
	}
	prefix := d.SubjectPrefix
	wrong(prefix != "" && (!strings.HasSuffix(prefix, ".") || strings.HasPrefix(prefix, ".") || strings.Contains(prefix, "..") || strings.ContainsAny(prefix, "*> \t\r\n$")),
		"SubjectPrefix is %q: it is words with a dot after each", prefix)
	wrong(d.Replicas < 0 || d.Replicas > 5, "Replicas is %d, not between 1 and 5", d.Replicas)
	wrong(d.MaxAge < 0, "MaxAge is %v, less than nothing", d.MaxAge)
	wrong(d.MaxBytes < 1<<20, "MaxBytes is %d, less than the largest message", d.MaxBytes)
	wrong(d.MaxMessages < 0, "MaxMessages is %d, less than nothing", d.MaxMessages)
	wrong(d.DeadLetterMaxAge < 0, "DeadLetterMaxAge is %v, less than nothing", d.DeadLetterMaxAge)
	wrong(d.DeadLetterMaxBytes < 1<<20, "DeadLetterMaxBytes is %d, less than the largest message", d.DeadLetterMaxBytes)
	wrong(d.Duplicates < 100*time.Millisecond, "Duplicates is %v, less than the server's least of 100 ms", d.Duplicates)
	wrong(d.Duplicates > d.MaxAge || d.Duplicates > d.DeadLetterMaxAge, "Duplicates is %v, more than messages are kept", d.Duplicates)
	wrong(d.PurgeAt >= 1, "PurgeAt is %v: above the bound there is nothing", d.PurgeAt)
	wrong(d.Interval < 10*time.Millisecond, "Interval is %v, less than 10 ms", d.Interval)
	return errors.Join(errs...)
}
