package cache

import (
	"context"
	"errors"
	"math/rand/v2"
	"runtime/debug"
	"time"

	"github.com/loadlinehq/loadline/causal"
)

// entryOf makes an entry of what was loaded, and its bytes. It has the error for which it cannot be
// kept.
func (c *Cache[K, V]) entryOf(v *view, stripe uint32, asOf uint64, l *loaded[V], tenant string) (*entry[V], *value, error) {
	e := &entry[V]{value: l.value, negative: l.negative, view: v.number, stripe: stripe, asOf: asOf}
	val := &value{asOf: asOf, schema: c.schema, negative: l.negative, delta: uint32(min(l.took.Milliseconds(), 1<<31))}
	var err error
	if e.slots, err = l.slots(tenant); err != nil {
		return e, nil, err
	}
	if len(e.slots) > 0 && !c.tagged.Load() {
		c.tagged.Store(true)
	}
	val.slots = e.slots
	if !l.negative {
		b, err := c.c.Codec.Encode(l.value)
		if err != nil {
			return e, nil, err
		}
		if len(b) > c.c.MaxValueBytes {
			return e, nil, errTooLarge
		}
		e.bytes = uint32(len(b))
		if c.s.redis != nil {
			if val.payload, val.zstd, err = compress(b, c.c.CompressOver); err != nil {
				return e, nil, err
			}
		}
	}
	e.bytes += entryOverhead
	return e, val, nil
}

func (c *Cache[K, V]) keep(v *view, p place[K], e *entry[V]) {
	if c.tier1 != nil && c.s.view.Load() == v {
		c.tier1.Set(p, e)
	}
}

// fromRedis reads Redis, and fills what is missing there for who has the lease.
func (c *Cache[K, V]) fromRedis(ctx context.Context, f *flight[V], p place[K], text string, load func(context.Context) (V, error)) {
	v := f.view
	heard := v.w.Load()
	record, err := c.s.redis.get(ctx, v, text)
	if err != nil {
		c.s.failed(v, err)
		c.bypass(ctx, f, p, f.need, load)
		return
	}
	old, left := c.decode(ctx, v, f.stripe, heard, record)
	if old != nil && left.soft > 0 {
		c.metrics.read(hitRedis)
		c.keep(v, p, old)
		f.finish(result[V]{entry: old, kept: true, how: hitRedis})
		return
	}
	if old != nil && left.stale > 0 {
		c.metrics.read(hitRedis)
		c.keep(v, p, old)
		f.finish(result[V]{entry: old, kept: true, how: hitRedis})
		c.refresh(ctx, v, p, old, load) // for those who come later
		return
	}
	c.fill(ctx, f, p, text, old, load)
}

// remaining is what a value in Redis has left.
type remaining struct{ soft, stale, hard time.Duration }

// decode makes an entry of a record. It returns nil for what is not there, too old, of another schema,
// or invalidated by a tag.
func (c *Cache[K, V]) decode(ctx context.Context, v *view, stripe uint32, heard uint64, record []byte) (*entry[V], remaining) {
	if record == nil {
		return nil, remaining{}
	}
	val, err := parseRecord(record)
	if err != nil || val == nil || val.schema != c.schema {
		return nil, remaining{}
	}
	now := c.s.since().Milliseconds() + v.clock
	left := remaining{soft: time.Duration(val.soft-now) * time.Millisecond, hard: time.Duration(val.hard-now) * time.Millisecond}
	if left.stale = min(left.soft+c.c.Class.Stale, left.hard); val.negative {
		left.stale = left.soft
	}
	if left.hard <= 0 {
		return nil, remaining{}
	}
	e := &entry[V]{negative: val.negative, view: v.number, stripe: stripe, asOf: val.asOf, slots: val.slots, stamp: val.soft}
	if !c.tagsHold(ctx, v, e) {
		return nil, remaining{}
	}
	// What had been heard before Redis was asked does not speak against it, or it would not be there.
	e.asOf = max(e.asOf, heard)
	if !val.negative {
		b := val.payload
		if val.zstd {
			if b, err = decompress(b); err != nil {
				return nil, remaining{}
			}
		}
		if e.value, err = c.c.Codec.Decode(b); err != nil {
			return nil, remaining{}
		}
		e.bytes = uint32(len(b))
	}
	e.bytes += entryOverhead
	c.times(e, left.soft, left.hard, time.Duration(val.delta)*time.Millisecond)
	return e, left
}

