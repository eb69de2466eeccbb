package main

import (
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"sync"

	"github.com/redis/rueidis"

	"github.com/loadlinehq/loadline/causal"
	"github.com/loadlinehq/loadline/causal/redisstore"
	"github.com/loadlinehq/loadline/edge"
	"github.com/loadlinehq/loadline/edge/pgstore"
	"github.com/loadlinehq/loadline/events"
	"github.com/loadlinehq/loadline/events/natsjs"
	"github.com/loadlinehq/loadline/examples/conduit/caching"
	"github.com/loadlinehq/loadline/examples/conduit/httpapi"
	"github.com/loadlinehq/loadline/examples/conduit/live"
	"github.com/loadlinehq/loadline/examples/conduit/mesh"
	"github.com/loadlinehq/loadline/examples/conduit/postgres"
	"github.com/loadlinehq/loadline/examples/conduit/web"
)

// backend is what an arm serves on.
type backend struct {
	store    httpapi.Store
	viewed   func(ctx context.Context, article int64) error
	sessions *causal.HTTP // nil where there is one server
	// idempotency keeps answers in the transactions of their effects; nil: not at all.
	idempotency edge.IdempotencyStore
	limits      *httpapi.Limits // nil: none
	web         *web.Sessions
	live        *live.Live // nil: browsers are told nothing
	ping        func(context.Context) error
	close       func()
}

func openMonolith(ctx context.Context, s settings, _ *slog.Logger) (backend, error) {
	db, err := postgres.Open(ctx, s.Database)
	if err != nil {
		return backend{}, fmt.Errorf("database: %w", err)
	}
	store := postgres.NewStore(db, postgres.Immediately{})
	return backend{store: store, viewed: store.Viewed, web: web.NewSessions(nil, s.Web.Secure), ping: db.Ping, close: db.Close}, nil
}

func openLoadline(ctx context.Context, s settings, log *slog.Logger) (backend, error) {
	var b backend
	var closers []func()
	b.close = func() {
		for i := len(closers) - 1; i >= 0; i-- {
			closers[i]()
		}
	}
	db, err := postgres.OpenReplicated(ctx, s.Database, log)
	if err != nil {
		return backend{}, fmt.Errorf("database: %w", err)
	}
	closers = append(closers, db.Close)
	store := postgres.NewStore(db, postgres.Immediately{})
	b.store, b.viewed, b.ping = store, store.Viewed, db.Ping

	limits := httpapi.LimitsConfig{
		Instances: s.Edge.Instances, PerMinute: s.Edge.RateLimit, Loopback: s.Edge.LoopbackRateLimit, MaxInFlight: s.Edge.maxInFlight(s.Database), Log: log,
	}
	config := causal.HTTPConfig{
		// Clients have their name in a header, not in a cookie.
		DisableCookie: true,
		// Who has no name has written nothing, and reads replicas and what is cached.
		AbsentMeansNew: true,
		Logger:         log,
	}
	if config.Keys, err = tokenKeys(s.Auth.JWTSecret); err != nil {
		b.close()
		return backend{}, err
	}
	var sessions *web.Store // in memory
	if s.Redis.URL != "" {
		client, err := openRedis(s.Redis, log)
		if err != nil {
			b.close()
			return backend{}, err
		}
		closers = append(closers, client.Close)
		// Twice as long as a replica that is read from may be behind. While the primary is away
		// nobody knows how far that is: after a longer outage than this, a user without the
		// header may miss what he wrote just before it, until the primary is back.
		store := redisstore.Config{Prefix: "conduit:causal:", TTL: 2 * s.Database.LagLimit}
		if config.Store, err = redisstore.New(client, store); err != nil {
			b.close()
			return backend{}, err
		}
		config.Principal = httpapi.Principal
		limits.Redis = client
		sessions = web.NewStore(client, "")
	}
	b.web = web.NewSessions(sessions, s.Web.Secure)
	if b.limits, err = httpapi.NewLimits(limits); err != nil {
		b.close()
		return backend{}, err
	}
	closers = append(closers, func() { _ = b.limits.Close() })
	if b.sessions, err = causal.NewHTTP(config); err != nil {
		b.close()
		return backend{}, err
	}

	closers = append(closers, runUntilClosed(ctx, log, "the database is not watched", db.Run))

	answers, err := pgstore.New(db.Router(), pgstore.Config{Logger: log})
	if err != nil {
		b.close()
		return backend{}, err
	}
	b.idempotency = answers
	closers = append(closers, runUntilClosed(ctx, log, "answers that have expired are not deleted", answers.Run))

	if s.NATS.URL == "" {
		return b, nil
	}
	meshed := mesh.Config{
		NATS:     natsjs.Config{URL: s.NATS.URL, MaxBytes: s.NATS.MaxBytes, DeadLetterMaxBytes: max(s.NATS.MaxBytes/5, 1<<20), Logger: log},
		DB:       db.Router(),
		RelayDSN: s.Database.AnyPrimary(),
		Log:      log,
	}
	if s.Realtime.MaxConnections > 0 {
		b.live, err = live.New(live.Config{
			Redis: s.Redis.URL, Secret: s.Auth.JWTSecret, Session: b.web.Token, Keys: config.Keys, MaxConnections: s.Realtime.MaxConnections,
			Drain: max(s.HTTP.DrainTimeout/2, minDrain), Log: log,
		})
		if err != nil {
			b.close()
			return backend{}, err
		}
		meshed.Tell = func(ctx context.Context, c *events.Consumer) error {
			live.Handle(c, b.live, store)
			return b.live.While(ctx, c.Run)
		}
	}
	var caches *caching.Caches
	if s.Redis.URL != "" {
		if caches, err = openCaches(ctx, s, log); err != nil {
			b.close()
			return backend{}, err
		}
		closers = append(closers, caches.Close, runUntilClosed(ctx, log, "what is read is not cached", caches.Run))
		meshed.Invalidator = caches
	}
	m, err := mesh.New(meshed)
	if err != nil {
		b.close()
		return backend{}, fmt.Errorf("events: %w", err)
	}
	recording := postgres.NewStore(m.Waking(db), m)
	b.store, b.viewed = recording, m.Viewed
	if caches != nil {
		b.store = caching.NewStore(recording, caches, m)
	}
	// Its relay tells the caches: it ends before them.
	closers = append(closers, runUntilClosed(ctx, log, "the event mesh has ended", m.Run))
	return b, nil
}

