package cache

import (
	"context"
	"errors"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"time"

	"github.com/loadlinehq/loadline/causal"
)

// MaxMany bounds the keys of one [Cache.GetMany].
const MaxMany = 1000

// loadMany loads values by key, and leaves out what does not exist.
type loadMany[K comparable, V any] = func(ctx context.Context, keys []K) (map[K]V, error)

// GetMany returns the values of keys that exist. What no tier has is loaded by one call of load, which returns
// values by key and leaves out what does not exist; what another process loads is waited for. The rules are those of
// [Cache.Get], except that tags and TTLs that load gives are those of all its values.
func (c *Cache[K, V]) GetMany(ctx context.Context, keys []K, load func(ctx context.Context, keys []K) (map[K]V, error)) (values map[K]V, err error) {
	defer func() {
		if v := recover(); v != nil { // of a codec
			values, err = nil, &PanicError{v, debug.Stack()}
		}
	}()
	if len(keys) > MaxMany {
		return nil, errors.New("cache: GetMany of more than 1000 keys")
	}
	session, transaction := causal.Carried(ctx)
	if transaction != nil {
		return c.manyInTransaction(ctx, keys, load)
	}
	v := c.s.view.Load()
	var n needs
	covered := seesAnything(session)
	if v != nil {
		n = v.needsOf(session)
		covered = v.covered(n, v.horizon())
	}
	if !covered {
		c.metrics.reads(uncovered, len(keys))
		l, err := c.callMany(ctx, keys, load)
		return l.value, err
	}
	m := &many[K, V]{c: c, v: v, need: n.mark.LSN, load: load, found: make(map[K]V, len(keys))}
	var missing []K
	for _, key := range unique(keys) {
		if v == nil || !m.lookup(ctx, key) {
			missing = append(missing, key)
		}
	}
	if len(missing) > 0 {
		err = m.get(ctx, missing)
	}
	m.refresh(ctx)
	if err != nil {
		return nil, err
	}
	return m.found, nil
}

// many is one GetMany.
type many[K comparable, V any] struct {
	c    *Cache[K, V]
	v    *view
	need causal.LSN
	load loadMany[K, V]
	// ahead of readers, who have what there is
	ahead bool

	found map[K]V
	due   []turn[K, V] // of values that are given, and are to be loaded anew
}

func (m *many[K, V]) give(e *entry[V], key K) {
	if value, err := m.c.give(e); err == nil {
		m.found[key] = value
	}
}

// get gives what this process does not have.
func (m *many[K, V]) get(ctx context.Context, keys []K) (err error) {
	ctx, span := m.c.span(ctx, len(keys))
	defer func() { span.end(err) }()
	switch {
	case m.v == nil:
		return m.unkept(ctx, keys, m.need)
	case m.c.s.redis == nil:
		return m.locally(ctx, keys)
	}
	return m.fromRedis(ctx, keys)
}

// lookup gives what this process has.
func (m *many[K, V]) lookup(ctx context.Context, key K) bool {
	p := m.c.place(ctx, key)
	e := m.c.lookup(m.v, p)
	now := m.c.s.now()
	if e == nil || now >= e.stale {
		return false
	}
	m.c.metrics.read(hitProcess)
	m.give(e, key)
	if now >= e.refresh {
		m.later(p, m.c.text(p), e)
	}
	return true
}

// later notes what is to be loaded anew.
func (m *many[K, V]) later(p place[K], text string, e *entry[V]) {
	if e.refreshing.CompareAndSwap(false, true) {
		m.due = append(m.due, m.c.turn(p, text, e))
	}
}

func unique[K comparable](keys []K) []K {
	seen := make(map[K]bool, len(keys))
	return slices.DeleteFunc(slices.Clone(keys), func(k K) bool {
		if seen[k] {
			return true
		}
		seen[k] = true
		return false
	})
}

func (c *Cache[K, V]) callMany(ctx context.Context, keys []K, load loadMany[K, V]) (loaded[map[K]V], error) {
	return call(ctx, c.s, c.metrics, &c.c.Class, func(ctx context.Context) (map[K]V, error) { return load(ctx, keys) })
}

func (m *many[K, V]) call(ctx context.Context, keys []K) (loaded[map[K]V], error) {
	if !m.ahead {
		m.c.metrics.reads(loadedNew, len(keys))
	}
	return m.c.callMany(ctx, keys, m.load)
}

// one is what a load of several has brought for a key.
func one[K comparable, V any](l *loaded[map[K]V], key K) *loaded[V] {
	value, ok := l.value[key]
	return &loaded[V]{value: value, negative: !ok, tags: l.tags, ttl: l.ttl, took: l.took}
}

