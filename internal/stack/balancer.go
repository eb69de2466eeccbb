package stack

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// maxConnections bounds what clients can make the balancer hold; more wait in the
// listener's backlog. Each takes two descriptors and two goroutines.
const maxConnections = 4096

// balancer spreads connections over the instances of the application, in turn. It
// knows nothing of what they carry, so that upgrades and streams pass as they are.
// An instance that refuses is left out for the connection at hand.
type balancer struct {
	listener net.Listener
	backends func() []string

	next  atomic.Uint64
	slots chan struct{}
	conns sync.WaitGroup

	mu   sync.Mutex
	open map[net.Conn]struct{} // nil once closed
}

func newBalancer(listener net.Listener, backends func() []string) *balancer {
	b := &balancer{
		listener: listener, backends: backends,
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

func (b *balancer) serve(client net.Conn) {
	defer client.Close()
	if !b.track(client) {
		return
	}
	defer b.untrack(client)
	server := b.dial()
	if server == nil {
		return
	}
	defer server.Close()
	if !b.track(server) {
		return
	}
	defer b.untrack(server)

	var done sync.WaitGroup
	done.Go(func() { forward(server, client) })
	forward(client, server)
	done.Wait()
}

// forward copies one direction and passes its end on, so that the other direction
// can finish.
func forward(to, from net.Conn) {
	_, err := io.Copy(to, from)
	if half, ok := to.(*net.TCPConn); ok && err == nil {
		_ = half.CloseWrite()
		return
	}
	_ = to.Close()
	_ = from.Close()
}

// dial tries every instance once, beginning with the one whose turn it is.
func (b *balancer) dial() net.Conn {
	addrs := b.backends()
	turn := int(b.next.Add(1) % (1 << 30))
	for i := range addrs {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		var dialer net.Dialer
		conn, err := dialer.DialContext(ctx, "tcp", addrs[(turn+i)%len(addrs)])
		cancel()
		if err == nil {
			return conn
		}
	}
	return nil
}

func (b *balancer) track(conn net.Conn) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.open == nil {
		return false
	}
	b.open[conn] = struct{}{}
	return true
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
	for conn := range b.open {
		_ = conn.Close()
	}
	b.open = nil
	b.mu.Unlock()
	b.conns.Wait()
}
