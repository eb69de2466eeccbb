package db

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// gate lets a limited number of callers in, and others wait in the order in which they
// came, bounded in number and time. pgxpool cannot be resized and its queue has no
// bound (jackc/puddle#33), so this is in front of it.
type gate struct {
	name string

	mu       sync.Mutex
	limit    int
	queue    int // most waiters
	used     int
	waiting  int
	head     *waiter // the first to come
	tail     *waiter
	timeouts int64

	waited func(time.Duration) // told of each wait, however it ends

	began   time.Time
	counted time.Duration // since began; up to then occupied is what it says
	// occupied is how long places have been in use, all together.
	occupied time.Duration

	busy atomic.Int32 // used + waiting, to choose by without the lock
}

type waiter struct {
	admitted   chan struct{} // closed with the place given
	done       bool          // admitted or gone; guarded by gate.mu
	prev, next *waiter
}

func newGate(name string, limit, queue int) *gate {
	return &gate{name: name, limit: limit, queue: max(queue, 0), began: time.Now()}
}

// enter takes a place; leave gives it back. It returns ErrPoolSaturated when the queue
// is full or the wait was too long, and the context's cause when that was done.
func (g *gate) enter(ctx context.Context, wait time.Duration) error {
	g.mu.Lock()
	if g.used < g.limit && g.waiting == 0 {
		g.use(1)
		g.busy.Add(1)
		g.mu.Unlock()
		return nil
	}
	if g.waiting >= g.queue || wait <= 0 {
		used, waiting := g.used, g.waiting
		g.mu.Unlock()
		return because(ErrPoolSaturated, nil, "%s: %d are in use, %d wait", g.name, used, waiting)
	}
	w := &waiter{admitted: make(chan struct{})}
	g.push(w)
	g.mu.Unlock()

	timer := time.NewTimer(wait)
	defer timer.Stop()
	if g.waited != nil {
		began := time.Now()
		defer func() { g.waited(time.Since(began)) }()
	}
	var err error
	select {
	case <-w.admitted:
		return nil
	case <-ctx.Done():
		err = context.Cause(ctx)
	case <-timer.C:
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if w.done { // admitted meanwhile
		if err == nil {
			return nil
		}
		g.give()
		return err
	}
	g.remove(w)
	g.timeouts++
	if err == nil {
		err = because(ErrPoolSaturated, nil, "%s: none of %d became free within %v", g.name, g.limit, wait)
	}
	return err
}

func (g *gate) leave() {
	g.mu.Lock()
	g.give()
	g.mu.Unlock()
}

// give passes a place on to the first waiter, or frees it.
func (g *gate) give() {
	g.use(-1)
	g.busy.Add(-1)
	g.admit()
}

// use counts for how long as many places were in use as up to now.
func (g *gate) use(more int) {
	now := time.Since(g.began)
	g.occupied += time.Duration(g.used) * (now - g.counted)
	g.counted = now
	g.used += more
}

func (g *gate) admit() {
	for g.used < g.limit && g.head != nil {
		w := g.head
		g.remove(w)
		g.use(1)
		g.busy.Add(1)
		close(w.admitted)
	}
}

// setLimit changes the number of places. Those in use above it are not taken away.
func (g *gate) setLimit(limit, queue int) {
	g.mu.Lock()
	g.limit, g.queue = limit, max(queue, 0)
	g.admit()
	g.mu.Unlock()
}

func (g *gate) push(w *waiter) {
	w.prev = g.tail
	if g.tail != nil {
		g.tail.next = w
	} else {
		g.head = w
	}
	g.tail = w
	g.waiting++
	g.busy.Add(1)
}

func (g *gate) remove(w *waiter) {
	if w.prev != nil {
		w.prev.next = w.next
	} else {
		g.head = w.next
	}
	if w.next != nil {
		w.next.prev = w.prev
	} else {
		g.tail = w.prev
	}
	w.done = true
	g.waiting--
	g.busy.Add(-1)
}
