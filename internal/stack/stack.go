package stack

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
)

// stopGrace is what a server gets to stop in order before it is ended by force;
// PostgreSQL writes a checkpoint in it.
const stopGrace = 20 * time.Second

// openLimit bounds the start of all servers, base backups included.
const openLimit = 5 * time.Minute

// Stack is a set of running servers. Its methods may be called concurrently.
type Stack struct {
	cfg   Config
	ports Ports
	locks []*os.File

	mu       sync.Mutex
	children []*child
	setup    *Service // the command of the setup that runs now
	balancer *balancer
	watchers sync.WaitGroup
}

// child is a process of the stack and what is known of it.
type child struct {
	service Service
	process *process
}

// Open starts the servers and returns when all of them answer and every replica
// streams. Of what it started it leaves nothing behind when it fails, or when ctx
// is done first.
//
// It returns [ErrRunning] when the directory is in use, [ErrMissingProgram] when
// a server is not installed, and an error for every port that is taken.
func Open(ctx context.Context, cfg Config) (_ *Stack, err error) {
	cfg, err = cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &Stack{cfg: cfg}
	defer func() {
		if err != nil {
			s.Kill()
		}
	}()

	lock, err := prepareDir(cfg.Dir)
	if err != nil {
		return nil, err
	}
	s.locks = append(s.locks, lock)
	if _, err := endLeftovers(cfg.Dir); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, openLimit, errors.New("stack: the servers do not start"))
	defer cancel()
	if cfg.PortBase == AnyPortBase {
		ports, lock, err := freePorts()
		if err != nil {
			return nil, fmt.Errorf("stack: %w", err)
		}
		s.ports, s.locks = ports, append(s.locks, lock)
	} else {
		s.ports = Ports{Base: cfg.PortBase}
		if err := s.checkPorts(); err != nil {
			return nil, err
		}
	}
	s.mu.Lock()
	err = s.writeStateLocked() // from now on we can be found, and asked to end
	s.mu.Unlock()
	if err != nil {
		return nil, err
	}
	cluster, err := openCluster(ctx, cfg.Dir, cfg.DisableSync)
	if err != nil {
		return nil, fmt.Errorf("stack: %w", err)
	}
	primary := pgServer{name: "primary", port: s.ports.Primary()}

	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		return s.add("redis", "redis", s.ports.Redis(), func(launch launcher) error {
			return startRedis(ctx, launch, cfg.Dir, s.ports.Redis())
		})
	})
	group.Go(func() error {
		return s.add("nats", "nats", s.ports.NATS(), func(launch launcher) error {
			return startNATS(ctx, launch, cfg.NATSCommand, cfg.Dir, s.ports.NATS())
		})
	})
	group.Go(func() error {
		err := s.add(primary.name, "primary", primary.port, func(launch launcher) error {
			return cluster.startPrimary(ctx, launch, primary, cfg.Replicas)
		})
		if err != nil {
			return err
		}
		for n := range cfg.Replicas {
			replica := pgServer{name: replicaName(n + 1), port: s.ports.Replica(n + 1)}
			group.Go(func() error {
				return s.add(replica.name, "replica", replica.port, func(launch launcher) error {
					return cluster.startReplica(ctx, launch, replica, primary)
				})
			})
		}
		return nil
	})
	if err := group.Wait(); err != nil {
		return nil, fmt.Errorf("stack: %w", err)
	}
	return s, nil
}

func (s *Stack) checkPorts() error {
	ports := map[string]int{
		"application": s.ports.App(), "status page": s.ports.Admin(),
		"primary": s.ports.Primary(), "redis": s.ports.Redis(), "nats": s.ports.NATS(),
	}
	for n := range s.cfg.Replicas {
		ports[replicaName(n+1)] = s.ports.Replica(n + 1)
	}
	if err := checkFree(ports); err != nil {
		return fmt.Errorf("stack: another program uses a port that is needed; choose others with --port-base:\n%w", err)
	}
	return nil
}

// launcher starts a child process and makes it known to the stack, so that it is
// ended with it, and found by the next start when we are killed before it is ready.
type launcher func(processSpec) (*process, error)

