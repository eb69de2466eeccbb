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
	seed maphash.Seed // a client that chose where he is counted could drop others from there
	most int          // entries of a shard
	of   [shards]struct {
		mu sync.Mutex
		m  map[who]*int64 // theoretical arrival times, in microseconds
		_  [40]byte       // a line of the processor's cache for each
	}
}

func newLocal(maxKeys int) *local {
	l := &local{seed: maphash.MakeSeed(), most: max(1, maxKeys/shards)}
	for i := range l.of {
		l.of[i].m = make(map[who]*int64)
	}
	return l
}

func (l *local) shard(of who) int {
	return int((maphash.String(l.seed, of.key) + uint64(of.policy)) % shards)
}

// take lets all cells in or none, and says of each what is left. Now is in microseconds.
func (l *local) take(now int64, cells []cell, states []state) (ok bool) {
	if len(cells) == 1 {
		c := &cells[0]
		s := &l.of[l.shard(c.who)]
		s.mu.Lock()
		at, tat := s.m[c.who], now
		if at != nil {
			tat = max(*at, now)
		}
		if ok = tat+c.cost-now <= c.ahead; !ok {
			states[0] = c.after(tat - now)
			states[0].retry = tat + c.cost - now - c.ahead
		} else {
			tat += c.cost
			states[0] = c.after(tat - now)
			if at != nil {
				*at = tat
			} else {
				l.set(s.m, now, c.who, tat)
			}
		}
		s.mu.Unlock()
		return ok
	}
	// All shards at once, in their order, or two requests would each wait for the other's.
	var locked uint64
	for i := range cells {
		locked |= 1 << l.shard(cells[i].who)
	}
	for i := range l.of {
		if locked&(1<<i) != 0 {
			l.of[i].mu.Lock()
			defer l.of[i].mu.Unlock()
		}
	}
	ok = true
	for i, c := range cells {
		tat := l.tat(now, c.who)
		if states[i] = c.after(tat - now); tat+c.cost-now > c.ahead {
			ok, states[i].retry = false, tat+c.cost-now-c.ahead
		}
	}
	if !ok {
		return false
	}
	for i, c := range cells {
		tat := l.tat(now, c.who) + c.cost
		l.set(l.of[l.shard(c.who)].m, now, c.who, tat)
		states[i] = c.after(tat - now)
	}
	return true
}

// tat is from now on. The shard is locked.
func (l *local) tat(now int64, of who) int64 {
	if at := l.of[l.shard(of)].m[of]; at != nil {
		return max(*at, now)
	}
	return now
}

// set keeps a key, and where there is no room makes some: first what is as if it had never been. What is dropped beyond that has
// its burst back; so many keys at once are an attack, or MaxKeys is too small.
func (l *local) set(m map[who]*int64, now int64, key who, tat int64) {
	if at := m[key]; at != nil {
		*at = tat
		return
	}
	if len(m) >= l.most {
		looked, oldest, at := 0, who{}, int64(1<<62)
		for k, t := range m { // Go begins anywhere
			if *t <= now {
				delete(m, k)
			} else if *t < at {
				oldest, at = k, *t
			}
			if looked++; looked == sweep {
				break
			}
		}
		if len(m) >= l.most {
			delete(m, oldest)
		}
	}
	m[key] = &tat
}

// until returns what note has noted of a key.
func (l *local) until(key who) int64 {
	s := &l.of[l.shard(key)]
	s.mu.Lock()
	defer s.mu.Unlock()
	if at := s.m[key]; at != nil {
		return *at
	}
	return 0
}

func (l *local) note(now int64, key who, until int64) {
	s := &l.of[l.shard(key)]
	s.mu.Lock()
	defer s.mu.Unlock()
	l.set(s.m, now, key, until)
}
