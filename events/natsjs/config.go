package natsjs

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/metric"
)

// Defaults of [Config].
const (
	DefaultMaxAge   = 72 * time.Hour
	DefaultMaxBytes = 10 << 30
	// DefaultDuplicates covers a relay that repeats a batch after a crash; the inbox covers
	// all else. Each id in the window costs the server memory.
	DefaultDuplicates = 5 * time.Minute

	deadMaxAge      = 30 * 24 * time.Hour
	deadMaxBytes    = 2 << 30
	advisoryMaxAge  = 7 * 24 * time.Hour
	advisoryMaxSize = 64 << 20
	// deadShare bounds the dead letters where the events have less than the default.
	deadShare = 5
)

// Config says where NATS is, and how events are kept. Only one of URL and Conn is
// required.
type Config struct {
	// URL is like nats://user:password@host:4222, with commas between several.
	URL string
	// Conn is a connection of the application's. It should reconnect for ever
	// (nats.MaxReconnects(-1)) and buffer nothing (nats.ReconnectBufSize(-1)); Close leaves it
	// open.
	Conn *nats.Conn
	// Options are those of the connection that is made for URL, after this package's own:
	// credentials, TLS.
	Options []nats.Option

	// StreamPrefix and SubjectPrefix begin the names of the streams EVENTS, DEAD and
	// ADVISORIES, and of all subjects, for several applications on one account. Default none.
	StreamPrefix, SubjectPrefix string
	// Replicas of each stream. Default 3 in a cluster, 1 on a single server.
	Replicas int
	// MaxAge is how long an event is kept at most. Default 72 h. Shorter than the longest
	// outage of a consumer, and it never sees what happened meanwhile.
	MaxAge time.Duration
	// MaxBytes bounds the events on disk. Default 10 GB, which the server reserves. A full
	// stream refuses events; an outbox keeps them until there is room.
	MaxBytes int64
	// MaxMessages bounds their number. Default: none.
	MaxMessages int64
	// Duplicates is for how long an event that is published again is stored once.
	// Default 5 min.
	Duplicates time.Duration
	// AtomicBatches publishes what is published together in one batch that is stored as a
	// whole: with sync_interval: always on a single server twenty times as fast as one by one,
	// and slower than that without.
	AtomicBatches bool
	// Update changes a stream that is there and differs. By default Open says how it does,
	// and fails.
	Update bool

	// Logger is told of changes of the connection, and of housekeeping. Default
	// slog.Default().
	Logger *slog.Logger
	// MeterProvider gets the metrics. Default: the global one.
	MeterProvider metric.MeterProvider
}

func (c Config) withDefaults() Config {
	if c.MaxAge == 0 {
		c.MaxAge = DefaultMaxAge
	}
	if c.MaxBytes == 0 {
		c.MaxBytes = DefaultMaxBytes
	}
	if c.MaxMessages == 0 {
		c.MaxMessages = -1
	}
	if c.Duplicates == 0 {
		c.Duplicates = min(DefaultDuplicates, c.MaxAge)
	}
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
	var errs []error
	wrong := func(is bool, format string, args ...any) {
		if is {
			errs = append(errs, fmt.Errorf("natsjs: Config."+format, args...))
		}
	}
	wrong((c.URL == "") == (c.Conn == nil), "URL and Conn: one of them is needed, such as nats://127.0.0.1:4222")
	wrong(c.Conn != nil && len(c.Options) > 0, "Options are of no use with Conn")
	wrong(c.Replicas < 0 || c.Replicas > 5, "Replicas is %d, not between 0 and 5", c.Replicas)
	wrong(c.MaxAge < 0 || c.MaxAge > 0 && c.MaxAge < time.Minute, "MaxAge is %v, less than a minute", c.MaxAge)
	wrong(c.MaxBytes < 0 || c.MaxBytes > 0 && c.MaxBytes < 1<<20, "MaxBytes is %d, less than a megabyte", c.MaxBytes)
	wrong(c.MaxMessages < 0, "MaxMessages is %d, less than none", c.MaxMessages)
	d := c.withDefaults()
	wrong(d.Duplicates < 100*time.Millisecond || d.Duplicates > d.MaxAge, "Duplicates is %v, not between 100 ms and MaxAge (%v)", c.Duplicates, d.MaxAge)
	return errors.Join(errs...)
}
