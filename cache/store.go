package cache

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/loadlinehq/loadline/causal"
)

// Errors of reads.
var (
	// ErrNotFound is what a load returns for what does not exist, wrapped or not: that is kept, too,
	// for the class's Negative time.
	ErrNotFound = errors.New("cache: not found")
	// ErrOverloaded: too many wait for loads already.
	ErrOverloaded error = &overloaded{}
)

type overloaded struct{}

func (*overloaded) Error() string             { return "cache: too many wait for loads already" }
func (*overloaded) HTTPStatus() int           { return 503 }
func (*overloaded) RetryAfter() time.Duration { return time.Second }

// Store is what the caches of a process have in common: the connection to Redis, the epoch,
// and the bound on loads. It may be used by several goroutines.
type Store struct {
	c       StoreConfig
	log     *slog.Logger
	redis   *redis // nil: none
	began   time.Time
	metrics *metrics

	view    atomic.Pointer[view] // nil: no tier is read, or filled
	views   atomic.Uint64        // how many there were
	suspect chan struct{}
	checked atomic.Bool // Redis's settings
	running atomic.Bool
	clock   atomic.Int64 // nanoseconds since began, when Run has looked last

	loads   chan struct{} // places
	waiting atomic.Int64
	active  sync.WaitGroup // loads
	tracer  trace.Tracer

	relay relay
	local sync.Mutex // of invalidations in a store without Redis
}

// OpenStore connects to Redis if there is one, and fails when that refuses the connection's user, or cannot hold the
// protocol. One that does not answer is tried again by Run, and nothing is cached until it does. Close the store
// when done.
func OpenStore(ctx context.Context, c StoreConfig) (*Store, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	c = c.withDefaults()
	s := &Store{c: c, log: c.Logger, began: time.Now(), suspect: make(chan struct{}, 1), loads: make(chan struct{}, c.MaxLoads), tracer: c.TracerProvider.Tracer(scope)}
	if c.Now != nil {
		s.began = c.Now()
	}
	var err error
	if s.metrics, err = newMetrics(s, c.MeterProvider); err != nil {
		return nil, err
	}
	if c.Redis == nil {
		s.view.Store(newLocalView(s.views.Add(1), rand.Uint64()|1, meta{n: 1}))
		return s, nil
	}
	s.redis = newRedis(*c.Redis, c.Prefix, c.Timeout)
	switch err := s.check(ctx); {
	case errors.Is(err, errAway):
		s.log.WarnContext(ctx, "cache: Redis does not answer; nothing is cached until it does", "error", err)
	case err != nil:
		s.Close()
		return nil, err
	}
	return s, nil
}

// check refuses a Redis on which the protocol does not hold, and tells of what makes it slow. It looks once.
func (s *Store) check(ctx context.Context) error {
	if s.checked.Load() {
		return nil
	}
	if err := s.redis.connect(); err != nil {
		return err
	}
	client := s.redis.client
	ctx, cancel := context.WithTimeout(ctx, max(s.redis.timeout, patience))
	defer cancel()
	text, err := client.Do(ctx, client.B().Info().Section("server").Build()).ToString()
	if refused, is := rueidis.IsRedisErr(err); is && !refused.IsLoading() {
		return fmt.Errorf("cache: Redis refuses INFO, of which the version and master_replid are needed: %w", err)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errAway, err)
	}
	version := ""
	for line := range strings.SplitSeq(text, "\n") {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "redis_version:"); ok {
			version = v
		}
	}
	if major, _, _ := strings.Cut(version, "."); len(major) == 1 && major < "7" {
		return fmt.Errorf("cache: Redis is of version %s, and 7.0 is needed: scripts say which keys they use", version)
	}
	settings, err := client.Do(ctx, client.B().ConfigGet().Parameter("maxmemory-policy", "maxmemory", "repl-backlog-ttl").Build()).AsStrMap()
	if err != nil {
		s.log.InfoContext(ctx, "cache: Redis does not show its settings; maxmemory-policy should be allkeys-lru or allkeys-lfu, and repl-backlog-ttl 0", "error", err)
		s.checked.Store(true)
		return nil
	}
	if policy := settings["maxmemory-policy"]; settings["maxmemory"] != "0" && policy != "allkeys-lru" && policy != "allkeys-lfu" {
		s.log.WarnContext(ctx, "cache: Redis should have the maxmemory-policy allkeys-lru or allkeys-lfu: noeviction refuses invalidations when it is full, and the volatile ones drop fences first", "maxmemory-policy", policy)
	}
	if ttl, err := strconv.Atoi(settings["repl-backlog-ttl"]); err == nil && ttl != 0 {
		s.log.InfoContext(ctx, "cache: with repl-backlog-ttl 0 Redis would keep its replication id, and the cache its values, when the last replica is gone for so long", "repl-backlog-ttl", ttl)
	}
	s.checked.Store(true)
	return nil
}

