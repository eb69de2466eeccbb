package stack

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// Ports is the layout of a stack's ports above its base. It is fixed, whatever
// the number of replicas and instances, so that an address noted once stays.
type Ports struct{ Base int }

const (
	portSpan = 150
	// behindProxy is the distance from a service's port, which is its fault proxy's,
	// to the port where its process listens.
	behindProxy = 50
	// besideApp is the distance from an instance's port to the one where it may serve its metrics.
	besideApp = 100
)

func (p Ports) App() int           { return p.Base }
func (p Ports) Admin() int         { return p.Base + 1 }
func (p Ports) Primary() int       { return p.Base + 2 }
func (p Ports) Redis() int         { return p.Base + 3 }
func (p Ports) NATS() int          { return p.Base + 4 }
func (p Ports) Replica(n int) int  { return p.Base + 9 + n }  // n counts from 1
func (p Ports) Instance(n int) int { return p.Base + 19 + n } // n counts from 1

// addService notes a service's two ports.
func addService(ports map[string]int, name string, port int) {
	ports[name] = port
	ports[name+" behind its proxy"] = port + behindProxy
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// checkFree says which of the ports are taken, all at once.
func checkFree(ports map[string]int) error {
	var errs []error
	for name, port := range ports {
		l, err := net.Listen("tcp", loopback(port))
		if err != nil {
			errs = append(errs, fmt.Errorf("port %d (%s): %w", port, name, err))
			continue
		}
		_ = l.Close()
	}
	return errors.Join(errs...)
}

// freePorts finds a range in which every port of the layout is free, below the
// range from which the system takes ports for outgoing connections. The lock
// keeps stacks of the same user that start at the same moment apart; it ends
// with the process.
func freePorts() (Ports, *os.File, error) {
	for base := 20000; base+portSpan <= 32000; base += portSpan {
		lock, err := lockFile(filepath.Join(os.TempDir(), fmt.Sprintf("loadline-%d-ports-%d.lock", os.Getuid(), base)))
		if errors.Is(err, errLocked) {
			continue
		}
		if err != nil {
			return Ports{}, nil, err
		}
		all := make(map[string]int, portSpan)
		for port := base; port < base+portSpan; port++ {
			all[strconv.Itoa(port)] = port
		}
		if checkFree(all) == nil {
			return Ports{Base: base}, lock, nil
		}
		_ = lock.Close()
	}
	return Ports{}, nil, errors.New("no range of free ports between 20000 and 32000")
}

var errLocked = errors.New("locked by another process")

// lockFile takes an exclusive lock that the system gives back when the process
// ends, however it ends.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	switch err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); {
	case errors.Is(err, syscall.EWOULDBLOCK):
		_ = f.Close()
		return nil, errLocked
	case err != nil:
		_ = f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	// Another process may have deleted the file after we had opened it.
	mine, err := f.Stat()
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	if current, err := os.Stat(path); err != nil || !os.SameFile(mine, current) {
		_ = f.Close()
		return nil, errLocked
	}
	return f, nil
}
