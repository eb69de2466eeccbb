// Package shared lets many processes use one stack, which `go test` needs: it runs
// each package's tests in a process of its own, and starting the servers for each
// would cost more than the tests.
//
// The first process to [Join] starts a server process in the background, which
// runs the stack, and each holds a connection to it for as long as it lives. When
// the last connection has been gone for a while, however its process ended, the
// stack stops and its data is deleted, so that nobody has to start or stop anything.
// What a server process that was killed leaves behind, the next one ends.
package shared

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/loadlinehq/loadline/internal/stack"
)

const (
	// linger bridges the time in which `go test` builds the next package.
	linger = 30 * time.Second
	// buildLimit bounds the wait for another process that starts the servers, and
	// the build of their program, which on a new machine compiles all of it.
	buildLimit = 10 * time.Minute
	// startLimit bounds the start of the servers on a busy machine.
	startLimit = 2 * time.Minute
)

// Servers says where the shared servers are.
type Servers struct {
	Primary  string   `json:"primary"` // host:port
	Replicas []string `json:"replicas"`
	Redis    string   `json:"redis"`
	NATS     string   `json:"nats"`

	LeaseAddr string `json:"lease"` // where to connect in order to keep them alive
}

func serversPath(dir string) string { return filepath.Join(dir, "servers.json") }

// Serve runs a stack in a directory for those who join it, until nobody has been
// there for a while or ctx is done. The directory's data is deleted before and
// after.
func Serve(ctx context.Context, cfg stack.Config) error {
	if err := wipe(ctx, cfg.Dir); err != nil {
		return err
	}
	// Of one that was killed: somebody else may have its address by now.
	if err := os.Remove(serversPath(cfg.Dir)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	s, err := stack.Open(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() {
		s.Kill() // the data is thrown away
		_ = stack.Wipe(cfg.Dir)
	}()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	servers := Servers{LeaseAddr: listener.Addr().String()}
	// These have no faults, so nobody pays for the way through the proxies.
	for _, service := range s.Services() {
		switch service.Role {
		case "primary":
			servers.Primary = service.Direct
		case "replica":
			servers.Replicas = append(servers.Replicas, service.Direct)
		case "redis":
			servers.Redis = service.Direct
		case "nats":
			servers.NATS = service.Direct
		}
	}
	if err := stack.WriteJSON(serversPath(cfg.Dir), servers); err != nil {
		return err
	}
	defer os.Remove(serversPath(cfg.Dir))
	return keepLeases(ctx, listener, linger)
}

// wipe deletes what is in the directory, once a predecessor that is just stopping has
// left it.
func wipe(ctx context.Context, dir string) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	for {
		err := stack.Wipe(dir)
		if !errors.Is(err, stack.ErrRunning) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// keepLeases gives leases and returns when nobody has held one for the time given.
func keepLeases(ctx context.Context, listener net.Listener, linger time.Duration) error {
	var holders sync.WaitGroup
	changes := make(chan int)
	closing, closeAll := context.WithCancel(context.Background())
	defer holders.Wait()
	defer closeAll()
	defer listener.Close()
	holders.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			holders.Go(func() {
				defer conn.Close()
				stop := context.AfterFunc(closing, func() { _ = conn.Close() })
				defer stop()
				if !send(closing, changes, +1) {
					return
				}
				_, _ = conn.Write([]byte("lease\n"))
				_, _ = io.Copy(io.Discard, conn) // until its process ends
				send(closing, changes, -1)
			})
		}
	})
	held := 0
	idle := time.NewTimer(linger)
	defer idle.Stop()
	for {
		select {
		case change := <-changes:
			if held += change; held > 0 {
				idle.Stop()
			} else {
				idle.Reset(linger)
			}
		case <-idle.C:
			return nil
		case <-ctx.Done():
			return nil
		}
	}
}

func send(ctx context.Context, changes chan<- int, change int) bool {
	select {
	case changes <- change:
		return true
	case <-ctx.Done():
		return false
	}
}

// Lease keeps shared servers alive until it is closed or its process ends. It must
// stay reachable: what is collected as garbage is closed.
type Lease struct {
	Servers
	conn net.Conn
}

// Close gives the lease back.
func (l *Lease) Close() error { return l.conn.Close() }

// Join takes a lease on the shared servers of a directory, and starts them when they
// do not run: start returns the command line of a process that calls [Serve] on the
// directory.
func Join(ctx context.Context, dir string, start func(context.Context) ([]string, error)) (*Lease, error) {
	ctx, cancel := context.WithTimeout(ctx, buildLimit)
	defer cancel()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	// One at a time: the others find what the first has started.
	unlock, err := lock(ctx, dir+".lock")
	if err != nil {
		return nil, err
	}
	defer unlock()

	if lease, err := join(dir); err == nil {
		return lease, nil
	}
	argv, err := start(ctx)
	if err != nil {
		return nil, err
	}
	ctx, cancelStart := context.WithTimeout(ctx, startLimit)
	defer cancelStart()
	log, err := os.Create(dir + ".log")
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // it outlives us
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	// Asked now and then, not waited for: a goroutine that waits would outlive us,
	// and every test that looks for leaks would find it.
	defer func() { _ = cmd.Process.Release() }()
	for {
		lease, err := join(dir)
		if err == nil {
			return lease, nil
		}
		var status syscall.WaitStatus
		if pid, err := syscall.Wait4(cmd.Process.Pid, &status, syscall.WNOHANG, nil); pid != 0 || err != nil {
			text, _ := os.ReadFile(log.Name())
			return nil, fmt.Errorf("the shared stack ended with status %d\n%s", status.ExitStatus(), text)
		}
		select {
		case <-ctx.Done():
			text, _ := os.ReadFile(log.Name())
			return nil, fmt.Errorf("the shared stack does not start: %w\n%s", context.Cause(ctx), text)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// join takes a lease on servers that run.
func join(dir string) (*Lease, error) {
	var servers Servers
	data, err := os.ReadFile(serversPath(dir))
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(data, &servers); err != nil {
		return nil, err
	}
	conn, err := net.DialTimeout("tcp", servers.LeaseAddr, time.Second)
	if err != nil {
		return nil, err
	}
	// The word of the server: a process that is about to end, or another one on
	// the same port, does not say it.
	word := make([]byte, len("lease\n"))
	_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.ReadFull(conn, word); err != nil || string(word) != "lease\n" {
		_ = conn.Close()
		return nil, fmt.Errorf("no lease: %q, %w", word, err)
	}
	return &Lease{Servers: servers, conn: conn}, nil
}

// lock waits for an exclusive lock on a file.
func lock(ctx context.Context, path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			_ = f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		select {
		case <-ctx.Done():
			_ = f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, context.Cause(ctx))
		case <-time.After(50 * time.Millisecond):
		}
	}
}
