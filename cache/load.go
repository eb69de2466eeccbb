package cache

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/loadlinehq/loadline/causal"
)

// loading is what a load's context carries.
type loading struct {
	mu   sync.Mutex
	tags []string
	ttl  time.Duration
}

type loadingKey struct{}

// AddTags gives tags to the value that a load is about to return; ctx is the load's. Invalidating a [Tag] then
// invalidates the value as well. A value has at most 16, and tags are of the context's tenant. With another context
// it does nothing, so that a load can be called without a cache; tags of a value that a load gets from another cache are not its own.
func AddTags(ctx context.Context, tags ...string) {
	if l, _ := ctx.Value(loadingKey{}).(*loading); l != nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.tags = append(l.tags, tags...)
	}
}

// SetTTL gives the value that a load is about to return a TTL of its own, shorter than the class's; ctx is the
// load's.
func SetTTL(ctx context.Context, ttl time.Duration) {
	if l, _ := ctx.Value(loadingKey{}).(*loading); l != nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.ttl = ttl
	}
}

// PanicError is a load's panic, given to all that waited for it.
type PanicError struct {
	Value any
	Stack []byte
}

func (p *PanicError) Error() string {
	return fmt.Sprintf("cache: the load panicked: %v\n%s", p.Value, p.Stack)
}

var errHangs = fmt.Errorf("cache: the load does not end, although its context has: %w", context.DeadlineExceeded)

var errGoexit = errors.New("cache: the load has ended its goroutine")

// lent is a place that somebody who waits for a load has himself: a load that has to wait for the place of another
// load, which waits for it, would wait for ever.
type lent struct {
	once sync.Once
	c    chan struct{}
}

type lentKey struct{}

func (l *lent) lend() { l.once.Do(func() { close(l.c) }) }

// within reports whether a context is that of a load.
func within(ctx context.Context) bool {
	l, _ := ctx.Value(loadingKey{}).(*loading)
	return l != nil
}

// withoutPlace is for what outlives the load that began it.
func withoutPlace(ctx context.Context) context.Context {
	return context.WithValue(ctx, loadingKey{}, (*loading)(nil))
}

// place takes one of the places for loads. Loads within loads have that of the outer one.
func (s *Store) place(ctx context.Context) (leave func(), err error) {
	if within(ctx) {
		return func() {}, nil
	}
	leave = func() { <-s.loads }
	select {
	case s.loads <- struct{}{}:
		return leave, nil
	default:
	}
	if s.waiting.Add(1) > int64(s.c.MaxWaiting) {
		s.waiting.Add(-1)
		return nil, ErrOverloaded
	}
	defer s.waiting.Add(-1)
	var place <-chan struct{}
	if l, ok := ctx.Value(lentKey{}).(*lent); ok {
		place = l.c
	}
	select {
	case s.loads <- struct{}{}:
		return leave, nil
	case <-place:
		return func() {}, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// loaded is what a load has returned.
type loaded[V any] struct {
	value    V
	negative bool
	tags     []string
	ttl      time.Duration
	took     time.Duration
}

// call runs a load, in a place, within its time. A panic is an error.
func call[V any](ctx context.Context, s *Store, m *cacheMetrics, class *Class, load func(context.Context) (V, error)) (l loaded[V], err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, class.LoadTimeout, fmt.Errorf("cache: the load, or waiting for its turn, took longer than %v: %w", class.LoadTimeout, context.DeadlineExceeded))
	defer cancel()
	leave, err := s.place(ctx)
	if err != nil {
		return l, err
	}
	defer leave()
	began := time.Now()
	err = errGoexit
	defer func() {
		l.took = time.Since(began)
		if v := recover(); v != nil {
			err = &PanicError{v, debug.Stack()}
		}
		m.load(ctx, l.took, err)
	}()
	var with loading
	l.value, err = load(context.WithValue(ctx, loadingKey{}, &with))
	with.mu.Lock() // what the load has begun may go on
	l.tags, l.ttl = with.tags, with.ttl
	with.mu.Unlock()
	switch {
	case errors.Is(err, ErrNotFound):
		l.negative, err = true, nil
	case err != nil && ctx.Err() != nil:
		err = fmt.Errorf("%w (%w)", err, context.Cause(ctx))
	}
	return l, err
}

func (c *Cache[K, V]) call(ctx context.Context, f *flight[V], load func(context.Context) (V, error)) (loaded[V], error) {
	if !f.ahead {
		c.metrics.read(loadedNew)
	}
	return call(ctx, c.s, c.metrics, &c.c.Class, load)
}

// alone is a read that nothing is kept of, by who needs to see more than the caches have heard.
func (c *Cache[K, V]) alone(ctx context.Context, load func(context.Context) (V, error)) (V, error) {
	l, err := call(ctx, c.s, c.metrics, &c.c.Class, load)
	if err == nil && l.negative {
		err = ErrNotFound
	}
	return l.value, err
}

// seeing is a context in which package db reads a server at or past a position, and any where
// there is none.
func (v *view) seeing(ctx context.Context, need causal.LSN) context.Context {
	var t causal.Token
	if session := causal.FromContext(ctx); session != nil {
		for m := range session.Token().Marks() {
			if v != nil && m.System != v.system {
				t = t.Add(m) // of another cluster, which is not the cache's
			}
		}
	}
	if v != nil && need != 0 && v.system != 0 {
		t = t.Add(causal.Mark{System: v.system, Timeline: v.timeline, LSN: need})
	}
	return causal.WithSession(ctx, causal.NewSession(t))
}

// times are when an entry is to be loaded anew, and when it ends, in nanoseconds of the store's
// clock.
func (c *Cache[K, V]) times(e *entry[V], soft, hard time.Duration, delta time.Duration) {
	now := c.s.now()
	e.soft, e.hard = now+int64(soft), now+int64(hard)
	e.stale = min(e.soft+int64(c.c.Class.Stale), e.hard)
	e.refresh = e.soft
	if !e.negative {
		// XFetch, whose chance is drawn once for each value and process, not at each read.
		e.refresh -= int64(float64(delta) * c.c.Class.EarlyRefresh * -math.Log(1-rand.Float64()))
	} else {
		e.stale = e.soft
	}
}

// life is how long a value is fresh, and how long it is kept.
func (c *Cache[K, V]) life(l *loaded[V]) (soft, hard time.Duration) {
	class := &c.c.Class
	if l.negative {
		return class.Negative, class.Negative
	}
	soft = class.TTL
	if l.ttl > 0 {
		soft = min(soft, l.ttl)
	}
	soft -= time.Duration(rand.Float64() * class.Jitter * float64(soft))
	return soft, soft + max(class.Stale, class.StaleIfError)
}

func (l *loaded[V]) slots(tenant string) ([]uint16, error) {
	if len(l.tags) > maxTags {
		return nil, fmt.Errorf("cache: a value has %d tags, more than %d", len(l.tags), maxTags)
	}
	var slots []uint16
	for _, tag := range l.tags {
		t := Tag(tenant, tag)
		if t.err != nil {
			return nil, t.err
		}
		slots = append(slots, slotOf(t.key))
	}
	slices.Sort(slots)
	return slices.Compact(slots), nil
}
