package realtime

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/metric"

	"github.com/loadlinehq/loadline/causal"
)

// Defaults of [Config].
const (
	DefaultPrefix = "loadline:realtime"
	// DefaultMaxConnections is of 20 kB each, and twice that when all are busy: 2 GB.
	DefaultMaxConnections = 50_000
	// DefaultMaxConnectionsPerUser is some tabs of some browsers.
	DefaultMaxConnectionsPerUser = 50
	DefaultMaxChannels           = 128 // centrifuge's own
	DefaultMaxMessageBytes       = 64 << 10
	// DefaultMaxQueueBytes is what a slow client holds: a hundred thousand of them 25 GB.
	DefaultMaxQueueBytes = 256 << 10
	DefaultCommands      = 50
	// DefaultHandshakes is a tenth of what two processors can.
	DefaultHandshakes = 500
	// DefaultPollWait is less than the 30 or 60 s after which proxies end what is silent.
	DefaultPollWait = 25 * time.Second
	DefaultPing     = 25 * time.Second
	// DefaultCheck is a guess of what a page may be behind.
	DefaultCheck      = 10 * time.Second
	DefaultDrainDelay = 5 * time.Second
	// DefaultDrain is, with DrainDelay, less than the 30 s of Kubernetes.
	DefaultDrain = 20 * time.Second
	// DefaultLate is longer than five deliveries with their delays take.
	DefaultLate = 10 * time.Minute
)

// Config says who may hear what. One of Authenticate and Token must be there, and a namespace.
type Config struct {
	// Redis has the addresses of the servers that all gateways share: redis://user:password@host:port/0, rediss:// with TLS,
	// redis+cluster://host:port?addr=host2:port, redis+sentinel://host:port?sentinel_master_name=name. Several are shards, by channel.
	// Default none: the channels are in this process's memory, for it alone.
	Redis []string
	// TLS is of connections to Redis. Default that of the address.
	TLS *tls.Config
	// Prefix is before all keys in Redis. Default loadline:realtime.
	Prefix string

	// Authenticate says who has sent a request, by a cookie, say, and [ErrUnauthenticated] if nobody that may connect. With an Expires it
	// is asked again, with a request that has the method, address, cookies and authorization of the first one. [Anonymous] lets all in.
	Authenticate func(r *http.Request) (Identity, error)
	// Token says who has a token, which a client sends when it connects and before it expires: [ErrUnauthenticated], [ErrExpired]. It has
	// precedence over Authenticate for who sends one. Package realtime/jwtauth has one for JWT.
	Token func(ctx context.Context, token string) (Identity, error)
	// Address is what a client without a User is counted by where it polls or publishes without a connection, such as edge.ClientAddr's behind proxies.
	// Default: only all together are, by MaxConnections.
	Address func(r *http.Request) string
	// Origins are other sites whose pages may connect, such as https://app.example.com. Default none but the one that the page is from:
	// a page of anybody's could otherwise listen with the cookies of who looks at it.
	Origins []string

	// Namespaces are by name, which is the channel's front.
	Namespaces map[string]Namespace
	// Keys sign the tokens that publications carry. Default: they carry none.
	Keys causal.Keys

	// MaxConnections bounds those of this gateway; more are answered 503. Default 50,000; negative: none.
	MaxConnections int
	// MaxConnectionsPerUser bounds those of a user at this gateway. Default 50; negative: none.
	MaxConnectionsPerUser int
	// MaxChannels bounds those that a connection listens to. Default 128.
	MaxChannels int
	// MaxMessageBytes bounds what a client sends at once, and a publication. Default 64 KiB.
	MaxMessageBytes int
	// MaxQueueBytes is what a client may leave unread before its connection ends; it comes back, and is given what it has missed from
	// the history. Default 256 KiB.
	MaxQueueBytes int
	// Commands a second of a connection: who sends more is cut off. Twice as many come at once, or as many as a page needs that begins
	// with MaxChannels. Of those without a connection it bounds polls, with one for each channel that they begin with, and what they publish; who
	// asks for more is answered 429. Default 50; negative: any number.
	Commands float64
	// Handshakes a second of this gateway, and as many at once: more are answered 503, with a Retry-After. After a restart all clients
	// come back. Default 500; negative: any number.
	Handshakes float64

	// Ping is how often clients are asked for a sign of life. Default 25 s.
	Ping time.Duration
	// Check is how often it is looked whether a channel has publications that did not come: what Redis publishes while a gateway's connection
	// is away, or before it is emptied, is lost on the way. Clients that have missed something come back, and are brought it or told. Default
	// 10 s: a question to Redis for each channel of a gateway with History, and two writes for each client with Presence.
	Check time.Duration
	// PollWait is how long a poll waits at most. Default 25 s.
	PollWait time.Duration
	// DrainDelay is how long Run goes on as before when its context ends, for load balancers to notice that Ready has. Default 5 s; negative:
	// not at all.
	DrainDelay time.Duration
	// Drain is how long Run takes to send clients away, in even batches, when its context ends. Default 20 s. Below a second they all come
	// to the other gateways at once.
	Drain time.Duration
	// Late is how old news may be; see [Publication.At]. For this long, and half as long again, ids are remembered. Default 10 min.
	Late time.Duration

	Logger        *slog.Logger         // default slog.Default()
	MeterProvider metric.MeterProvider // default: the global one
}