// tagsHold reports whether no tag of a value was invalidated since its lease was given. Of what was
// announced before this process listened, Redis is asked.
func (c *Cache[K, V]) tagsHold(ctx context.Context, v *view, e *entry[V]) bool {
	if len(e.slots) == 0 {
		return true
	}
	for _, slot := range e.slots {
		if v.tags.last(uint32(slot)) > e.asOf {
			return false
		}
	}
	if e.asOf >= v.w0 {
		return true
	}
	numbers, err := c.s.redis.slots(ctx, v, e.slots)
	if err != nil {
		c.s.failed(v, err)
		return false
	}
	for _, n := range numbers {
		if n > e.asOf {
			return false
		}
	}
	return true
}

// older is what readers get when loading fails, or takes long: what is past its time, and was not
// invalidated.
func (c *Cache[K, V]) older(f *flight[V], old *entry[V], early bool) bool {
	if old == nil || old.negative || !old.holds(f.view) {
		return false
	}
	if f.finish(result[V]{entry: old, kept: true, early: early, how: givenOld}) {
		c.metrics.read(givenOld)
	}
	return true
}

// Between two looks at a lease that another has.
const waitMin, waitMax = 5 * time.Millisecond, 50 * time.Millisecond

// fill gets the lease and loads, or waits for who has it.
func (c *Cache[K, V]) fill(ctx context.Context, f *flight[V], p place[K], text string, old *entry[V], load func(context.Context) (V, error)) {
	v, class := f.view, &c.c.Class
	turn := c.turn(p, text, old)
	if old != nil {
		if class.SoftTimeout > 0 {
			defer time.AfterFunc(class.SoftTimeout, func() { c.older(f, old, true) }).Stop()
		}
	}
	limit := time.Now().Add(class.WaitTimeout)
	for pause := waitMin; ; pause = min(2*pause, waitMax) {
		heard := v.w.Load()
		got, err := c.acquire(ctx, v, turn.lease)
		if err != nil {
			c.bypass(ctx, f, p, f.need, load)
			return
		}
		a := got[0]
		if a.record != nil {
			e, _ := c.decode(ctx, v, f.stripe, heard, a.record)
			if e != nil {
				c.metrics.read(hitRedis)
				c.keep(v, p, e)
				f.finish(result[V]{entry: e, kept: true, how: hitRedis})
				return
			}
			// A tag has ended it, or clocks differ, or it cannot be read.
			if val, err := parseRecord(a.record); err == nil && val != nil && val.soft != turn.ignored {
				turn.ignored = val.soft
				continue
			}
			c.bypass(ctx, f, p, f.need, load)
			return
		}
		if a.leased {
			turn.acquired = a
			c.fillLeased(ctx, f, turn, load)
			return
		}
		if time.Now().After(limit) {
			// Who has the lease is slow. Read past the fence, and keep nothing.
			if !c.older(f, old, false) {
				c.bypass(ctx, f, p, later(f.need, a.fence), load)
			}
			return
		}
		time.Sleep(min(pause/2+rand.N(pause), max(a.left, time.Millisecond)))
	}
}

func (c *Cache[K, V]) fillLeased(ctx context.Context, f *flight[V], turn turn[K, V], load func(context.Context) (V, error)) {
	v := f.view
	need := c.reach(v, f.need, turn.fence)
	stored := false
	defer func() {
		if !stored { // nobody waits for a lease that brings nothing
			c.release(ctx, v, turn.lease)
		}
	}()
	l, err := c.call(v.seeing(ctx, need), f, load)
	if err != nil {
		if !c.older(f, turn.old, false) {
			f.finish(result[V]{err: err, how: loadedNew})
		}
		return
	}
	filled := c.store(ctx, v, need, []loadedTurn[K, V]{{turn, &l}})
	stored = true
	f.finish(result[V]{entry: filled[0].entry, kept: filled[0].kept, at: need, how: loadedNew})
}

// reach is what a load reads at least: what its reader needs, the key's fence, and for what may have tags the
// fences of tags.
func (c *Cache[K, V]) reach(v *view, lsns ...causal.LSN) causal.LSN {
	if v.fences != nil {
		lsns = append(lsns, v.floor)
	}
	if c.tagged.Load() {
		lsns = append(lsns, causal.LSN(v.tagFence.Load()))
	}
	return later(lsns...)
}

