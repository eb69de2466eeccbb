package cache

import (
	"context"
	"errors"
	"runtime/debug"
	"slices"

	"github.com/loadlinehq/loadline/causal"
)

// MaxMany bounds the keys of one [Cache.GetMany].
const MaxMany = 1000

// GetMany returns the values of keys that exist. What no tier has is loaded by one call of load, which returns
// values by key and leaves out what does not exist; what another process loads is waited for. The rules are those of
// [Cache.Get], except that no value is given past its time, and that tags and TTLs that load gives are those of all its values.
func (c *Cache[K, V]) GetMany(ctx context.Context, keys []K, load func(ctx context.Context, keys []K) (map[K]V, error)) (map[K]V, error) {
	if len(keys) > MaxMany {
		return nil, errors.New("cache: GetMany of more than 1000 keys")
	}
	found := make(map[K]V, len(keys))
	v := c.s.view.Load()
	session := causal.FromContext(ctx)
	var n needs
	covered := seesAnything(session)
	if v != nil {
		n = v.needsOf(session)
		covered = v.covered(n, v.horizon())
	}
	if !covered {
		c.metrics.read(uncovered)
		l, err := loadMany(ctx, c, keys, load)
		return l.value, err
	}
	missing := keys[:0:0]
	if v == nil {
		missing = unique(keys)
	} else {
		now := c.s.now()
		for _, key := range unique(keys) {
			p := c.place(ctx, key)
			if e := c.lookup(v, p); e != nil && now < e.soft {
				c.metrics.read(hitProcess)
				if value, err := c.give(e); err == nil {
					found[key] = value
				}
				continue
			}
			missing = append(missing, key)
		}
	}
	if len(missing) == 0 {
		return found, nil
	}
	var err error
	need := n.mark.LSN
	switch {
	case v == nil:
		err = c.manyUnkept(ctx, v, need, missing, found, load)
	case c.s.redis == nil:
		err = c.manyLocally(ctx, v, need, missing, found, load)
	default:
		err = c.manyFromRedis(ctx, v, n, missing, found, load)
	}
	if err != nil {
		return nil, err
	}
	return found, nil
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

// loadMany is one load of several keys.
func loadMany[K comparable, V any](ctx context.Context, c *Cache[K, V], keys []K, load func(ctx context.Context, keys []K) (map[K]V, error)) (loaded[map[K]V], error) {
	c.metrics.read(loadedNew)
	return call(ctx, c.s, c.metrics, &c.c.Class, func(ctx context.Context) (map[K]V, error) { return load(ctx, keys) })
}

// one is what a load of several has brought for a key.
func one[K comparable, V any](l *loaded[map[K]V], key K) loaded[V] {
	value, ok := l.value[key]
	return loaded[V]{value: value, negative: !ok, loading: l.loading, took: l.took}
}

func (c *Cache[K, V]) manyUnkept(ctx context.Context, v *view, at causal.LSN, keys []K, found map[K]V, load func(ctx context.Context, keys []K) (map[K]V, error)) error {
	l, err := loadMany(v.seeing(ctx, at), c, keys, load)
	if err != nil {
		return err
	}
	for _, key := range keys {
		if value, ok := l.value[key]; ok {
			found[key] = value
		}
	}
	return nil
}

func (c *Cache[K, V]) manyLocally(ctx context.Context, v *view, need causal.LSN, keys []K, found map[K]V, load func(ctx context.Context, keys []K) (map[K]V, error)) error {
	asOf := v.w.Load()
	need = c.reach(v, need)
	for _, key := range keys {
		need = later(need, causal.LSN(v.fences.last(stripeOf(c.text(c.place(ctx, key))))))
	}
	l, err := loadMany(v.seeing(ctx, need), c, keys, load)
	if err != nil {
		return err
	}
	for _, key := range keys {
		p := c.place(ctx, key)
		single := one(&l, key)
		e, _ := c.keepLocally(v, p, stripeOf(c.text(p)), asOf, need, &single)
		if value, err := c.give(e); err == nil {
			found[key] = value
		}
	}
	return nil
}

// leased is a key whose lease this call has.
type leased[K comparable] struct {
	key   K
	text  string
	token string
	acquired
}

func (c *Cache[K, V]) manyFromRedis(ctx context.Context, v *view, n needs, keys []K, found map[K]V, load func(ctx context.Context, keys []K) (map[K]V, error)) error {
	need := n.mark.LSN
	texts := make([]string, len(keys))
	for i, key := range keys {
		texts[i] = c.text(c.place(ctx, key))
	}
	heard := v.w.Load()
	records, err := c.s.redis.getMany(ctx, v, texts)
	if err != nil {
		c.s.failed(v, err)
		return c.manyUnkept(ctx, v, need, keys, found, load)
	}
	var mine []leased[K]
	var others []K
	for i, key := range keys {
		p := c.place(ctx, key)
		stripe := stripeOf(texts[i])
		if e, left := c.decode(ctx, v, stripe, heard, records[i]); e != nil && left.soft > 0 {
			c.metrics.read(hitRedis)
			c.keep(p, e)
			if value, err := c.give(e); err == nil {
				found[key] = value
			}
			continue
		}
		l := leased[K]{key: key, text: texts[i], token: newToken()}
		if l.acquired, err = c.s.redis.acquire(ctx, v, l.text, l.token, c.s.c.Lease, c.schema, c.s.c.tomb(), 0); err != nil {
			c.s.failed(v, err)
			c.giveUp(context.WithoutCancel(ctx), v, mine)
			for _, l := range mine {
				others = append(others, l.key)
			}
			return c.manyUnkept(ctx, v, need, append(others, keys[i:]...), found, load)
		}
		if l.lease {
			mine = append(mine, l)
		} else {
			others = append(others, key)
		}
	}
	if len(mine) > 0 {
		if err := c.fillMany(ctx, v, need, mine, found, load); err != nil {
			return err
		}
	}
	// What another process loads comes by the way of single reads, which wait for it.
	for _, key := range others {
		value, err := c.fly(ctx, v, c.place(ctx, key), n, func(ctx context.Context) (V, error) {
			some, err := load(ctx, []K{key})
			value, ok := some[key]
			if err == nil && !ok {
				err = ErrNotFound
			}
			return value, err
		})
		switch {
		case err == nil:
			found[key] = value
		case !errors.Is(err, ErrNotFound):
			return err
		}
	}
	return nil
}

func (c *Cache[K, V]) giveUp(ctx context.Context, v *view, mine []leased[K]) {
	for _, l := range mine {
		if err := c.s.redis.release(ctx, v, l.text, l.token); err != nil {
			c.s.failed(v, err)
			return
		}
	}
}

// fillMany loads what this call has the leases of, in a goroutine that stores it though the caller has
// gone.
func (c *Cache[K, V]) fillMany(ctx context.Context, v *view, need causal.LSN, mine []leased[K], found map[K]V, load func(ctx context.Context, keys []K) (map[K]V, error)) error {
	keys := make([]K, len(mine))
	need = c.reach(v, need)
	for i, l := range mine {
		keys[i] = l.key
		need = later(need, l.fence)
	}
	type outcome struct {
		values map[K]V
		err    error
	}
	done := make(chan outcome, 1)
	going := context.WithoutCancel(ctx)
	c.s.active.Add(1)
	go func() {
		defer c.s.active.Done()
		o := outcome{err: errGoexit}
		defer func() {
			if v := recover(); v != nil {
				o.err = &PanicError{v, debug.Stack()}
			}
			if o.err != nil {
				c.giveUp(going, v, mine)
			}
			done <- o
		}()
		l, err := loadMany(v.seeing(going, need), c, keys, load)
		if err != nil {
			o.err = err
			return
		}
		values := make(map[K]V, len(mine))
		for i := range mine {
			single := one(&l, mine[i].key)
			e, _ := c.store(going, v, c.place(going, mine[i].key), mine[i].text, mine[i].token, mine[i].asOf, need, &single)
			if value, err := c.give(e); err == nil {
				values[mine[i].key] = value
			}
		}
		o = outcome{values: values}
	}()
	select {
	case o := <-done:
		for key, value := range o.values {
			found[key] = value
		}
		return o.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