// unkept loads keys, and keeps nothing.
func (m *many[K, V]) unkept(ctx context.Context, keys []K, at causal.LSN) error {
	l, err := m.call(m.v.seeing(ctx, at), keys)
	if err != nil {
		return err
	}
	for _, key := range keys {
		if value, ok := l.value[key]; ok {
			m.found[key] = value
		}
	}
	return nil
}

// locally is of a store without Redis.
func (m *many[K, V]) locally(ctx context.Context, keys []K) error {
	c, v := m.c, m.v
	asOf := v.w.Load()
	need := c.reach(v, m.need)
	for _, key := range keys {
		need = later(need, causal.LSN(v.fences.last(stripeOf(c.text(c.place(ctx, key))))))
	}
	l, err := m.call(v.seeing(ctx, need), keys)
	for _, key := range keys {
		p := c.place(ctx, key)
		if err == nil {
			e, _ := c.keepLocally(v, p, stripeOf(c.text(p)), asOf, need, one(&l, key))
			m.give(e, key)
		} else if old := c.olderLocally(v, p); old != nil {
			m.give(old, key)
		} else {
			return err
		}
	}
	return nil
}

// fromRedis reads Redis, loads what is missing there as far as this call has the leases, and waits for what others
// load.
func (m *many[K, V]) fromRedis(ctx context.Context, keys []K) error {
	c, v := m.c, m.v
	texts := make([]string, len(keys))
	for i, key := range keys {
		if texts[i] = c.text(c.place(ctx, key)); len(texts[i]) > MaxTarget {
			return target(false, texts[i]).err
		}
	}
	heard := v.w.Load()
	records, err := c.s.redis.getMany(ctx, v, texts)
	if err != nil {
		c.s.failed(v, err)
		return m.unkept(ctx, keys, m.need)
	}
	var missing []turn[K, V]
	for i, key := range keys {
		p := c.place(ctx, key)
		e, left := c.decode(ctx, v, stripeOf(texts[i]), heard, records[i])
		if e == nil || left.stale <= 0 {
			missing = append(missing, c.turn(p, texts[i], e))
			continue
		}
		c.metrics.read(hitRedis)
		c.keep(v, p, e)
		m.give(e, key)
		if left.soft <= 0 {
			m.later(p, texts[i], e)
		}
	}
	return m.fill(ctx, missing)
}

