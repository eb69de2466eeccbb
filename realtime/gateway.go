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
	g := &Gateway{c: c, log: c.Logger, handshakes: limiter(c.Handshakes, 1)}
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
	// Who comes back after that much longer than the longest history finds nothing anyway.
	meta := 24 * time.Hour
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
		// After a restart all clients ask for the history of the same channels.
		UseSingleFlight: true,
		Metrics: centrifuge.MetricsConfig{RegistererGatherer: registry, GetChannelNamespaceLabel: func(text string) string {
			c, _ := ParseChannel(text)
			return c.Namespace
		}},
	}
}

// maxAsked bounds one answer of those that ask for history themselves.
const maxAsked = 1000

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
	broker, err := centrifuge.NewRedisBroker(g.node, centrifuge.RedisBrokerConfig{Prefix: g.c.Prefix, Shards: g.shards})
	if err != nil {
		return fmt.Errorf("realtime: %w", err)
	}
	g.node.SetBroker(broker)
	presence, err := centrifuge.NewRedisPresenceManager(g.node, centrifuge.RedisPresenceManagerConfig{Prefix: g.c.Prefix, Shards: g.shards, PresenceTTL: 3 * g.c.Check})
	if err != nil {
		return fmt.Errorf("realtime: %w", err)
	}
	g.node.SetPresenceManager(presence)
	return nil
}

// logged passes on what centrifuge says: its errors are those of single clients, too.
func (g *Gateway) logged(e centrifuge.LogEntry) {
	level := slog.LevelDebug
	if e.Level >= centrifuge.LogLevelWarn {
		level = slog.LevelWarn
	}
	if !g.log.Enabled(context.Background(), level) {
		return
	}
	attributes := make([]slog.Attr, 0, len(e.Fields))
	for name, value := range e.Fields {
		attributes = append(attributes, slog.Any(name, value))
	}
	g.log.LogAttrs(context.Background(), level, "realtime: "+e.Message, attributes...)
}

// limiter has a burst of so many seconds. A rate below nothing is none.
func limiter(perSecond, seconds float64) *rate.Limiter {
	if perSecond < 0 {
		return rate.NewLimiter(rate.Inf, 0)
	}
	return rate.NewLimiter(rate.Limit(perSecond), max(1, int(perSecond*seconds)))
}

// Disconnect ends the connections of a user at all gateways, who may not come back by himself: after a logout, say.
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

// Run waits until ctx is done, and then drains: new clients are refused, so that they go to other gateways, and those that are there are sent away
// in even batches over Config.Drain. It returns when all have gone. Take the gateway out of the load balancer before: see Ready.
func (g *Gateway) Run(ctx context.Context) error {
	<-ctx.Done()
	g.drain()
	return g.Close()
}

// Ready reports whether new clients are taken.
func (g *Gateway) Ready() bool { return !g.draining.Load() }

// Close ends all connections at once.
func (g *Gateway) Close() error {
	g.draining.Store(true)
	g.closing.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
		defer cancel()
		err := g.node.Shutdown(ctx)
		for _, shard := range g.shards {
			shard.Close()
		}
		g.metrics.close()
		if err != nil {
			g.closed = fmt.Errorf("realtime: not all clients have gone: %w", err)
		}
	})
	return g.closed
}
