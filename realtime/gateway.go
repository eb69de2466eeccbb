package realtime

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/centrifugal/centrifuge"
	"github.com/maypok86/otter/v2"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"
)

// Gateway has the connections of clients. It may be used by several goroutines.
type Gateway struct {
	c      Config
	log    *slog.Logger
	node   *centrifuge.Node
	shards []*centrifuge.RedisShard

	metrics    *metrics
	handshakes *rate.Limiter
	askers     *otter.Cache[string, *rate.Limiter] // of those that have no connection
	leaving    atomic.Bool                         // Run's context has ended
	draining   atomic.Bool
	closing    sync.Once
	closed     error
}

// closeTimeout is for what goes on when the gateway ends.
const closeTimeout = 5 * time.Second

// Open connects to Redis, if there is one, and fails when that does not answer. Run it, or close it.
func Open(ctx context.Context, c Config) (*Gateway, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	c = c.withDefaults()
	askers, err := otter.New(&otter.Options[string, *rate.Limiter]{MaximumSize: maxAskers, ExpiryCalculator: otter.ExpiryAccessing[string, *rate.Limiter](time.Minute)})
	if err != nil {
		return nil, fmt.Errorf("realtime: %w", err)
	}
	g := &Gateway{c: c, log: c.Logger, handshakes: limiter(c.Handshakes, max(1, int(c.Handshakes))), askers: askers}
	registry := prometheus.NewRegistry()
	node, err := centrifuge.New(g.nodeConfig(registry))
	if err != nil {
		return nil, fmt.Errorf("realtime: %w", err)
	}
	g.node = node
	if g.metrics, err = newMetrics(g, registry, c.MeterProvider); err != nil {
		return nil, fmt.Errorf("realtime: %w", err)
	}
	if err := g.share(ctx); err != nil {
		return nil, errors.Join(err, g.Close())
	}
	g.handle()
	if err := node.Run(); err != nil {
		return nil, errors.Join(fmt.Errorf("realtime: %w", err), g.Close())
	}
	return g, nil
}

func (g *Gateway) nodeConfig(registry *prometheus.Registry) centrifuge.Config {
	// Who comes back later finds nothing anyway. While somebody listens it is kept. A name that somebody asks for is there for that long, too.
	meta := minMeta
	for _, n := range g.c.Namespaces {
		meta = max(meta, 2*n.HistoryAge)
	}
	return centrifuge.Config{
		LogLevel: centrifuge.LogLevelInfo, LogHandler: g.logged,
		ClientPresenceUpdateInterval: g.c.Check,
		// It is looked at when presence is updated, if this is over by then.
		ClientChannelPositionCheckDelay: g.c.Check - 2*time.Second + time.Millisecond,
		GetChannelMediumOptions: func(text string) centrifuge.ChannelMediumOptions {
			c, _ := ParseChannel(text)
			return centrifuge.ChannelMediumOptions{SharedPositionSync: g.c.Namespaces[c.Namespace].History > 0} // once for all its clients here
		},
		ClientQueueMaxSize:         g.c.MaxQueueBytes,
		ClientChannelLimit:         g.c.MaxChannels,
		UserConnectionLimit:        max(g.c.MaxConnectionsPerUser, 0),
		ChannelMaxLength:           MaxChannelLength,
		HistoryMaxPublicationLimit: maxAsked,
		HistoryMetaTTL:             meta,
		// More is read anew, for it would take as long.
		RecoveryMaxPublicationLimit: maxAsked,
		Metrics: centrifuge.MetricsConfig{RegistererGatherer: registry, GetChannelNamespaceLabel: func(text string) string {
			c, _ := ParseChannel(text)
			if _, ok := g.c.Namespaces[c.Namespace]; !ok {
				return "" // a client's own word would be a series for ever
			}
			return c.Namespace
		}},
	}
}

const (
	// maxAsked bounds what is brought at once to who comes back, and to who asks for history himself.
	maxAsked = 1000
	// minMeta is how long the place of a channel is remembered that nobody listens to.
	minMeta = 10 * time.Minute
	// maxAskers bounds those without a connection whose rate is known.
	maxAskers = 20_000
)