// Run takes part in the epoch until ctx is done, and returns nil then. Without it, a store with Redis
// caches nothing. Run may be called once.
func (s *Store) Run(ctx context.Context) error {
	if s.running.Swap(true) {
		return errors.New("cache: Store.Run has been called before")
	}
	var wait sync.WaitGroup
	if s.redis != nil {
		wait.Go(func() { s.listen(ctx) })
	}
	ticker := time.NewTicker(clockTick)
	defer ticker.Stop()
	for {
		if s.c.Now == nil { // which may move at any time
			s.clock.Store(int64(s.since()))
		}
		select {
		case <-ctx.Done():
			wait.Wait()
			s.clock.Store(0)
			return nil
		case <-ticker.C:
		}
	}
}

// clockTick is how exact times of values are while Run goes on: asking for the time took as long as
// looking a value up.
const clockTick = 10 * time.Millisecond

func (s *Store) since() time.Duration {
	if s.c.Now != nil {
		return s.c.Now().Sub(s.began)
	}
	return time.Since(s.began)
}

// now is nanoseconds since the store began.
func (s *Store) now() int64 {
	if c := s.clock.Load(); c != 0 {
		return c
	}
	return int64(s.since())
}

// closeMargin is what a load may need after its time, to end.
const closeMargin = 5 * time.Second

// Close waits for loads that go on without their readers, for no longer than they may take, and ends the connection. It may be
// called twice.
func (s *Store) Close() {
	ended := make(chan struct{})
	go func() {
		s.active.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(s.c.Lease + closeMargin):
		s.log.Warn("cache: closed although loads go on that do not heed their contexts")
	}
	s.metrics.close()
	if s.redis != nil {
		s.view.Store(nil)
		s.redis.close()
	}
}

// maxMissed is how many exchanges in sequence may fail before nothing is asked of Redis any more, until the
// process has joined again. Guess.
const maxMissed = 5

// failed looks at what an exchange has failed by: a view whose server is gone ends at once.
func (s *Store) failed(v *view, err error) {
	if err == nil {
		return
	}
	if errors.Is(err, errClosed) || s.redis.missed.Load() >= maxMissed {
		s.view.CompareAndSwap(v, nil)
	}
	select {
	case s.suspect <- struct{}{}:
	default:
	}
}

// Invalidate says that what is cached under keys and tags has changed: see [Cache.Key], [Tag]. Name all that
// the session's last write has changed, in one call, right after the commit, with the context whose session has the
// commit's position; what package db has written has. Then the session may be given what is cached as soon as
// this is heard. It returns when Redis has it, or after Timeout: then the relay does it, from the outbox, and until
// it has, the session reads the database. It does not fail a write that has been committed: the error is for logs.
// Called with nothing, it says that the session's last write has changed nothing that is cached.
//
// With a context that carries a transaction, it is done after the commit, with what others say in that transaction, and
// returns at once. The session is then given what is cached if each write that has joined the transaction was
// followed by one call.
func (s *Store) Invalidate(ctx context.Context, of ...Target) error {
	if p := s.pending(ctx); p != nil {
		return p.add(of, true)
	}
	mark, err := s.invalidate(ctx, of)
	if session := causal.FromContext(ctx); session != nil && mark.Number != 0 {
		session.Acknowledge(mark)
	}
	return err
}

// invalidate returns the mark of the session's last write, with a number if it was acknowledged.
func (s *Store) invalidate(ctx context.Context, of []Target) (mark causal.Mark, err error) {
	for _, t := range of {
		err = errors.Join(err, t.err)
	}
	if err != nil {
		return mark, err
	}
	session := causal.FromContext(ctx)
	if s.redis == nil {
		return s.invalidateHere(session, of), nil
	}
	ctx, span := s.span(ctx, "cache invalidate", attribute.Int("loadline.cache.keys", len(of)))
	defer func() { span.end(err) }()
	v := s.view.Load()
	if v == nil {
		return mark, fmt.Errorf("%w: the relay's invalidation is awaited", errAway)
	}
	var fence causal.LSN
	if v.system == 0 {
		mark = onlyMark(session)
	} else if session != nil {
		mark, _, _ = session.Mark(v.system)
		if fence = mark.LSN; mark.Timeline > v.timeline {
			return mark, fmt.Errorf("%w: the database has been failed over", errClosed)
		}
	}
	number := v.w.Load() // any that was heard will do for what changes nothing
	if len(of) > 0 {
		if number, err = s.redis.invalidate(ctx, s.redis.timeout, v.dials, v.space, fence, s.c.tomb(), of); err != nil {
			s.failed(v, err)
			return causal.Mark{}, err
		}
	}
	if mark.LSN != 0 && (v.system == 0 || mark.Timeline == v.timeline) {
		mark.Epoch, mark.Number = v.epoch, number
	}
	return mark, nil
}

// onlyMark is that of the one cluster that a session has seen, where nobody has said which one the cache is of.
func onlyMark(session *causal.Session) (mark causal.Mark) {
	if session == nil {
		return mark
	}
	systems := 0
	for m := range session.Token().Marks() {
		if m.System != mark.System {
			systems++
		}
		if mark.LSN == 0 {
			mark = m
		}
	}
	if systems != 1 {
		return causal.Mark{}
	}
	return mark
}

// Active reports whether this process takes part in an epoch: without it, all reads are loads.
func (s *Store) Active() bool { return s.view.Load() != nil }