// turn is whose it is to load a key: his who has its lease.
type turn[K comparable, V any] struct {
	p place[K]
	lease
	acquired
	old *entry[V] // what is past its time, and was not invalidated, or nil
}

// loadedTurn is a turn, and what it has brought.
type loadedTurn[K comparable, V any] struct {
	turn[K, V]
	*loaded[V]
}

func (c *Cache[K, V]) turn(p place[K], text string, old *entry[V]) turn[K, V] {
	t := turn[K, V]{p: p, lease: lease{key: text, token: newToken()}, old: old}
	if old != nil {
		t.ignored = old.stamp
	}
	return t
}

func (c *Cache[K, V]) acquire(ctx context.Context, v *view, leases ...lease) ([]acquired, error) {
	got, err := c.s.redis.acquire(ctx, v, c.s.c.Lease, c.schema, c.s.c.tomb(), leases...)
	if c.s.failed(v, err); err != nil {
		var mine []lease
		for i, a := range got {
			if a.leased {
				mine = append(mine, leases[i])
			}
		}
		c.release(ctx, v, mine...)
	}
	return got, err
}

func (c *Cache[K, V]) release(ctx context.Context, v *view, leases ...lease) {
	if len(leases) > 0 {
		c.s.failed(v, c.s.redis.release(ctx, v, leases...))
	}
}

// filled is what a load has brought, and whether it is, or was, in Redis.
type filled[V any] struct {
	entry *entry[V]
	kept  bool
}

// store fills Redis with what was loaded under leases, and this process with what Redis has taken.
func (c *Cache[K, V]) store(ctx context.Context, v *view, need causal.LSN, turns []loadedTurn[K, V]) []filled[V] {
	all := make([]filled[V], len(turns))
	var settings []setting
	var of []int
	var unkept []lease
	for i, t := range turns {
		e, val, err := c.entryOf(v, stripeOf(t.key), t.asOf, t.loaded, t.p.tenant)
		all[i].entry = e
		soft, hard := c.life(t.loaded)
		c.times(e, soft, hard, t.took)
		if err == nil && hard > 0 {
			settings, of = append(settings, setting{t.key, t.token, val, soft, hard}), append(of, i)
			continue
		}
		unkept = append(unkept, t.lease)
		if err != nil {
			c.metrics.unkept(ctx)
			if !errors.Is(err, errTooLarge) {
				c.s.log.WarnContext(ctx, "cache: a value cannot be kept", "cache", c.c.Name, "error", err)
			}
		}
	}
	c.release(ctx, v, unkept...)
	stamps, err := c.s.redis.set(ctx, v, need, c.s.c.tomb(), settings...)
	c.s.failed(v, err)
	for n, i := range of {
		if stamps[n] > 1 {
			all[i].entry.stamp, all[i].kept = stamps[n], true
			c.keep(v, turns[i].p, all[i].entry)
		}
	}
	return all
}

// refresh loads a value anew while readers have the old one.
func (c *Cache[K, V]) refresh(ctx context.Context, v *view, p place[K], e *entry[V], load func(context.Context) (V, error)) {
	if !e.refreshing.CompareAndSwap(false, true) {
		return
	}
	text := c.text(p)
	f := &flight[V]{view: v, stripe: e.stripe, ahead: true, done: make(chan struct{})}
	ctx = withoutPlace(context.WithoutCancel(ctx))
	c.s.active.Add(1)
	go func() {
		defer c.s.active.Done()
		defer time.AfterFunc(refreshPause, func() { e.refreshing.Store(false) })
		defer func() {
			if v := recover(); v != nil { // of a codec
				c.s.log.ErrorContext(ctx, "cache: a panic while a value was loaded anew", "cache", c.c.Name, "error", &PanicError{v, debug.Stack()})
			}
		}()
		if c.s.redis == nil {
			c.fillLocally(ctx, f, p, load)
			return
		}
		turn := c.turn(p, text, e)
		heard := v.w.Load()
		got, err := c.acquire(ctx, v, turn.lease)
		switch {
		case err != nil:
		case got[0].record != nil:
			if newer, _ := c.decode(ctx, v, e.stripe, heard, got[0].record); newer != nil {
				c.keep(v, p, newer)
			}
		case got[0].leased:
			turn.acquired, turn.old = got[0], nil // nobody waits
			c.fillLeased(ctx, f, turn, load)
		}
	}()
}

// refreshPause is before a value that could not be loaded anew is tried again.
const refreshPause = 500 * time.Millisecond
