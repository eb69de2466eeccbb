package cache

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/maypok86/otter/v2"

	"github.com/loadlinehq/loadline/causal"
	"github.com/loadlinehq/loadline/tenancy"
)

// Defaults of [Config].
const (
	DefaultMaxBytes      = 64 << 20
	DefaultMaxValueBytes = 1 << 20
	// entryOverhead is what an entry takes beside its value, with otter's node. Guess.
	entryOverhead = 200
)

// Config says what a cache holds. Name and Class are required.
type Config[K comparable, V any] struct {
	// Name is that of the cache: part of its keys, and in metrics. It has letters, digits, - and _.
	Name string
	// Class says how long values are kept: [Hot], [Warm], [Cold], or one's own.
	Class Class
	// KeyText is a key's text, the same in all processes and different for each key. Strings and integers have
	// one.
	KeyText func(K) string
	// Codec encodes values for Redis. Default [JSON].
	Codec Codec[V]
	// Version belongs to the schema: change it when values are to be loaded anew although their type is
	// the same.
	Version string
	// CompressOver is from how many bytes on values are compressed, by zstd. Default 1 kB; negative: never.
	CompressOver int
	// MaxBytes bounds the values that this process holds, by their encoded size. Default 64 MiB; negative:
	// none, all reads go to Redis.
	MaxBytes int64
	// MaxValueBytes bounds one value: a larger one is given to its readers and not kept. Default 1 MiB.
	MaxValueBytes int
	// Clone makes a copy for each reader. Without it readers share a value, and must not change it.
	Clone func(V) V
}

// Cache keeps values of one kind. It may be used by several goroutines.
type Cache[K comparable, V any] struct {
	s       *Store
	c       Config[K, V]
	schema  uint32
	tier1   *otter.Cache[place[K], *entry[V]] // nil: none
	flights flights[place[K], V]
	tagged  atomic.Bool // a load has added tags
	metrics *cacheMetrics
}

// place is a key and whose it is.
type place[K comparable] struct {
	tenant string
	key    K
}

// entry is a value in this process. What a hit looks at comes first, so that it is in as few lines of the
// processor's cache as it can be: a hit is little but waiting for those.
type entry[V any] struct {
	view       uint64 // number of the view it belongs to; 0: none
	asOf       uint64
	refresh    int64 // by the store's clock, in nanoseconds: when to load anew, before the end
	slots      []uint16
	stripe     uint32
	negative   bool
	refreshing atomic.Bool
	value      V

	soft, stale, hard int64 // the ends
	stamp             int64 // the soft end by Redis's clock, which names it there
	bytes             uint32
}

