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
	cfg     Config
	ports   Ports
	locks   []*os.File
	cluster *cluster

	// watch ends when the stack begins to close: what supervises, restarts and holds
	// faults ends with it. The proxies go on until the processes have stopped.
	watch      context.Context
	endWatch   context.CancelFunc
	proxying   context.Context
	endProxies context.CancelFunc
	background sync.WaitGroup

	// topology is held by what changes which server is the primary, or depends on it
	// for longer than a moment.
	topology turn

	mu        sync.Mutex
	closing   bool // no background work begins any more
	children  []*child
	setup     *Service // the command of the setup that runs now
	balancer  *balancer
	faults    []*fault
	lastFault int
}

// Open starts the servers and returns when all of them answer and every replica
// streams. Of what it started it leaves nothing behind when it fails, or when ctx
// is done first. Faults that an earlier run left behind are undone before.
//
// It returns [ErrRunning] when the directory is in use, [ErrMissingProgram] when
// a server is not installed, [ErrDiskFull] when there is no room for the data, and
// an error for every port that is taken.
func Open(ctx context.Context, cfg Config) (_ *Stack, err error) {
	cfg, err = cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &Stack{cfg: cfg, topology: newTurn()}
	s.watch, s.endWatch = context.WithCancel(context.Background())
	s.proxying, s.endProxies = context.WithCancel(context.Background())
	defer func() {
		if err != nil {
			err = explainFull(cfg.Dir, err)
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
	if err := checkRoom(cfg); err != nil {
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
	s.cluster, err = openCluster(ctx, cfg, s.ports)
	if err != nil {
		return nil, fmt.Errorf("stack: %w", err)
	}
	s.mu.Lock()
	err = s.writeStateLocked() // from now on we can be found, and asked to end
	s.mu.Unlock()
	if err != nil {
		return nil, err
	}
	s.inBackground(func() { s.rotateLogs(s.watch) })
	if err := s.startServers(ctx); err != nil {
		return nil, fmt.Errorf("stack: %w", err)
	}
	s.inBackground(func() { s.superviseReplicas(s.watch) })
	return s, nil
}

func (s *Stack) startServers(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		return s.add(ctx, "redis", "redis", s.ports.Redis(), func(ctx context.Context, launch launcher) error {
			return startRedis(ctx, launch, s.cfg.Dir, s.ports.Redis())
		})
	})
	group.Go(func() error {
		return s.add(ctx, "nats", "nats", s.ports.NATS(), func(ctx context.Context, launch launcher) error {
			return startNATS(ctx, launch, s.cfg, s.ports.NATS())
		})
	})
	group.Go(func() error {
		primary := s.cluster.primary()
		if err := s.addPostgres(ctx, primary); err != nil {
			return err
		}
		if err := s.cluster.prepare(ctx, primary); err != nil {
			return fmt.Errorf("%s: %w", primary.name, err)
		}
		for _, server := range s.cluster.replicas() {
			group.Go(func() error { return s.addPostgres(ctx, server) })
		}
		return nil
	})
	return group.Wait()
}

// addPostgres adds a server, which at every start takes the role that is its then.
func (s *Stack) addPostgres(ctx context.Context, server pgServer) error {
	return s.add(ctx, server.name, s.cluster.role(server.name), server.port, func(ctx context.Context, launch launcher) error {
		if s.cluster.role(server.name) == "primary" {
			return s.cluster.startPrimary(ctx, launch, server)
		}
		return s.cluster.startReplica(ctx, launch, server)
	})
}

func (s *Stack) checkPorts() error {
	ports := map[string]int{"application": s.ports.App(), "admin port": s.ports.Admin()}
	addService(ports, "primary", s.ports.Primary())
	addService(ports, "redis", s.ports.Redis())
	addService(ports, "nats", s.ports.NATS())
	for n := range s.cfg.Replicas {
		addService(ports, replicaName(n+1), s.ports.Replica(n+1))
	}
	if err := checkFree(ports); err != nil {
		return fmt.Errorf("stack: another program uses a port that is needed; choose others with --port-base:\n%w", err)
	}
	return nil
}

// inBackground runs what the stack owns and waits for when it closes. Once it closes
// nothing begins any more.
func (s *Stack) inBackground(do func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closing {
		s.background.Go(do)
	}
	return !s.closing
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

// Services returns all services in a fixed order: the PostgreSQL servers, redis,
// nats, instances.
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
	order := map[string]int{"primary": 0, "replica": 0, "redis": 1, "nats": 2, "app": 3}
	slices.SortFunc(services, func(a, b Service) int {
		if by := order[a.Role] - order[b.Role]; by != 0 {
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

func (s Service) isPostgres() bool { return s.Role == "primary" || s.Role == "replica" }

// DatabaseURL is the connection string for the application's role of the server that
// is the primary now, by way of its fault proxy.
func (s *Stack) DatabaseURL() string { return appURL(loopback(s.cluster.primary().port)) }

// ReplicaURLs are those of the other servers.
func (s *Stack) ReplicaURLs() []string {
	var urls []string
	for _, server := range s.cluster.replicas() {
		urls = append(urls, appURL(loopback(server.port)))
	}
	return urls
}

// Env is the environment that an application finds its servers by, the same as in
// production. All addresses are those of fault proxies.
func (s *Stack) Env() []string {
	if s.cluster == nil {
		return nil // only just starting
	}
	env := []string{
		"DATABASE_URL=" + s.DatabaseURL(),
		"DATABASE_REPLICA_URLS=" + strings.Join(s.ReplicaURLs(), ","),
		"DB_PRIMARY_HOST=127.0.0.1", fmt.Sprintf("DB_PRIMARY_PORT=%d", s.cluster.primary().port),
		"REDIS_URL=redis://" + loopback(s.ports.Redis()),
		"NATS_URL=nats://" + loopback(s.ports.NATS()),
	}
	if replicas := s.cluster.replicas(); len(replicas) > 0 {
		env = append(env, "DB_REPLICA_HOST=127.0.0.1", fmt.Sprintf("DB_REPLICA_PORT=%d", replicas[0].port))
	}
	return env
}

// Close stops the application, then the servers: the primary before its replicas,
// because it waits until they have all it wrote. What does not stop in time, or is
// still there when ctx is done, is ended by force. Faults end with the processes;
// what they have left on disk is undone. It returns when all processes are gone, and
// may be called twice.
func (s *Stack) Close(ctx context.Context) {
	s.mu.Lock()
	s.closing = true
	balancer, ours := s.balancer, len(s.locks) > 0
	s.mu.Unlock()
	s.endWatch()
	if balancer != nil {
		balancer.stopAccepting()
	}
	s.resumeAll()
	for _, role := range []string{"app", "nats", "redis", "primary", "replica"} {
		s.stopRole(ctx, role)
	}
	if ours {
		// A paused backend outlives its postmaster.
		for _, pid := range processesBelow(postgresHomes(s.cfg.Dir)) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	s.release()
}

// resumeAll lets paused processes go on: the primary's shutdown waits for replicas.
func (s *Stack) resumeAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.children {
		if c.process != nil && c.process.running() {
			c.process.resume()
		}
	}
}

func (s *Stack) stopRole(ctx context.Context, role string) {
	ctx, cancel := context.WithTimeout(ctx, stopGrace)
	defer cancel()
	var stops sync.WaitGroup
	for _, c := range s.childrenOf(role) {
		stops.Go(func() { s.stopChild(ctx, c) })
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
	s.endProxies()
	s.mu.Lock()
	balancer := s.balancer
	s.balancer = nil
	s.mu.Unlock()
	if balancer != nil {
		balancer.close()
	}
	s.background.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.locks) == 0 {
		return
	}
	// What fails now is done by the next start, which reads the same record.
	_ = undoOffline(s.cfg.Dir)
	_ = os.Remove(statePath(s.cfg.Dir))
	for _, lock := range s.locks {
		_ = lock.Close()
	}
	s.locks = nil
}

// ErrRunning is returned by [Open] when another process has a stack in the same
// directory.
var ErrRunning = errors.New("a stack is running in this directory")