// add starts a service and watches over it. It is ready when start returns.
func (s *Stack) add(name, role string, port int, start func(launcher) error) error {
	c := &child{service: Service{
		Name: name, Role: role, Addr: loopback(port), State: Starting,
		Log: filepath.Join(s.cfg.Dir, "logs", name+".log"),
	}}
	s.cfg.Notify(Event{Service: c.service})
	err := start(func(spec processSpec) (*process, error) {
		spec.name, spec.log = name, c.service.Log
		p, err := startProcess(spec)
		if err != nil {
			return nil, err
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if c.process == nil {
			s.children = append(s.children, c)
		}
		c.process = p
		c.service.PID, c.service.StartID = p.pid(), startID(p.pid())
		return p, s.writeStateLocked()
	})
	if err != nil {
		if c.process != nil {
			c.process.kill()
		}
		return err
	}
	s.mu.Lock()
	c.service.State = Ready
	service := c.service
	err = s.writeStateLocked()
	s.mu.Unlock()
	s.cfg.Notify(Event{Service: service})
	s.watchers.Go(func() { s.watch(c) })
	return err
}

func (s *Stack) watch(c *child) {
	<-c.process.done
	state, err := Stopped, error(nil)
	if !c.process.askedToStop.Load() {
		state, err = Exited, c.process.failure()
	}
	s.mu.Lock()
	c.service.State = state
	service := c.service
	s.mu.Unlock()
	s.cfg.Notify(Event{Service: service, Err: err})
}

// Secret returns 64 random hexadecimal digits that are drawn once per directory, for
// an application to sign with: what it has signed outlives a restart, and every
// instance accepts it.
func (s *Stack) Secret() (string, error) {
	path := filepath.Join(s.cfg.Dir, "secret")
	if data, err := os.ReadFile(path); err == nil && len(data) == 64 {
		return string(data), nil
	}
	random := make([]byte, 32)
	_, _ = rand.Read(random) // never fails
	secret := hex.EncodeToString(random)
	if err := os.WriteFile(path, []byte(secret), 0o600); err != nil {
		return "", fmt.Errorf("stack: secret: %w", err)
	}
	return secret, nil
}

// Dir returns the absolute name of the stack's directory.
func (s *Stack) Dir() string { return s.cfg.Dir }

// Ports returns the layout of the stack's ports.
func (s *Stack) Ports() Ports { return s.ports }

// Services returns all services in a fixed order: primary, replicas, redis, nats,
// instances.
func (s *Stack) Services() []Service {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.servicesLocked()
}

func (s *Stack) servicesLocked() []Service {
	services := make([]Service, 0, len(s.children))
	for _, c := range s.children {
		services = append(services, c.service)
	}
	roles := []string{"primary", "replica", "redis", "nats", "app"}
	slices.SortFunc(services, func(a, b Service) int {
		if by := slices.Index(roles, a.Role) - slices.Index(roles, b.Role); by != 0 {
			return by
		}
		return a.port() - b.port() // replica-10 comes after replica-2
	})
	return services
}

func (s Service) port() int {
	_, port, _ := net.SplitHostPort(s.Addr)
	n, _ := strconv.Atoi(port)
	return n
}

// DatabaseURL is the primary's connection string for the application's role.
func (s *Stack) DatabaseURL() string {
	return pgServer{port: s.ports.Primary()}.appURL()
}

// ReplicaURLs are the replicas' connection strings for the application's role.
func (s *Stack) ReplicaURLs() []string {
	urls := make([]string, s.cfg.Replicas)
	for n := range urls {
		urls[n] = pgServer{port: s.ports.Replica(n + 1)}.appURL()
	}
	return urls
}

// Env is the environment that an application finds its servers by, the same as in
// production.
func (s *Stack) Env() []string {
	env := []string{
		"DATABASE_URL=" + s.DatabaseURL(),
		"DATABASE_REPLICA_URLS=" + strings.Join(s.ReplicaURLs(), ","),
		"DB_PRIMARY_HOST=127.0.0.1", fmt.Sprintf("DB_PRIMARY_PORT=%d", s.ports.Primary()),
		"REDIS_URL=redis://" + loopback(s.ports.Redis()),
		"NATS_URL=nats://" + loopback(s.ports.NATS()),
	}
	if s.cfg.Replicas > 0 {
		env = append(env, "DB_REPLICA_HOST=127.0.0.1", fmt.Sprintf("DB_REPLICA_PORT=%d", s.ports.Replica(1)))
	}
	return env
}

// Close stops the application, then the servers: the primary before its replicas,
// because it waits until they have all it wrote. What does not stop in time, or is
// still there when ctx is done, is ended by force. It returns when all processes
// are gone, and may be called twice.
func (s *Stack) Close(ctx context.Context) {
	s.mu.Lock()
	balancer := s.balancer
	s.mu.Unlock()
	if balancer != nil {
		balancer.stopAccepting()
	}
	for _, role := range []string{"app", "nats", "redis", "primary", "replica"} {
		s.stopRole(ctx, role)
	}
	s.mu.Lock()
	ours := len(s.locks) > 0
	s.mu.Unlock()
	if ours {
		// A paused backend outlives its postmaster.
		for _, pid := range processesBelow(postgresHomes(s.cfg.Dir)) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	s.release()
}

func (s *Stack) stopRole(ctx context.Context, role string) {
	s.mu.Lock()
	children := slices.Clone(s.children)
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, stopGrace)
	defer cancel()
	var stops sync.WaitGroup
	for _, c := range children {
		if c.service.Role == role {
			stops.Go(func() { c.process.stop(ctx) })
		}
	}
	stops.Wait()
}

// Kill ends all processes by force and returns when they are gone.
func (s *Stack) Kill() {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	s.Close(ctx)
}

func (s *Stack) release() {
	s.watchers.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.balancer != nil {
		s.balancer.close()
		s.balancer = nil
	}
	if len(s.locks) == 0 {
		return
	}
	_ = os.Remove(statePath(s.cfg.Dir))
	for _, lock := range s.locks {
		_ = lock.Close()
	}
	s.locks = nil
}

// ErrRunning is returned by [Open] when another process has a stack in the same
// directory.
var ErrRunning = errors.New("a stack is running in this directory")
