package faultproxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	chunkSize = 32 << 10
	// maxHeld is what a delay may keep back, each way of a connection: 20 MB/s at 50 ms.
	maxHeld = 1 << 20
)

var chunks = sync.Pool{New: func() any { return new([chunkSize]byte) }}

// link is a client's connection and the one to the server.
type link struct {
	proxy  *Proxy
	client net.Conn

	ctx     context.Context
	cancel  context.CancelFunc
	aborted <-chan struct{}

	mu     sync.Mutex
	server net.Conn // nil before it is dialled
	broken bool
}

func newLink(p *Proxy, client net.Conn) *link {
	l := &link{proxy: p, client: client}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	l.aborted = l.ctx.Done()
	return l
}

// serve passes on both directions until both have ended.
func (l *link) serve(server net.Conn) {
	l.mu.Lock()
	l.server = server
	broken := l.broken
	l.mu.Unlock()
	if broken {
		reset(server)
		return
	}
	var other sync.WaitGroup
	other.Go(func() { l.pump(toServer, server, l.client) })
	l.pump(toClient, l.client, server)
	other.Wait()
	_ = l.client.Close()
	_ = server.Close()
}

// abort resets both connections. Whoever reads, writes or waits for them goes on.
func (l *link) abort() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.broken {
		return
	}
	l.broken = true
	l.cancel()
	reset(l.client)
	if l.server != nil {
		reset(l.server)
	}
}

func (l *link) isAborted() bool { return l.ctx.Err() != nil }

// reset closes a connection so that its peer sees a reset, where it can tell.
func reset(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}

// pump passes on one direction until it ends.
func (l *link) pump(way way, to, from net.Conn) {
	q := &queue{link: l, way: way, to: to, room: make(chan struct{}, 1)}
	var writer sync.WaitGroup
	defer writer.Wait()
	buffer := chunks.Get().(*[chunkSize]byte)
	defer chunks.Put(buffer)
	for {
		n, err := from.Read(buffer[:])
		if n > 0 {
			// In fair weather there is no queue, no copy, and no other goroutine.
			if l.proxy.weather.Load().fair[way] && q.isEmpty() {
				if _, err := to.Write(buffer[:n]); err != nil {
					l.abort()
					return
				}
			} else if !q.put(held{bytes: bytes.Clone(buffer[:n])}, &writer) {
				return
			}
		}
		if err == nil {
			continue
		}
		end := held{end: true, reset: !errors.Is(err, io.EOF)}
		if q.isEmpty() && l.proxy.weather.Load().fair[way] {
			l.finish(to, end)
			return
		}
		if end.reset && !l.proxy.weather.Load().stalled[way] {
			l.abort() // it overtakes what is under way, as on a network
			return
		}
		q.put(end, &writer)
		return
	}
}

// finish passes the end of a direction on.
func (l *link) finish(to net.Conn, end held) {
	half, ok := to.(interface{ CloseWrite() error })
	if end.reset || !ok || half.CloseWrite() != nil {
		l.abort()
	}
}

// held is what was read and is not passed on yet.
type held struct {
	bytes []byte
	end   bool // the direction ends here
	reset bool // by a reset
	due   time.Time
}

// queue keeps one direction's bytes back, in order. Its writer runs while there are any.
type queue struct {
	link *link
	way  way
	to   net.Conn

	room chan struct{} // has a token when there may be room

	mu      sync.Mutex
	items   []held
	size    int       // of the items, and of the one that is being passed on
	due     time.Time // of the last
	writing bool
}

func (q *queue) isEmpty() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return !q.writing
}

// put adds an item when there is room. It reports whether the link lives.
func (q *queue) put(item held, writer *sync.WaitGroup) bool {
	for {
		q.mu.Lock()
		if q.size < maxHeld || item.end {
			break
		}
		q.mu.Unlock()
		select {
		case <-q.room:
		case <-q.link.aborted:
			return false
		}
	}
	defer q.mu.Unlock()
	item.due = time.Now().Add(q.link.proxy.weather.Load().someDelay(q.way))
	if item.due.Before(q.due) { // jitter does not reorder
		item.due = q.due
	}
	q.due = item.due
	q.items = append(q.items, item)
	q.size += len(item.bytes)
	if !q.writing {
		q.writing = true
		writer.Go(q.drain)
	}
	return true
}

// drain passes items on, each when it is due and the faults let it, until there is none.
func (q *queue) drain() {
	for {
		q.mu.Lock()
		if len(q.items) == 0 {
			q.items, q.writing = nil, false
			q.mu.Unlock()
			return
		}
		item := q.items[0]
		q.items = q.items[1:]
		q.mu.Unlock()
		if !q.pass(item) {
			return
		}
		q.mu.Lock()
		q.size -= len(item.bytes)
		q.mu.Unlock()
		select {
		case q.room <- struct{}{}:
		default:
		}
	}
}

// pass passes an item on. It reports whether the link lives.
func (q *queue) pass(item held) bool {
	if item.end {
		if !q.await(0, item.due) {
			return false
		}
		q.link.finish(q.to, item)
		return true
	}
	for rest := item.bytes; len(rest) > 0; {
		part := rest
		if limit := q.link.proxy.weather.Load().limit[q.way]; limit != nil {
			part = rest[:min(len(rest), limit.Burst())]
		}
		if !q.await(len(part), item.due) {
			return false
		}
		if _, err := q.to.Write(part); err != nil {
			q.link.abort()
			return false
		}
		rest = rest[len(part):]
	}
	return true
}

// await waits until the faults let some bytes pass that are due at a time. It reports
// whether the link lives.
func (q *queue) await(bytes int, due time.Time) bool {
	paid := false // the limit has been waited for
	for {
		w := q.link.proxy.weather.Load()
		var wait time.Duration
		var reservation *rate.Reservation
		switch now := time.Now(); {
		case w.stalled[q.way]:
			wait = -1 // until the weather changes
		case w.delay[q.way] > 0 && due.After(now):
			wait = due.Sub(now)
		case w.limit[q.way] != nil && !paid && bytes > 0:
			reservation = w.limit[q.way].ReserveN(now, min(bytes, w.limit[q.way].Burst()))
			wait = reservation.DelayFrom(now)
		default:
			return true
		}
		var over <-chan time.Time
		var timer *time.Timer
		if wait >= 0 {
			timer = time.NewTimer(wait)
			over = timer.C
		}
		select {
		case <-over:
			paid = reservation != nil
			continue
		case <-w.changed:
		case <-q.link.aborted:
		}
		if timer != nil {
			timer.Stop()
		}
		if reservation != nil {
			reservation.Cancel() // others may send instead
		}
		if q.link.isAborted() {
			return false
		}
	}
}
