package faultproxy

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// gate is a listener that can be closed for a while without losing its port: a socket
// that is bound and does not listen refuses connections, and nobody else gets its port.
type gate struct {
	addr string

	mu       sync.Mutex
	listener net.Listener // nil while it refuses
	bound    *os.File     // holds the port meanwhile; nil where that did not work
	err      error        // why it is not open again
}

// errWoken is returned by accept when it was asked to look at the faults again.
var errWoken = errors.New("woken")

func (g *gate) open() error {
	listener, err := net.Listen("tcp", g.addr)
	if err != nil {
		return fmt.Errorf("faultproxy: %w", err)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.addr, g.listener = listener.Addr().String(), listener
	return nil
}

// state reports whether it listens, and why not when it could not.
func (g *gate) state() (isOpen bool, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.listener != nil, g.err
}

// wake makes accept return.
func (g *gate) wake() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if deadline, ok := g.listener.(interface{ SetDeadline(time.Time) error }); ok {
		_ = deadline.SetDeadline(time.Unix(1, 0))
	}
}

func (g *gate) accept() (net.Conn, error) {
	g.mu.Lock()
	listener := g.listener
	g.mu.Unlock()
	conn, err := listener.Accept()
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil, errWoken
	}
	return conn, err
}

// refuse closes the listener and keeps its port.
func (g *gate) refuse() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.listener == nil {
		return
	}
	_ = g.listener.Close()
	g.listener, g.err = nil, nil
	g.bound, _ = bind(g.addr) // without it, somebody may take the port
}

// reopen makes accept work: after refuse, and after wake.
func (g *gate) reopen() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if deadline, ok := g.listener.(interface{ SetDeadline(time.Time) error }); ok {
		return deadline.SetDeadline(time.Time{})
	}
	var listener net.Listener
	var err error
	if g.bound != nil {
		// Listening needs what binding needed: see bind.
		err = syscall.SetsockoptInt(int(g.bound.Fd()), syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1)
		if err != nil {
			g.err = err
			return err
		}
		if err = syscall.Listen(int(g.bound.Fd()), syscall.SOMAXCONN); err == nil {
			listener, err = net.FileListener(g.bound) // a duplicate
		}
		_ = g.bound.Close()
		g.bound = nil
	} else {
		listener, err = net.Listen("tcp", g.addr)
	}
	if err != nil {
		g.err = err
		return err
	}
	g.listener, g.err = listener, nil
	return nil
}

func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.listener != nil {
		_ = g.listener.Close()
		g.listener = nil
	}
	if g.bound != nil {
		_ = g.bound.Close()
		g.bound = nil
	}
}

// bind takes an address without listening.
func bind(addr string) (*os.File, error) {
	tcp, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		return nil, err
	}
	domain, sockaddr := syscall.AF_INET6, syscall.Sockaddr(nil)
	if ip := tcp.IP.To4(); ip != nil {
		domain, sockaddr = syscall.AF_INET, &syscall.SockaddrInet4{Port: tcp.Port, Addr: [4]byte(ip)}
	} else {
		sockaddr = &syscall.SockaddrInet6{Port: tcp.Port, Addr: [16]byte(tcp.IP.To16())}
	}
	syscall.ForkLock.RLock() // no child may have it
	fd, err := syscall.Socket(domain, syscall.SOCK_STREAM, 0)
	if err == nil {
		syscall.CloseOnExec(fd)
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, err
	}
	// Connections that are open, or have just ended, have the port, too, so it can be bound
	// only for reuse, as net.Listen does. Afterwards that would let another reuse it.
	err = errors.Join(
		syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1), syscall.Bind(fd, sockaddr),
		syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 0))
	if err != nil {
		_ = syscall.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), "bound:"+addr), nil
}
