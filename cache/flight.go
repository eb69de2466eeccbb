package cache

import (
	"context"
	"hash/maphash"
	"runtime/debug"
	"sync"
	"time"

	"github.com/loadlinehq/loadline/causal"
)

// flights are the loads that go on in this process and can be joined.
type flights[P comparable, V any] struct {
	shards [64]struct {
		mu sync.Mutex
		m  map[P]*flight[V]
	}
}

// flight is one load, from Redis or the database.
type flight[V any] struct {
	view   *view
	stripe uint32
	began  horizon // what had been heard
	need   causal.LSN
	ahead  bool // of readers, who have what there is

	once sync.Once
	done chan struct{}
	result[V]
	place lent
}

// result is what a flight has brought.
type result[V any] struct {
	entry *entry[V]
	err   error
	// kept: it is, or was, a value in Redis; otherwise it is the database's at a position or past it.
	kept bool
	at   causal.LSN
	// early: it is an older value, and the load goes on.
	early bool
	how   outcome
}

// finish reports whether it was the first.
func (f *flight[V]) finish(r result[V]) (first bool) {
	f.once.Do(func() {
		f.result, first = r, true
		close(f.done)
	})
	return first
}

// join returns the flight of a place, and whether the caller has to run it. Who joins must have been
// covered when it began: what he was covered by later may be what it does not see. One that has ended is not joined,
// or who has invalidated what it brought would be given that.
func (fs *flights[P, V]) join(p P, v *view, stripe uint32, n needs) (f *flight[V], lead bool) {
	shard := &fs.shards[maphash.Comparable(seed, p)%64]
	shard.mu.Lock()
	defer shard.mu.Unlock()
	if f := shard.m[p]; f != nil && f.view == v && (v == nil || v.covered(n, f.began)) && !f.ended() {
		return f, false
	}
	f = &flight[V]{view: v, stripe: stripe, need: n.mark.LSN, done: make(chan struct{}), place: lent{c: make(chan struct{})}}
	if v != nil {
		f.began = v.horizon()
	}
	if shard.m == nil {
		shard.m = make(map[P]*flight[V])
	}
	shard.m[p] = f
	return f, true
}

// ended reports whether nothing goes on any more of which a later reader should have the result.
func (f *flight[V]) ended() bool {
	select {
	case <-f.done:
		return !f.early || !f.entry.holds(f.view)
	default:
		return false
	}
}

func (fs *flights[P, V]) leave(p P, f *flight[V]) {
	shard := &fs.shards[maphash.Comparable(seed, p)%64]
	shard.mu.Lock()
	defer shard.mu.Unlock()
	if shard.m[p] == f {
		delete(shard.m, p)
	}
}

// fly reads by a flight: one's own, or one that goes on.
func (c *Cache[K, V]) fly(ctx context.Context, v *view, p place[K], n needs, load func(context.Context) (V, error)) (value V, err error) {
	var zero V
	if err := ctx.Err(); err != nil {
		return zero, context.Cause(ctx)
	}
	ctx, span := c.span(ctx, 1)
	defer func() { span.end(err) }()
	text := c.text(p)
	if len(text) > MaxTarget {
		return zero, target(false, text).err
	}
	f, lead := c.flights.join(p, v, stripeOf(text), n)
	if lead {
		// Its reader may go; the others, and the value, stay.
		going := context.WithValue(context.WithoutCancel(ctx), lentKey{}, &f.place)
		c.s.active.Add(1)
		go func() {
			defer c.s.active.Done()
			defer c.flights.leave(p, f)
			defer func() {
				err := errGoexit // if nothing else has ended it
				if v := recover(); v != nil {
					err = &PanicError{v, debug.Stack()} // of a codec
				}
				f.finish(result[V]{err: err, how: loadedNew})
			}()
			// A load that does not heed its context keeps nobody, and its key from nobody.
			defer time.AfterFunc(c.c.Class.LoadTimeout+c.c.Class.WaitTimeout+time.Second, func() {
				f.finish(result[V]{err: errHangs, how: loadedNew})
				c.flights.leave(p, f)
			}).Stop()
			c.run(going, f, p, text, load)
		}()
	} else {
		if c.s.waiting.Add(1) > int64(c.s.c.MaxWaiting) {
			c.s.waiting.Add(-1)
			return zero, ErrOverloaded
		}
		defer c.s.waiting.Add(-1)
		c.metrics.read(joined)
		span.answered(joined)
		if within(ctx) {
			f.place.lend()
		}
	}
	select {
	case <-f.done:
	case <-ctx.Done():
		return zero, context.Cause(ctx)
	}
	if lead {
		span.answered(f.how)
	}
	if f.err != nil {
		return zero, f.err
	}
	if !lead && !f.kept && n.mark.LSN > f.at {
		return c.alone(ctx, load) // it was read too early for this one
	}
	return c.give(f.entry)
}

// run brings a flight's result. It may go on afterwards, to fill what readers did not want to wait
// for.
func (c *Cache[K, V]) run(ctx context.Context, f *flight[V], p place[K], text string, load func(context.Context) (V, error)) {
	switch {
	case f.view == nil:
		c.bypass(ctx, f, p, f.need, load)
	case c.s.redis == nil:
		// Another may have ended since the reader looked.
		if e := c.lookup(f.view, p); e != nil && c.s.now() < e.refresh {
			c.metrics.read(hitProcess)
			f.finish(result[V]{entry: e, kept: true, how: hitProcess})
			return
		}
		c.fillLocally(ctx, f, p, load)
	default:
		c.fromRedis(ctx, f, p, text, load)
	}
}

// bypass reads the database, and keeps nothing.
func (c *Cache[K, V]) bypass(ctx context.Context, f *flight[V], p place[K], at causal.LSN, load func(context.Context) (V, error)) {
	l, err := c.call(f.view.seeing(ctx, at), f, load)
	r := result[V]{err: err, at: at, how: loadedNew}
	if err == nil {
		r.entry = &entry[V]{value: l.value, negative: l.negative}
	}
	f.finish(r)
}