func (c Config) withDefaults() Config {
	def(&c.Prefix, DefaultPrefix)
	def(&c.MaxConnections, DefaultMaxConnections)
	def(&c.MaxConnectionsPerUser, DefaultMaxConnectionsPerUser)
	def(&c.MaxChannels, DefaultMaxChannels)
	def(&c.MaxMessageBytes, DefaultMaxMessageBytes)
	def(&c.MaxQueueBytes, DefaultMaxQueueBytes)
	def(&c.Commands, DefaultCommands)
	def(&c.Handshakes, DefaultHandshakes)
	def(&c.Ping, DefaultPing)
	def(&c.Check, DefaultCheck)
	def(&c.PollWait, DefaultPollWait)
	def(&c.DrainDelay, DefaultDrainDelay)
	def(&c.Drain, DefaultDrain)
	def(&c.Late, DefaultLate)
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.MeterProvider == nil {
		c.MeterProvider = otel.GetMeterProvider()
	}
	return c
}

func def[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Validate reports all fields that cannot be.
func (c Config) Validate() error {
	d := c.withDefaults()
	var errs []error
	wrong := func(is bool, format string, args ...any) {
		if is {
			errs = append(errs, fmt.Errorf("realtime: Config."+format, args...))
		}
	}
	wrong(d.Authenticate == nil && d.Token == nil, "Authenticate and Token are missing: one of them says who a client is; Anonymous lets all in")
	wrong(len(d.Namespaces) == 0, "Namespaces is empty: there is nothing to listen to")
	for name, n := range d.Namespaces {
		errs = append(errs, n.validate(name)...)
	}
	for i, text := range d.Redis {
		if _, err := url.Parse(text); err != nil || text == "" {
			errs = append(errs, fmt.Errorf("realtime: Config.Redis[%d] is not an address", i)) // it may hold a password
		}
	}
	for i, text := range d.Origins {
		u, err := url.Parse(text)
		wrong(err != nil || u.Scheme == "" || u.Host == "" || u.Path != "" || u.RawQuery != "", "Origins[%d] is %q, and should be like https://app.example.com", i, text)
	}
	wrong(d.MaxChannels < 1, "MaxChannels is %d, less than 1", d.MaxChannels)
	wrong(d.MaxMessageBytes < 128, "MaxMessageBytes is %d, less than 128: nobody could connect", d.MaxMessageBytes)
	wrong(d.MaxQueueBytes < d.MaxMessageBytes, "MaxQueueBytes is %d, less than MaxMessageBytes (%d): one message would cut everybody off", d.MaxQueueBytes, d.MaxMessageBytes)
	wrong(d.Ping < time.Second, "Ping is %v, less than a second", d.Ping)
	wrong(d.Check < 2*time.Second, "Check is %v, less than two seconds", d.Check)
	wrong(d.PollWait < 0, "PollWait is %v, less than nothing", d.PollWait)
	wrong(d.Drain < 0, "Drain is %v, less than nothing", d.Drain)
	wrong(d.Late < time.Second, "Late is %v, less than a second", d.Late)
	return errors.Join(errs...)
}
