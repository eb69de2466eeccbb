package stack

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/loadlinehq/loadline/internal/stack/faultproxy"
)

// maxConnections bounds what clients can make the balancer hold; more wait in the
// listener's backlog. Each takes two descriptors and two goroutines.
const maxConnections = 4096

// balancer spreads connections over the instances of the application, in turn. It
// knows nothing of what they carry, so that upgrades and streams pass as they are.
// An instance that refuses is left out for the connection at hand. Connections are
// served by the instance's own fault proxy, and so have its faults.
type balancer struct {
	listener  net.Listener
	instances func() []*faultproxy.Proxy

	next  atomic.Uint64
	slots chan struct{}
	conns sync.WaitGroup

	mu     sync.Mutex
	open   map[net.Conn]struct{}
	closed bool
}

func newBalancer(listener net.Listener, instances func() []*faultproxy.Proxy) *balancer {
	b := &balancer{
		listener: listener, instances: instances,
		slots: make(chan struct{}, maxConnections),
		open:  make(map[net.Conn]struct{}),
	}
	b.conns.Go(b.accept)
	return b
}

func (b *balancer) accept() {
	for {
		b.slots <- struct{}{}
		client, err := b.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // out of descriptors, say: that passes
			<-b.slots
			time.Sleep(10 * time.Millisecond)
			continue
		}
		b.conns.Go(func() {
			defer func() { <-b.slots }()
			b.serve(client)
		})
	}
}

// serve tries every instance once, beginning with the one whose turn it is.
func (b *balancer) serve(client net.Conn) {
	defer client.Close()
	if !b.track(client) {
		return
	}
	defer b.untrack(client)
	instances := b.instances()
	turn := int(b.next.Add(1) % (1 << 30))
	for i := range instances {
		if instances[(turn+i)%len(instances)].ServeConn(client) == nil {
			return
		}
	}
}

func (b *balancer) track(conn net.Conn) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.closed {
		b.open[conn] = struct{}{}
	}
	return !b.closed
}

func (b *balancer) untrack(conn net.Conn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.open, conn)
}

// stopAccepting lets open connections go on: the instances drain them.
func (b *balancer) stopAccepting() { _ = b.listener.Close() }

// close ends all connections and waits for the goroutines.
func (b *balancer) close() {
	b.stopAccepting()
	b.mu.Lock()
	b.closed = true
	for conn := range b.open {
		_ = conn.Close()
	}
	b.mu.Unlock()
	b.conns.Wait()
}