// share has the channels in Redis.
func (g *Gateway) share(ctx context.Context) error {
	if len(g.c.Redis) == 0 {
		return nil
	}
	for i, address := range g.c.Redis {
		if err := ctx.Err(); err != nil {
			return err
		}
		shard, err := centrifuge.NewRedisShard(g.node, centrifuge.RedisShardConfig{Address: address, TLSConfig: g.c.TLS, ClientName: "loadline-realtime"})
		if err != nil {
			return fmt.Errorf("realtime: Config.Redis[%d]: %w", i, err)
		}
		g.shards = append(g.shards, shard)
	}
	shared, err := centrifuge.NewRedisBroker(g.node, centrifuge.RedisBrokerConfig{Prefix: g.c.Prefix, Shards: g.shards})
	if err != nil {
		return fmt.Errorf("realtime: %w", err)
	}
	g.node.SetBroker(&broker{RedisBroker: shared, asked: make(map[string]*question)})
	presence, err := centrifuge.NewRedisPresenceManager(g.node, centrifuge.RedisPresenceManagerConfig{Prefix: g.c.Prefix, Shards: g.shards, PresenceTTL: 3 * g.c.Check})
	if err != nil {
		return fmt.Errorf("realtime: %w", err)
	}
	g.node.SetPresenceManager(presence)
	return nil
}

// lostEmulation is said of each command that a client sends after its gateway has gone.
const lostEmulation = "error processing emulation request"

// logged passes on what centrifuge says: its errors are those of single clients, too.
func (g *Gateway) logged(e centrifuge.LogEntry) {
	level := slog.LevelDebug
	if e.Level >= centrifuge.LogLevelWarn && e.Message != lostEmulation {
		level = slog.LevelWarn
	}
	if !g.log.Enabled(context.Background(), level) {
		return
	}
	attributes := make([]slog.Attr, 0, len(e.Fields))
	for name, value := range e.Fields {
		switch name {
		case "req", "data", "command", "push", "reply": // what a client has sent or is sent: it may be a token
		default:
			attributes = append(attributes, slog.Any(name, value))
		}
	}
	g.log.LogAttrs(context.Background(), level, "realtime: "+e.Message, attributes...)
}

// limiter: a rate below nothing is none.
func limiter(perSecond float64, burst int) *rate.Limiter {
	if perSecond < 0 {
		return rate.NewLimiter(rate.Inf, 0)
	}
	return rate.NewLimiter(rate.Limit(perSecond), burst)
}

// commands is what a client may send: a page that begins listens to all its channels at once, and asks each for its latest publication.
func (g *Gateway) commands() *rate.Limiter {
	return limiter(g.c.Commands, max(int(2*g.c.Commands), 2*g.c.MaxChannels+32))
}

// Disconnect ends the connections of a user at all gateways, and has the module not come back: after a logout, say. What the user has shown must not be
// taken any more: who polls has no connection between two polls. Who has shown it in the same moment may come in after; where that matters, call it again
// after a second.
func (g *Gateway) Disconnect(_ context.Context, tenant, user string) error {
	return g.node.Disconnect(Identity{User: user, Tenant: tenant}.id(), centrifuge.WithCustomDisconnect(centrifuge.DisconnectForceNoReconnect))
}

// Unsubscribe ends what a user listens to in a channel, at all gateways: a [Permission] is asked when he begins, and not again.
func (g *Gateway) Unsubscribe(_ context.Context, user string, c Channel) error {
	if err := c.check(); err != nil {
		return err
	}
	return g.node.Unsubscribe(Identity{User: user, Tenant: c.Tenant}.id(), c.String())
}

// Run waits until ctx is done, and then drains: it is not [Gateway.Ready] any more, goes on for Config.DrainDelay, refuses new clients, so that they
// go to other gateways, and sends those that are there away in even batches over Config.Drain. It returns when all have gone.
func (g *Gateway) Run(ctx context.Context) error {
	<-ctx.Done()
	g.leaving.Store(true)
	time.Sleep(g.c.DrainDelay)
	g.drain()
	return g.Close()
}

// Ready reports whether new clients should come here. It is for readiness checks.
func (g *Gateway) Ready() bool { return !g.leaving.Load() && !g.draining.Load() }

// Close ends all connections at once.
func (g *Gateway) Close() error {
	g.leaving.Store(true)
	g.draining.Store(true)
	g.closing.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
		defer cancel()
		err := g.node.Shutdown(ctx)
		for _, shard := range g.shards {
			shard.Close()
		}
		g.metrics.close()
		g.askers.StopAllGoroutines()
		if err != nil {
			g.closed = fmt.Errorf("realtime: not all clients have gone: %w", err)
		}
	})
	return g.closed
}
