package ratelimit

import (
	"hash/maphash"
	"sync"
)

const (
	shards = 64
	// sweep is how many entries of a shard are looked at when it is full.
	sweep = 32
)

// local counts in this process. It may be used by several goroutines.
type local struct {
	seed maphash.Seed
	most int // entries of a shard
	of   [shards]struct {
		mu sync.Mutex
		m  map[string]int64 // theoretical arrival times, in microseconds
		_  [40]byte         // a line of the processor's cache for each
	}
}

func newLocal(maxKeys int) *local {
	l := &local{seed: maphash.MakeSeed(), most: max(1, maxKeys/shards)}
	for i := range l.of {
		l.of[i].m = make(map[string]int64)
	}
	return l
}

func (l *local) shard(key string) int { return int(maphash.String(l.seed, key) % shards) }

// take lets all cells in or none, and says of each what is left. Now is in microseconds.
func (l *local) take(now int64, cells []cell, states []state) (ok bool) {
	if len(cells) == 1 {
		s := &l.of[l.shard(cells[0].key)]
		s.mu.Lock()
		defer s.mu.Unlock()
		tat := max(s.m[cells[0].key], now)
		if ok = tat+cells[0].cost-now <= cells[0].ahead; ok {
			tat += cells[0].cost
			l.set(s.m, now, cells[0].key, tat)
			states[0] = cells[0].after(tat - now)
		} else {
			states[0] = cells[0].after(tat - now)
			states[0].retry = tat + cells[0].cost - now - cells[0].ahead
		}
		return ok
	}
	// All shards at once, in their order, or two requests would each wait for the other's.
	var locked uint64
	for i := range cells {
		locked |= 1 << l.shard(cells[i].key)
	}
	for i := range l.of {
		if locked&(1<<i) != 0 {
			l.of[i].mu.Lock()
			defer l.of[i].mu.Unlock()
		}
	}
	ok = true
	for i, c := range cells {
		tat := max(l.of[l.shard(c.key)].m[c.key], now)
		if states[i] = c.after(tat - now); tat+c.cost-now > c.ahead {
			ok, states[i].retry = false, tat+c.cost-now-c.ahead
		}
	}
	if !ok {
		return false
	}
	for i, c := range cells {
		m := l.of[l.shard(c.key)].m
		tat := max(m[c.key], now) + c.cost
		l.set(m, now, c.key, tat)
		states[i] = c.after(tat - now)
	}
	return true
}

// set keeps a key, and where there is no room makes some: first what is as if it had never been. What is dropped beyond that has
// its burst back; so many keys at once are an attack, or MaxKeys is too small.
func (l *local) set(m map[string]int64, now int64, key string, tat int64) {
	if _, there := m[key]; !there && len(m) >= l.most {
		looked, oldest, at := 0, "", int64(1<<62)
		for k, t := range m { // Go begins anywhere
			if t <= now {
				delete(m, k)
			} else if t < at {
				oldest, at = k, t
			}
			if looked++; looked == sweep {
				break
			}
		}
		if len(m) >= l.most {
			delete(m, oldest)
		}
	}
	m[key] = tat
}

// until returns what note has noted of a key.
func (l *local) until(key string) int64 {
	s := &l.of[l.shard(key)]
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.m[key]
}

func (l *local) note(now int64, key string, until int64) {
	s := &l.of[l.shard(key)]
	s.mu.Lock()
	defer s.mu.Unlock()
	l.set(s.m, now, key, until)
}
