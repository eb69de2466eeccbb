package faultproxy

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// MaxConnections is how many a proxy has at a time. More wait in the listener's
	// backlog. Each takes two descriptors and two goroutines, under a delay four.
	MaxConnections = 4096
	// dialLimit bounds the wait for the server, which is on this machine.
	dialLimit = 10 * time.Second
	// settleLimit bounds the wait for the listener to open or close.
	settleLimit = time.Second
)

// Proxy passes connections on to one server. Its methods may be called concurrently.
type Proxy struct {
	target   string
	listener gate
	slots    chan struct{}
	weather  atomic.Pointer[weather]

	mu     sync.Mutex
	faults []namedFault
	links  map[*link]struct{}
	closed bool
	ended  chan struct{} // closed when Run's context is done
	serves sync.WaitGroup
}

// New returns a proxy that listens at an address, 127.0.0.1:0 for any port, and
// connects to another. It does nothing before Listen and Run.
func New(addr, target string) *Proxy {
	p := &Proxy{
		target: target, listener: gate{addr: addr},
		slots: make(chan struct{}, MaxConnections),
		links: make(map[*link]struct{}), ended: make(chan struct{}),
	}
	p.weather.Store(makeWeather(nil))
	return p
}

// Listen takes the address. From then on connections wait in its backlog.
func (p *Proxy) Listen() error { return p.listener.open() }

// Addr returns where the proxy listens, after Listen.
func (p *Proxy) Addr() string { return p.listener.addr }

// Run serves until ctx is done, then resets what is open and returns nil when all its
// goroutines have ended. It may be called once, after Listen.
func (p *Proxy) Run(ctx context.Context) error {
	p.serves.Go(p.accept)
	<-ctx.Done()
	p.mu.Lock()
	p.closed = true
	close(p.ended)
	links := p.linksLocked()
	p.mu.Unlock()
	p.listener.wake()
	for _, l := range links {
		l.abort()
	}
	p.serves.Wait()
	p.listener.close()
	return nil
}

// ErrRefused is returned by [Proxy.ServeConn] while the proxy refuses connections.
var ErrRefused = errors.New("faultproxy: connection refused by a fault")

// Add puts a fault in force under a name, and waits for no client. It returns an error
// for a fault that is not valid, a name that is taken, and one too many.
func (p *Proxy) Add(id string, f Fault) error {
	if err := f.Validate(); err != nil {
		return fmt.Errorf("faultproxy: %w", err)
	}
	p.mu.Lock()
	if slices.ContainsFunc(p.faults, func(other namedFault) bool { return other.id == id }) {
		p.mu.Unlock()
		return fmt.Errorf("faultproxy: there is a fault %q already", id)
	}
	if len(p.faults) >= MaxFaults {
		p.mu.Unlock()
		return fmt.Errorf("faultproxy: there are %d faults, and no more are allowed", MaxFaults)
	}
	p.faults = append(p.faults, name(id, f))
	p.changeLocked()
	var links []*link
	if f.Kind == Reset {
		links = p.linksLocked()
	}
	p.mu.Unlock()
	for _, l := range links {
		l.abort()
	}
	return p.settle()
}

// Remove takes a fault away, and waits for no client. There need not be one of that
// name. It returns an error when the proxy could not listen again at once; it goes on
// trying.
func (p *Proxy) Remove(id string) error {
	p.mu.Lock()
	p.faults = slices.DeleteFunc(p.faults, func(f namedFault) bool { return f.id == id })
	p.changeLocked()
	p.mu.Unlock()
	return p.settle()
}

// Faults returns the faults in force, by name.
func (p *Proxy) Faults() map[string]Fault {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make(map[string]Fault, len(p.faults))
	for _, f := range p.faults {
		all[f.id] = f.Fault
	}
	return all
}

// Connections returns how many are open.
func (p *Proxy) Connections() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.links)
}

func (p *Proxy) linksLocked() []*link {
	links := make([]*link, 0, len(p.links))
	for l := range p.links {
		links = append(links, l)
	}
	return links
}

func (p *Proxy) changeLocked() {
	old := p.weather.Swap(makeWeather(p.faults))
	close(old.changed)
	p.listener.wake()
}