// runUntilClosed runs until the function that it returns is called, which waits for the end: after the last request has
// ended, and ctx long before.
func runUntilClosed(ctx context.Context, log *slog.Logger, failure string, run func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var running sync.WaitGroup
	running.Go(func() {
		if err := run(ctx); err != nil {
			log.Error(failure, slog.Any("error", err))
		}
	})
	return func() { cancel(); running.Wait() }
}

func openCaches(ctx context.Context, s settings, log *slog.Logger) (*caching.Caches, error) {
	redis, err := rueidis.ParseURL(s.Redis.URL)
	if err != nil {
		return nil, fmt.Errorf("redis.url: %w", err)
	}
	redis.ClientName = "conduit"
	return caching.New(ctx, caching.Config{Redis: redis, MaxBytes: s.Cache.MaxBytes, LagLimit: s.Database.LagLimit, Log: log})
}

// tokenKeys makes another key of the one secret there is.
func tokenKeys(secret string) (causal.Keys, error) {
	key, err := hkdf.Key(sha256.New, []byte(secret), nil, "conduit causal token", sha256.Size)
	if err != nil {
		return causal.Keys{}, err
	}
	return causal.NewKeys(key)
}

// openRedis returns a client also while Redis is away: what needs it then goes to the
// primary.
func openRedis(c redisConfig, log *slog.Logger) (rueidis.Client, error) {
	option, err := rueidis.ParseURL(c.URL)
	if err != nil {
		return nil, fmt.Errorf("redis.url: %w", err)
	}
	option.DisableCache = true // of commands; nothing here uses it
	option.ForceSingleClient = true
	option.ClientName = "conduit"
	client, err := rueidis.NewClient(option)
	if client == nil {
		return nil, fmt.Errorf("redis: %w", err)
	}
	if err != nil {
		log.Warn("Redis does not answer; until it does users' reads go to the primary, and each instance counts requests for itself", slog.Any("error", err))
	}
	return client, nil
}
