package stack

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"time"

	"github.com/loadlinehq/loadline/internal/stack/faultproxy"
)

// child is a service of the stack: its process, which may be replaced by another, and
// the fault proxy in front of it, which stays.
type child struct {
	start func(context.Context, launcher) error // returns when the service is ready
	proxy *faultproxy.Proxy

	// busy is held by whoever starts, stops or signals the process.
	busy turn

	// Guarded by the stack's mutex.
	service Service
	process *process // the last; nil before the first
	deaths  int      // one soon after the other, that nobody asked for
}

// launcher starts a child process and makes it known to the stack, so that it is
// ended with it, and found by the next start when we are killed before it is ready.
type launcher func(processSpec) (*process, error)

// turn is a lock that can be waited for with a bound.
type turn chan struct{}

func newTurn() turn { return make(turn, 1) }

func (t turn) take(ctx context.Context) error {
	select {
	case t <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (t turn) tryTake() bool {
	select {
	case t <- struct{}{}:
		return true
	default:
		return false
	}
}

func (t turn) give() { <-t }

// add starts a service behind a proxy, which listens at the port. It returns when the
// service is ready.
func (s *Stack) add(ctx context.Context, name, role string, port int, start func(context.Context, launcher) error) error {
	c := &child{
		start: start, busy: newTurn(),
		proxy: faultproxy.New(loopback(port), loopback(port+behindProxy)),
		service: Service{
			Name: name, Role: role, Addr: loopback(port), Direct: loopback(port + behindProxy),
			State: Starting, Log: filepath.Join(s.cfg.Dir, "logs", name+".log"),
		},
	}
	if role == "app" {
		c.service.Admin = loopback(port + besideApp)
	}
	if err := c.proxy.Listen(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	s.inBackground(func() { _ = c.proxy.Run(s.proxying) }) // nil: it ends when asked to
	if err := c.busy.take(ctx); err != nil {
		return err
	}
	defer c.busy.give()
	return s.startChild(ctx, c)
}

// startChild starts the service's process; c.busy is held.
func (s *Stack) startChild(ctx context.Context, c *child) error {
	s.mu.Lock()
	again, before := c.process != nil, c.process
	c.service.State = Starting
	service := c.service
	s.mu.Unlock()
	s.cfg.Notify(Event{Service: service})
	err := c.start(ctx, func(spec processSpec) (*process, error) {
		spec.name, spec.log, spec.again = service.Name, service.Log, again
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.closing {
			return nil, fmt.Errorf("%s: the stack is being stopped", service.Name)
		}
		p, err := startProcess(spec)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(s.children, c) {
			s.children = append(s.children, c)
		}
		again, c.process = true, p
		c.service.PID, c.service.StartID = p.pid(), startID(p.pid())
		return p, s.writeStateLocked()
	})
	s.mu.Lock()
	p := c.process
	if err == nil {
		c.service.State = Ready
		err = s.writeStateLocked()
	} else {
		c.service.State = Exited
	}
	service = c.service
	s.mu.Unlock()
	if err != nil {
		if p != nil && p != before {
			p.kill()
		}
		return err
	}
	s.cfg.Notify(Event{Service: service})
	s.inBackground(func() { s.watchChild(c, p) })
	return nil
}

// stopChild stops the service's process in order, or by force when ctx is done.
func (s *Stack) stopChild(ctx context.Context, c *child) {
	s.mu.Lock()
	p := c.process
	s.mu.Unlock()
	if p != nil {
		p.stop(ctx)
	}
}

// watchChild waits for the end of a process and says how it came.
func (s *Stack) watchChild(c *child, p *process) {
	began := time.Now()
	<-p.done
	s.mu.Lock()
	if c.process != p { // replaced: whoever did that has said so
		s.mu.Unlock()
		return
	}
	state, err := Stopped, error(nil)
	if !p.askedToStop.Load() {
		state, err = Exited, p.failure()
	}
	c.service.State = state
	if c.deaths++; time.Since(began) > time.Minute {
		c.deaths = 0
	}
	service := c.service
	s.mu.Unlock()
	s.cfg.Notify(Event{Service: service, Err: err})
	if state == Exited && s.cfg.Restart {
		s.revive(c)
	}
}

const (
	minRestartDelay = 100 * time.Millisecond
	maxRestartDelay = 10 * time.Second
)

// revive starts a service that has died until it runs, the stack closes, or a fault
// holds it down.
func (s *Stack) revive(c *child) {
	for {
		s.mu.Lock()
		delay := min(minRestartDelay<<min(c.deaths, 10), maxRestartDelay)
		s.mu.Unlock()
		select {
		case <-s.watch.Done():
			return
		case <-time.After(delay/2 + rand.N(delay)):
		}
		err := s.startUnlessHeld(s.watch, c)
		if err == nil || s.watch.Err() != nil {
			return
		}
		s.mu.Lock()
		c.deaths++
		service := c.service
		s.mu.Unlock()
		s.cfg.Notify(Event{Service: service, Err: err})
	}
}

// startUnlessHeld starts a service that does not run, unless a fault wants that.
func (s *Stack) startUnlessHeld(ctx context.Context, c *child) error {
	if err := c.busy.take(ctx); err != nil {
		return err
	}
	defer c.busy.give()
	if s.holder(c) != nil || s.runs(c) {
		return nil
	}
	return s.startChild(ctx, c)
}

func (s *Stack) runs(c *child) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return c.process != nil && c.process.running()
}

// child returns the service of a name; nil when there is none.
func (s *Stack) child(name string) *child {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.IndexFunc(s.children, func(c *child) bool { return c.service.Name == name })
	if i < 0 {
		return nil
	}
	return s.children[i]
}

func (s *Stack) childrenOf(role string) []*child {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(s.children), func(c *child) bool { return c.service.Role != role })
}

// setRoles makes the services' roles those that the cluster has.
func (s *Stack) setRoles() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.children {
		if c.service.isPostgres() {
			c.service.Role = s.cluster.role(c.service.Name)
		}
	}
	return s.writeStateLocked()
}