// New returns a cache of a store.
func New[K comparable, V any](s *Store, c Config[K, V]) (*Cache[K, V], error) {
	def(&c.CompressOver, DefaultCompressOver)
	def(&c.MaxBytes, DefaultMaxBytes)
	def(&c.MaxValueBytes, DefaultMaxValueBytes)
	if c.Codec == nil {
		c.Codec = JSON[V]{}
	}
	var errs []error
	if c.Name == "" || strings.ContainsFunc(c.Name, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_')
	}) {
		errs = append(errs, fmt.Errorf("cache: Config.Name is %q: it has letters, digits, - and _", c.Name))
	}
	if err := c.Class.validate(); err != nil {
		errs = append(errs, err)
	}
	c.Class = c.Class.withDefaults(s.c.Lease)
	if c.Class.LoadTimeout > s.c.Lease {
		errs = append(errs, fmt.Errorf("cache: Class.LoadTimeout is %v, more than StoreConfig.Lease (%v): what takes longer could not be stored", c.Class.LoadTimeout, s.c.Lease))
	}
	if c.KeyText == nil {
		if c.KeyText = keyText[K](); c.KeyText == nil {
			errs = append(errs, fmt.Errorf("cache: Config.KeyText is missing: %T is neither a string nor an integer", *new(K)))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	cache := &Cache[K, V]{s: s, c: c, schema: schemaOf(c.Codec, c.Version)}
	cache.metrics = s.metrics.of(c.Name, c.Class.Name, cache.bytes)
	if c.MaxBytes > 0 {
		var err error
		if cache.tier1, err = otter.New(&otter.Options[place[K], *entry[V]]{
			MaximumWeight: uint64(c.MaxBytes),
			Weigher:       func(_ place[K], e *entry[V]) uint32 { return e.bytes },
		}); err != nil {
			return nil, fmt.Errorf("cache: %w", err)
		}
	}
	return cache, nil
}

// keyText returns nil for types that have no text of their own.
func keyText[K comparable]() func(K) string {
	var zero K
	switch any(zero).(type) {
	case string:
		return func(k K) string { return any(k).(string) }
	case int:
		return func(k K) string { return strconv.Itoa(any(k).(int)) }
	case int32:
		return func(k K) string { return strconv.FormatInt(int64(any(k).(int32)), 10) }
	case int64:
		return func(k K) string { return strconv.FormatInt(any(k).(int64), 10) }
	case uint64:
		return func(k K) string { return strconv.FormatUint(any(k).(uint64), 10) }
	}
	return nil
}

// bytes is what this process holds.
func (c *Cache[K, V]) bytes() int64 {
	if c.tier1 == nil {
		return 0
	}
	return int64(c.tier1.WeightedSize())
}

func (c *Cache[K, V]) place(ctx context.Context, key K) place[K] {
	tenant, _ := tenancy.FromContext(ctx)
	return place[K]{tenant, key}
}

// text is the key in Redis and in announcements. No name of a cache has a slash, so no two keys have
// the same.
func (c *Cache[K, V]) text(p place[K]) string {
	return c.c.Name + "/" + strconv.Itoa(len(p.tenant)) + p.tenant + "/" + c.c.KeyText(p.key)
}

// Key is what [Store.Invalidate] and outbox.AddInvalidation take for a key, of the context's tenant.
func (c *Cache[K, V]) Key(ctx context.Context, key K) Target {
	return target(false, c.text(c.place(ctx, key)))
}

// Invalidate says that what is cached under keys has changed. It is [Store.Invalidate] for who has changed nothing
// else, or does not mind that the session reads the database for a second: a write of which caches know but a
// part is not taken for known.
func (c *Cache[K, V]) Invalidate(ctx context.Context, keys ...K) error {
	if len(keys) == 0 {
		return nil
	}
	of := make([]Target, len(keys))
	for i, key := range keys {
		of[i] = c.Key(ctx, key)
	}
	if p := c.s.pending(ctx); p != nil {
		return p.add(of, false)
	}
	_, err := c.s.invalidate(ctx, of)
	return err
}

// Get returns the value of a key: from this process, from Redis, or by load, whose context makes package
// db read a server that has seen what the value must have; what else load needs, it takes from its
// closure. One load runs for all that ask at the same time, in all processes, and goes on when they have gone. A
// session that has seen more than the caches have heard of reads by load, and nothing of it is kept; so does a
// context that carries a transaction, of which nobody else may see anything.
//
// Its errors are load's, [ErrNotFound] where a load has said so before, [ErrOverloaded], those of ctx, and that a key is
// longer than [MaxTarget].
func (c *Cache[K, V]) Get(ctx context.Context, key K, load func(ctx context.Context) (V, error)) (V, error) {
	p := c.place(ctx, key)
	session, transaction := causal.Carried(ctx)
	if transaction != nil {
		return c.inTransaction(ctx, load)
	}
	v := c.s.view.Load()
	if v == nil {
		// Redis is away, or there is no relay: coalesced for those who need not have seen anything.
		if seesAnything(session) {
			return c.fly(ctx, nil, p, needs{}, load)
		}
		c.metrics.read(uncovered)
		return c.alone(ctx, load)
	}
	n := v.needsOf(session)
	if !v.covered(n, v.horizon()) {
		c.metrics.read(uncovered)
		return c.alone(ctx, load)
	}
	if e := c.lookup(v, p); e != nil {
		now := c.s.now()
		if now < e.refresh {
			c.metrics.read(hitProcess)
			return c.give(e)
		}
		if now < e.stale {
			c.metrics.read(hitProcess)
			c.refresh(ctx, v, p, e, load)
			return c.give(e)
		}
	}
	return c.fly(ctx, v, p, n, load)
}

// seesAnything reports whether a session need not have seen anything.
func seesAnything(s *causal.Session) bool {
	if s == nil {
		return true
	}
	_, _, incomplete := s.Mark(0)
	return !incomplete && s.Token().IsZero()
}

// lookup returns what this process has, if nothing that was heard since says otherwise.
func (c *Cache[K, V]) lookup(v *view, p place[K]) *entry[V] {
	if c.tier1 == nil {
		return nil
	}
	e, ok := c.tier1.GetIfPresent(p)
	if !ok || e.view != v.number || !e.holds(v) {
		return nil
	}
	return e
}

// holds reports whether nothing that was heard since speaks against it, which is of the view.
func (e *entry[V]) holds(v *view) bool {
	if v.keys.last(e.stripe) > e.asOf {
		return false
	}
	for _, slot := range e.slots {
		if v.tags.last(uint32(slot)) > e.asOf {
			return false
		}
	}
	return true
}

func (c *Cache[K, V]) give(e *entry[V]) (V, error) {
	if e.negative {
		return e.value, ErrNotFound
	}
	if c.c.Clone != nil {
		return c.c.Clone(e.value), nil
	}
	return e.value, nil
}