// fill has each of the turns loaded, by this call or another.
func (m *many[K, V]) fill(ctx context.Context, turns []turn[K, V]) error {
	limit, waits := time.Now().Add(m.c.c.Class.WaitTimeout), false
	for pause := waitMin; len(turns) > 0; pause = min(2*pause, waitMax) {
		heard := m.v.w.Load()
		got, err := m.c.acquire(ctx, m.v, leasesOf(turns)...)
		if err != nil {
			return m.unkept(ctx, keysOf(turns), m.need)
		}
		var mine, others []turn[K, V]
		var beside []K // what is in Redis and cannot be read
		at := m.need
		for i, t := range turns {
			t.acquired = got[i]
			switch {
			case t.leased:
				mine = append(mine, t)
			case t.record == nil:
				others, at = append(others, t), later(at, t.fence)
			default:
				if e, _ := m.c.decode(ctx, m.v, stripeOf(t.key), heard, t.record); e != nil {
					m.c.metrics.read(hitRedis)
					m.c.keep(m.v, t.p, e)
					m.give(e, t.p.key)
				} else if val, err := parseRecord(t.record); err == nil && val != nil && val.soft != t.ignored {
					t.ignored = val.soft // a tag has ended it
					others = append(others, t)
				} else {
					beside = append(beside, t.p.key)
				}
			}
		}
		turns = others
		switch {
		case len(mine) > 0:
			if err := m.fillLeased(ctx, mine); err != nil {
				return err
			}
			if len(beside) == 0 {
				continue // meanwhile the others may have been loaded
			}
		case len(turns) > 0 && time.Now().After(limit):
			// Who has the leases is slow. Read past the fences, and keep nothing.
			for _, t := range turns {
				if m.hasNoOld(t) {
					beside = append(beside, t.p.key)
				} else {
					m.giveOld(t)
				}
			}
			turns = nil
		}
		if len(beside) > 0 {
			if err := m.unkept(ctx, beside, at); err != nil {
				return err
			}
		}
		if len(turns) == 0 {
			return nil
		}
		if !waits {
			waits = true
			if m.c.s.waiting.Add(1) > int64(m.c.s.c.MaxWaiting) {
				m.c.s.waiting.Add(-1)
				return ErrOverloaded
			}
			defer m.c.s.waiting.Add(-1)
			m.c.metrics.reads(joined, len(turns))
		}
		select {
		case <-time.After(pause/2 + rand.N(pause)):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

func leasesOf[K comparable, V any](turns []turn[K, V]) []lease {
	leases := make([]lease, len(turns))
	for i, t := range turns {
		leases[i] = t.lease
	}
	return leases
}

func keysOf[K comparable, V any](turns []turn[K, V]) []K {
	keys := make([]K, len(turns))
	for i, t := range turns {
		keys[i] = t.p.key
	}
	return keys
}

// fillLeased loads what this call has the leases of, in a goroutine that stores it though the caller has
// gone.
func (m *many[K, V]) fillLeased(ctx context.Context, turns []turn[K, V]) error {
	done := make(chan error, 1)
	values := make([]*entry[V], len(turns))
	m.c.s.active.Add(1)
	go func() {
		defer m.c.s.active.Done()
		err := errGoexit
		defer func() { done <- err }()
		err = m.loadLeased(context.WithoutCancel(ctx), turns, values)
	}()
	// A load that does not heed its context keeps nobody.
	hangs := time.NewTimer(m.c.c.Class.LoadTimeout + m.c.c.Class.WaitTimeout + time.Second)
	defer hangs.Stop()
	var soft <-chan time.Time
	if limit := m.c.c.Class.SoftTimeout; limit > 0 && m.allOld(turns) {
		soft = time.After(limit)
	}
	for {
		select {
		case err := <-done:
			if err != nil && !m.allOld(turns) {
				return err
			}
			for i, t := range turns {
				if err == nil {
					m.give(values[i], t.p.key)
				} else {
					m.giveOld(t)
				}
			}
			return nil
		case <-hangs.C:
			return errHangs
		case <-soft:
			if soft = nil; m.allOld(turns) {
				for _, t := range turns {
					m.giveOld(t)
				}
				return nil
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (m *many[K, V]) giveOld(t turn[K, V]) {
	m.c.metrics.read(givenOld)
	m.give(t.old, t.p.key)
}

// allOld reports whether there is a value of each for who cannot have a new one.
func (m *many[K, V]) allOld(turns []turn[K, V]) bool { return !slices.ContainsFunc(turns, m.hasNoOld) }

func (m *many[K, V]) hasNoOld(t turn[K, V]) bool {
	return t.old == nil || t.old.negative || !t.old.holds(m.v)
}

// loadLeased is one load of all turns; values are what it has brought for each.
func (m *many[K, V]) loadLeased(ctx context.Context, turns []turn[K, V], values []*entry[V]) (err error) {
	err = errGoexit
	defer func() {
		if v := recover(); v != nil {
			err = &PanicError{v, debug.Stack()}
		}
		if err != nil {
			m.c.release(ctx, m.v, leasesOf(turns)...)
		}
	}()
	need := m.c.reach(m.v, m.need)
	for _, t := range turns {
		need = later(need, t.fence)
	}
	l, err := m.call(m.v.seeing(ctx, need), keysOf(turns))
	if err != nil {
		return err
	}
	brought := make([]loadedTurn[K, V], len(turns))
	for i, t := range turns {
		brought[i] = loadedTurn[K, V]{t, one(&l, t.p.key)}
	}
	for i, f := range m.c.store(ctx, m.v, need, brought) {
		values[i] = f.entry
	}
	return nil
}

// refresh loads anew what was given past its time, or shortly before, while readers have the old
// values.
func (m *many[K, V]) refresh(ctx context.Context) {
	if len(m.due) == 0 {
		return
	}
	ctx = withoutPlace(context.WithoutCancel(ctx))
	// Its own: the reader's map is the reader's by now.
	again := &many[K, V]{c: m.c, v: m.v, load: m.load, ahead: true, found: make(map[K]V)}
	m.c.s.active.Add(1)
	go func() {
		defer m.c.s.active.Done()
		defer func() {
			if v := recover(); v != nil { // of a codec
				m.c.s.log.ErrorContext(ctx, "cache: a panic while values were loaded anew", "cache", m.c.c.Name, "error", &PanicError{v, debug.Stack()})
			}
		}()
		defer time.AfterFunc(refreshPause, func() {
			for _, t := range m.due {
				t.old.refreshing.Store(false)
			}
		})
		if m.c.s.redis == nil {
			_ = again.locally(ctx, keysOf(m.due)) // its error is in the metrics
			return
		}
		heard := m.v.w.Load()
		got, err := m.c.acquire(ctx, m.v, leasesOf(m.due)...)
		if err != nil {
			return
		}
		var mine []turn[K, V]
		for i, t := range m.due {
			switch t.acquired = got[i]; {
			case t.leased:
				mine = append(mine, t)
			case t.record != nil: // another has done it
				if e, _ := m.c.decode(ctx, m.v, stripeOf(t.key), heard, t.record); e != nil {
					m.c.keep(m.v, t.p, e)
				}
			}
		}
		if len(mine) > 0 {
			_ = again.loadLeased(ctx, mine, make([]*entry[V], len(mine)))
		}
	}()
}
