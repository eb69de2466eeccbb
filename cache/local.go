package cache

import (
	"context"

	"github.com/loadlinehq/loadline/causal"
)

// fillLocally is of a store without Redis, which has the fences itself.
func (c *Cache[K, V]) fillLocally(ctx context.Context, f *flight[V], p place[K], load func(context.Context) (V, error)) {
	v := f.view
	asOf := v.w.Load()
	need := c.reach(v, f.need, causal.LSN(v.fences.last(f.stripe)))
	l, err := c.call(v.seeing(ctx, need), f, load)
	if err != nil {
		if old := c.olderLocally(v, p); old != nil {
			f.finish(result[V]{entry: old, kept: true, how: givenOld})
			return
		}
		f.finish(result[V]{err: err, how: loadedNew})
		return
	}
	e, kept := c.keepLocally(v, p, f.stripe, asOf, need, &l)
	f.finish(result[V]{entry: e, kept: kept, at: need, how: loadedNew})
}

// keepLocally makes an entry of what was loaded, and keeps it unless a tag's fence is past what was
// read: then the next load reads further.
func (c *Cache[K, V]) keepLocally(v *view, p place[K], stripe uint32, asOf uint64, need causal.LSN, l *loaded[V]) (e *entry[V], kept bool) {
	e, _, err := c.entryOf(v, stripe, asOf, l, p.tenant)
	soft, hard := c.life(l)
	c.times(e, soft, hard, l.took)
	kept = err == nil && hard > 0 && v.keys.last(stripe) <= asOf
	for _, slot := range e.slots {
		if at := v.tagFences.last(uint32(slot)); at > uint64(need) {
			kept = false
			v.fences.raise(stripe, at)
		}
		kept = kept && v.tags.last(uint32(slot)) <= asOf
	}
	if kept {
		c.keep(v, p, e)
	}
	return e, kept
}

// olderLocally is a value past its time, for when loading another fails.
func (c *Cache[K, V]) olderLocally(v *view, p place[K]) *entry[V] {
	if e := c.lookup(v, p); e != nil && c.s.now() < e.hard {
		c.metrics.read(givenOld)
		return e
	}
	return nil
}

// invalidateHere is invalidate for a store without Redis. Until a relay has said which cluster it is of, it is
// that of the first session that has seen one alone.
func (s *Store) invalidateHere(session *causal.Session, of []Target) (mark causal.Mark) {
	v := s.view.Load()
	if v.system == 0 {
		mark = onlyMark(session)
	} else if session != nil {
		mark, _, _ = session.Mark(v.system)
	}
	if mark.LSN != 0 {
		v = s.localView(mark, false)
	}
	mark.Epoch, mark.Number = v.epoch, s.invalidateLocally(v, mark.LSN, of)
	return mark
}

func (s *Store) invalidateLocally(v *view, fence causal.LSN, of []Target) (number uint64) {
	s.local.Lock()
	defer s.local.Unlock()
	for _, t := range of {
		n := v.w.Load() + 1
		// First the fence: who sees the number loads past it.
		if t.tag {
			slot := uint32(slotOf(t.key))
			v.tagFences.raise(slot, uint64(fence))
			raise(&v.tagFence, uint64(fence))
			v.tags.heard(slot, n)
		} else {
			stripe := stripeOf(t.key)
			v.fences.raise(stripe, uint64(fence))
			v.keys.heard(stripe, n)
		}
		v.w.Store(n)
	}
	return v.w.Load()
}

func (s *Store) applyLocally(fence causal.Mark, of []Target) causal.Mark {
	v := s.localView(fence, true)
	fence.Epoch, fence.Number = v.epoch, s.invalidateLocally(v, fence.LSN, of)
	return fence
}

// localView is the view of a store without Redis, on the timeline that a mark names. It is a new one where that is
// another, and where another process's relay has been there since: what that has invalidated was invalidated
// elsewhere.
func (s *Store) localView(at causal.Mark, relayed bool) *view {
	s.local.Lock()
	defer s.local.Unlock()
	v := s.view.Load()
	fresh := !relayed || v.epoch == at.Epoch
	if fresh && v.system == at.System && v.timeline >= at.Timeline || !relayed && v.system != 0 && v.system != at.System {
		return v
	}
	v = newLocalView(s.views.Add(1), v.epoch+1, meta{n: 1, system: at.System, timeline: at.Timeline, floor: at.LSN})
	s.view.Store(v)
	return v
}