// settle waits until the listener is as the faults want it: whoever has added Refuse
// expects the next connection to be refused.
func (p *Proxy) settle() error {
	for limit := time.Now().Add(settleLimit); ; time.Sleep(time.Millisecond) {
		want := !p.weather.Load().refuse
		isOpen, err := p.listener.state()
		p.mu.Lock()
		over := p.closed
		p.mu.Unlock()
		if isOpen == want || over {
			return nil
		}
		if time.Now().After(limit) {
			if err == nil {
				err = errors.New("Run does not run")
			}
			return fmt.Errorf("faultproxy: %s: not within %s: %w", p.Addr(), settleLimit, err)
		}
	}
}

// accept serves the listener, and opens and closes it as the faults want it: alone in
// this goroutine, nobody else accepts while it is being closed.
func (p *Proxy) accept() {
	for {
		w := p.weather.Load()
		select {
		case <-p.ended:
			return
		default:
		}
		if w.refuse {
			p.listener.refuse()
			select {
			case <-w.changed:
			case <-p.ended:
			}
			continue
		}
		if err := p.listener.reopen(); err != nil {
			p.pause(50 * time.Millisecond) // and again: somebody has the port for a moment
			continue
		}
		select {
		case p.slots <- struct{}{}:
		case <-w.changed:
			continue
		case <-p.ended:
			return
		}
		// Whoever changes the weather from here on wakes accept.
		select {
		case <-w.changed:
			<-p.slots
			continue
		case <-p.ended:
			return
		default:
		}
		client, err := p.listener.accept()
		if err != nil {
			<-p.slots
			if !errors.Is(err, errWoken) { // out of descriptors, say: that passes
				p.pause(10 * time.Millisecond)
			}
			continue
		}
		p.serves.Go(func() {
			defer func() { <-p.slots }()
			if err := p.ServeConn(client); err != nil {
				// A client that reaches the server itself would be refused; this is the
				// nearest thing for one that has been accepted.
				reset(client)
			}
		})
	}
}

func (p *Proxy) pause(d time.Duration) {
	select {
	case <-time.After(d):
	case <-p.ended:
	}
}

// ServeConn passes a client's connection, which somebody else has accepted, on to the
// server under the proxy's faults, and closes it at its end. It returns an error,
// [ErrRefused] or that of the dial, while the connection is still untouched, so that
// the caller can try another server.
func (p *Proxy) ServeConn(client net.Conn) error {
	w := p.weather.Load()
	if w.refuse {
		return ErrRefused
	}
	l := newLink(p, client)
	if !p.add(l) {
		return net.ErrClosed
	}
	defer p.drop(l)
	server, err := p.dial(l)
	if err != nil {
		return err
	}
	if server == nil { // reset meanwhile
		return nil
	}
	l.serve(server)
	return nil
}

// dial connects to the server as soon as the faults let it.
func (p *Proxy) dial(l *link) (net.Conn, error) {
	for delayed := false; ; {
		w := p.weather.Load()
		switch {
		case w.reset:
			l.abort()
			return nil, nil
		case w.stalled[toServer] || w.stalled[toClient]:
			select {
			case <-w.changed:
				continue
			case <-l.aborted:
				return nil, nil
			}
		case w.delay[toServer]+w.delay[toClient] > 0 && !delayed: // there and back
			timer := time.NewTimer(w.someDelay(toServer) + w.someDelay(toClient))
			select {
			case <-timer.C:
				delayed = true
			case <-w.changed:
			case <-l.aborted:
			}
			timer.Stop()
			if l.isAborted() {
				return nil, nil
			}
			continue
		}
		break
	}
	ctx, cancel := context.WithTimeout(context.Background(), dialLimit)
	defer cancel()
	stop := context.AfterFunc(l.ctx, cancel)
	defer stop()
	var dialer net.Dialer
	server, err := dialer.DialContext(ctx, "tcp", p.target)
	if err != nil && l.isAborted() {
		return nil, nil
	}
	return server, err
}

func (w *weather) someDelay(way way) time.Duration {
	delay := w.delay[way]
	if jitter := w.jitter[way]; jitter > 0 {
		delay += rand.N(2*jitter+1) - jitter
	}
	return delay
}

func (p *Proxy) add(l *link) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.links[l] = struct{}{}
	}
	return !p.closed
}

func (p *Proxy) drop(l *link) {
	p.mu.Lock()
	delete(p.links, l)
	p.mu.Unlock()
	l.cancel()
}
