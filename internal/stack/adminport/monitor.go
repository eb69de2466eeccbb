package adminport

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/loadlinehq/loadline/internal/stack"
)

const (
	interval = time.Second
	// patience is what a service on the loopback address gets to answer.
	patience = time.Second
)

// Status is the stack at one moment.
type Status struct {
	Time     time.Time `json:"time"`
	App      *Link     `json:"app,omitempty"`
	Admin    *Link     `json:"admin,omitempty"`
	Services []Service `json:"services"`
	// Faults are those that are active now, in the order in which they were added.
	Faults []stack.ActiveFault `json:"faults"`
}

// Link is where something is found.
type Link struct {
	URL string `json:"url"`
}

// Service is a service with what was last seen of it.
type Service struct {
	stack.Service
	// Problem says why a service whose process runs is of no use; empty when it
	// answers.
	Problem string `json:"problem,omitempty"`
	// Lag is how far a replica is behind; nil when that is not known.
	Lag *Lag `json:"lag,omitempty"`
}

// Lag is how far a replica is behind its primary.
type Lag struct {
	// Bytes of WAL that the primary has flushed and the replica not replayed.
	Bytes int64 `json:"bytes"`
	// Seconds that the replica took to replay what it replayed last, and 0 when
	// it has replayed all.
	Seconds float64 `json:"seconds"`
}

// Monitor samples a stack. Its methods may be called concurrently.
type Monitor struct {
	stack *stack.Stack
	app   *Link
	admin *Link
	conns map[string]*pgx.Conn // by service; used by Run alone, as is
	used  map[string]used

	mu      sync.Mutex
	status  Status
	load    map[string]float64 // by hop
	sources map[string]instance
}

// NewMonitor returns a monitor of a stack whose application and admin port are
// at the given addresses. An empty address stands for none.
func NewMonitor(s *stack.Stack, appURL, adminURL string) *Monitor {
	m := &Monitor{stack: s, conns: make(map[string]*pgx.Conn), used: make(map[string]used), sources: make(map[string]instance)}
	if appURL != "" {
		m.app = &Link{URL: appURL}
	}
	if adminURL != "" {
		m.admin = &Link{URL: adminURL}
	}
	m.status = m.merge(nil)
	return m
}

// Status returns the processes as they are now, with what the last sample saw.
func (m *Monitor) Status() Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.merge(m.status.Services)
}

// merge joins the stack's own knowledge with a sample.
func (m *Monitor) merge(sampled []Service) Status {
	seen := make(map[string]Service, len(sampled))
	for _, service := range sampled {
		seen[service.Name] = service
	}
	status := Status{Time: time.Now().UTC(), App: m.app, Admin: m.admin, Faults: m.stack.Faults()}
	for _, service := range m.stack.Services() {
		last := seen[service.Name]
		if service.State != stack.Ready {
			last = Service{}
		}
		status.Services = append(status.Services, Service{Service: service, Problem: last.Problem, Lag: last.Lag})
	}
	return status
}

// Run samples every second until ctx is done. It returns nil.
func (m *Monitor) Run(ctx context.Context) error {
	defer func() {
		for _, conn := range m.conns {
			closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
			_ = conn.Close(closing)
			cancel()
		}
	}()
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		services := m.sample(ctx)
		load := m.measureLoad(services)
		m.mu.Lock()
		m.status.Services, m.load = services, load
		m.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// sample asks all services at once, so that one which hangs hides no other.
func (m *Monitor) sample(ctx context.Context) []Service {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	services := m.merge(nil).Services
	reports := make([]report, len(services))
	var asked sync.WaitGroup
	for i, service := range services {
		if service.State != stack.Ready {
			continue
		}
		conn := m.conns[service.Name]
		asked.Go(func() { reports[i] = ask(ctx, service.Service, conn) })
	}
	asked.Wait()

	var flushed int64
	var lags map[string]float64
	for i, r := range reports {
		delete(m.conns, services[i].Name)
		if r.conn != nil {
			m.conns[services[i].Name] = r.conn
		}
		if r.err != nil {
			services[i].Problem = r.err.Error()
		} else if services[i].Role == "primary" && services[i].State == stack.Ready {
			flushed, lags = r.position, r.lags
		}
	}
	for i, r := range reports {
		if services[i].Role != "replica" || services[i].State != stack.Ready || r.err != nil || flushed == 0 {
			continue
		}
		seconds, streams := lags[services[i].Name]
		if !streams {
			services[i].Problem = "does not stream from the primary"
		}
		// The two were asked at the same time, not at one moment.
		services[i].Lag = &Lag{Bytes: max(0, flushed-r.position), Seconds: seconds}
		if services[i].Lag.Bytes == 0 {
			services[i].Lag.Seconds = 0
		}
	}
	return services
}

// report is what a service answered.
type report struct {
	err      error
	conn     *pgx.Conn          // to be used again
	position int64              // flushed (primary) or replayed (replica), in bytes
	lags     map[string]float64 // replay lag in seconds of each streaming replica (primary)
}

func ask(ctx context.Context, service stack.Service, conn *pgx.Conn) report {
	var r report
	switch service.Role {
	case "primary", "replica":
		r = askPostgres(ctx, service, conn)
	default:
		r.err = stack.Ping(ctx, service)
	}
	if r.err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		r.err = fmt.Errorf("does not answer within %s", patience)
	}
	return r
}

func askPostgres(ctx context.Context, service stack.Service, conn *pgx.Conn) (r report) {
	r.conn = conn
	if r.conn == nil || r.conn.IsClosed() {
		r.conn, r.err = pgx.Connect(ctx, stack.SuperuserURL(service.Addr))
		if r.err != nil {
			return r
		}
	}
	if service.Role == "replica" {
		r.err = r.conn.QueryRow(ctx, `SELECT coalesce(pg_last_wal_replay_lsn() - '0/0', 0)::bigint`).Scan(&r.position)
		return r
	}
	r.err = r.conn.QueryRow(ctx, `SELECT (pg_current_wal_flush_lsn() - '0/0')::bigint`).Scan(&r.position)
	if r.err != nil {
		return r
	}
	rows, err := r.conn.Query(ctx, `SELECT application_name, coalesce(extract(epoch FROM replay_lag), 0)::float8
		FROM pg_stat_replication WHERE state = 'streaming'`)
	if err != nil {
		r.err = err
		return r
	}
	r.lags = make(map[string]float64)
	var name string
	var seconds float64
	_, r.err = pgx.ForEachRow(rows, []any{&name, &seconds}, func() error {
		r.lags[name] = seconds
		return nil
	})
	return r
}
