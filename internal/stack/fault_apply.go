package stack

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// apply does what a fault says and returns when it is in force.
func (s *Stack) apply(ctx context.Context, c *child, f *fault) error {
	if proxied, ok := f.proxyFault(); ok {
		return c.proxy.Add(f.ID, proxied)
	}
	switch f.Kind {
	case FaultKill:
		return s.withProcess(ctx, c, func(p *process) error {
			p.crash()
			return nil
		})
	case FaultPause:
		return s.withProcess(ctx, c, func(p *process) error { return p.pause(ctx) })
	case FaultRestart:
		return s.restart(ctx, c)
	case FaultLag:
		return s.setLag(ctx, c, f.Delay)
	case FaultStreamCut:
		return s.cutStream(ctx, c)
	case FaultReplayPause:
		return s.pauseReplay(ctx, f)
	case FaultExhaust:
		return s.exhaust(ctx, f)
	case FaultPromote:
		return s.promote(ctx, c, f)
	case FaultDiskFull:
		return s.withProcess(ctx, c, func(*process) error { return s.fillDisk(ctx, c) })
	default:
		return fmt.Errorf("%w: no kind %q", ErrBadFault, f.Kind)
	}
}

// undo makes the service what it was before. It may be called for a fault that was
// applied in part, or not at all.
func (s *Stack) undo(ctx context.Context, c *child, f *fault) error {
	if f.let != nil {
		f.let()
		f.let = nil
	}
	if _, ok := f.proxyFault(); ok {
		return c.proxy.Remove(f.ID)
	}
	switch f.Kind {
	case FaultKill, FaultRestart:
		return s.startUnlessHeld(ctx, c)
	case FaultPause:
		s.mu.Lock()
		p := c.process
		s.mu.Unlock()
		p.resume()
		return nil
	case FaultLag:
		return s.setLag(ctx, c, 0)
	case FaultStreamCut:
		return s.resumeStream(ctx, c)
	case FaultReplayPause:
		return s.resumeReplay(ctx, c)
	case FaultExhaust:
		return nil // the sessions ended with what held them
	case FaultPromote:
		return s.undoPromotion(ctx, f)
	case FaultDiskFull:
		return s.emptyDisk(ctx, c)
	default:
		return fmt.Errorf("%w: no kind %q", ErrBadFault, f.Kind)
	}
}

// withProcess does something to a running process that nobody else works on.
func (s *Stack) withProcess(ctx context.Context, c *child, do func(*process) error) error {
	if err := c.busy.take(ctx); err != nil {
		return err
	}
	defer c.busy.give()
	s.mu.Lock()
	p := c.process
	s.mu.Unlock()
	if p == nil || !p.running() {
		return fmt.Errorf("%w: it does not run", ErrConflict)
	}
	return do(p)
}

// mustBeReady refuses what cannot be done to a process that is paused or has ended.
// What concerns its connections can.
func (s *Stack) mustBeReady(c *child, f *fault) error {
	if _, ok := f.proxyFault(); ok {
		return nil
	}
	holder := s.holder(c)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch paused := s.pausedByLocked(c); {
	case holder != nil && holder.ID != f.ID:
		return fmt.Errorf("%w: %s keeps %s down (fault %s); remove that first", ErrConflict, holder.Fault, f.Service, holder.ID)
	case paused != nil && paused != f && f.Kind != FaultKill:
		return fmt.Errorf("%w: %s is paused (fault %s); remove that first", ErrConflict, f.Service, paused.ID)
	case c.service.State != Ready && f.Kind != FaultRestart: // which starts what has died
		return fmt.Errorf("%w: %s is %s; fault add %[2]s restart starts it", ErrConflict, f.Service, c.service.State)
	}
	return nil
}

// pausedByLocked returns the fault that has paused a service; nil when none has.
func (s *Stack) pausedByLocked(c *child) *fault {
	for _, f := range s.faults {
		if f.Kind == FaultPause && f.Service == c.service.Name {
			return f
		}
	}
	return nil
}

// answers reports whether a service runs and is not paused.
func (s *Stack) answers(c *child) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return c.process != nil && c.process.running() && s.pausedByLocked(c) == nil
}

func (s *Stack) restart(ctx context.Context, c *child) error {
	if err := c.busy.take(ctx); err != nil {
		return err
	}
	defer c.busy.give()
	s.stopOrderly(ctx, c)
	return s.startChild(ctx, c)
}

// stopOrderly stops a service for a moment, and gives it the time that it has at the end.
func (s *Stack) stopOrderly(ctx context.Context, c *child) {
	ctx, cancel := context.WithTimeout(ctx, stopGrace)
	defer cancel()
	s.stopChild(ctx, c)
}

// hold runs what keeps a fault up until it is removed or the stack closes.
func (s *Stack) hold(f *fault, keep func(context.Context)) {
	ctx, cancel := context.WithCancel(s.watch)
	ended := make(chan struct{})
	f.let = func() {
		cancel()
		<-ended
	}
	if !s.inBackground(func() {
		defer close(ended)
		keep(ctx)
	}) {
		close(ended)
	}
}

// reload has a PostgreSQL server read its settings again. A paused one does when it
// goes on.
func (s *Stack) reload(c *child) error {
	if err := s.cluster.writeSettings(s.cluster.server(c.service.Name)); err != nil {
		return err
	}
	s.mu.Lock()
	p := c.process
	s.mu.Unlock()
	if p.running() {
		p.signal(syscall.SIGHUP)
	}
	return nil
}

// await asks a PostgreSQL server until it answers true, or ctx is done. The connection
// is a new one each time: a session knows some settings as they were when it began.
func (s *Stack) await(ctx context.Context, server pgServer, what, question string, args ...any) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 15*time.Second, fmt.Errorf("%s: not within 15 s: %s", server.name, what))
	defer cancel()
	for {
		holds, err := isTrue(ctx, server, question, args...)
		if err == nil && holds {
			return nil
		}
		select {
		case <-ctx.Done():
			if err != nil {
				return fmt.Errorf("%w: %w", context.Cause(ctx), err)
			}
			return context.Cause(ctx)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func isTrue(ctx context.Context, server pgServer, question string, args ...any) (bool, error) {
	conn, err := server.connect(ctx)
	if err != nil {
		return false, err
	}
	defer closeSoon(conn)
	ctx, cancel := context.WithTimeout(ctx, connectPatience)
	defer cancel()
	var answer bool
	err = conn.QueryRow(ctx, question, args...).Scan(&answer)
	return answer, err
}

func (s *Stack) setLag(ctx context.Context, c *child, delay time.Duration) error {
	server := s.cluster.server(c.service.Name)
	value := ""
	if delay > 0 {
		value = fmt.Sprintf("'%dms'", delay.Milliseconds())
	}
	s.cluster.set(server.name, "recovery_min_apply_delay", value)
	if err := s.reload(c); err != nil || !s.answers(c) {
		return err
	}
	return s.await(ctx, server, "the new delay",
		`SELECT setting::bigint = $1 FROM pg_settings WHERE name = 'recovery_min_apply_delay'`, delay.Milliseconds())
}

func (s *Stack) cutStream(ctx context.Context, c *child) error {
	server := s.cluster.server(c.service.Name)
	s.cluster.set(server.name, "primary_conninfo", "''")
	if err := s.reload(c); err != nil {
		return err
	}
	return s.await(ctx, server, "the end of the stream", `SELECT NOT EXISTS (SELECT FROM pg_stat_wal_receiver)`)
}

func (s *Stack) resumeStream(ctx context.Context, c *child) error {
	s.cluster.set(c.service.Name, "primary_conninfo", "")
	if err := s.reload(c); err != nil {
		return err
	}
	if err := c.busy.take(ctx); err != nil {
		return err
	}
	defer c.busy.give()
	if !s.runs(c) && s.holder(c) == nil { // an earlier try has stopped it, and could not start it
		return s.startChild(ctx, c)
	}
	return s.mend(ctx, c)
}

// mend waits until a replica streams from the primary. One that cannot, because the
// WAL that it needs is gone or is not the primary's, is made anew. c.busy is held.
func (s *Stack) mend(ctx context.Context, c *child) error {
	primary := s.cluster.primary()
	if s.cluster.isCut(c.service.Name) || s.cluster.role(c.service.Name) != "replica" || !s.answers(c) || !s.answers(s.child(primary.name)) {
		return nil
	}
	err := s.await(ctx, primary, c.service.Name+" streams",
		`SELECT EXISTS (SELECT FROM pg_stat_replication WHERE application_name = $1 AND state = 'streaming')`, c.service.Name)
	if err == nil || ctx.Err() != nil {
		return err
	}
	return s.rebuild(ctx, c, "could not follow the primary")
}

// rebuild makes a replica anew from a base backup of the primary. c.busy is held.
func (s *Stack) rebuild(ctx context.Context, c *child, why string) error {
	if err := s.cluster.mayClone(c.service.Name); err != nil {
		return err
	}
	s.stopOrderly(ctx, c)
	if err := s.cluster.discard(c.service.Name); err != nil {
		return err
	}
	if err := s.startChild(ctx, c); err != nil {
		return err
	}
	s.mu.Lock()
	service := c.service
	s.mu.Unlock()
	s.cfg.Notify(Event{Service: service, Note: why + ", and was made anew from a base backup"})
	return nil
}

const (
	replayPaused  = `SELECT pg_is_in_recovery() AND pg_get_wal_replay_pause_state() = 'paused'`
	requestPause  = `SELECT pg_wal_replay_pause() IS NOT NULL`
	requestResume = `SELECT pg_wal_replay_resume() IS NOT NULL`
)

func (s *Stack) pauseReplay(ctx context.Context, f *fault) error {
	server := s.cluster.server(f.Service)
	if _, err := isTrue(ctx, server, requestPause); err != nil {
		return err
	}
	if err := s.await(ctx, server, "replay pauses", replayPaused); err != nil {
		return err
	}
	// A restart of the server, or somebody in psql, ends it.
	s.hold(f, func(ctx context.Context) {
		for every(ctx, time.Second) {
			if paused, err := isTrue(ctx, server, replayPaused); err == nil && !paused {
				_, _ = isTrue(ctx, server, requestPause) // not in recovery any more, or away
			}
		}
	})
	return nil
}

func (s *Stack) resumeReplay(ctx context.Context, c *child) error {
	if !s.runs(c) {
		return nil // it does not outlive the process
	}
	_, err := isTrue(ctx, s.cluster.server(c.service.Name), requestResume)
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok && pg.Code == "55000" { // promoted, recovery has ended
		return nil
	}
	return err
}

// exhaust holds the server's connections until none is left for the application.
func (s *Stack) exhaust(ctx context.Context, f *fault) error {
	server := s.cluster.server(f.Service)
	want := f.Sessions
	if want == 0 {
		want = maxSessions
	}
	idle := &idleSessions{url: appURL(server.direct()) + "&application_name=loadline-fault", want: want}
	if err := idle.fill(ctx); err != nil {
		idle.end()
		return err
	}
	s.hold(f, func(ctx context.Context) {
		defer idle.end()
		for every(ctx, time.Second) {
			idle.dropDead(ctx)
			_ = idle.fill(ctx) // the server is away: again in a second
		}
	})
	return nil
}

// idleSessions are sessions that have begun a transaction and do nothing.
type idleSessions struct {
	url  string
	want int
	open []*pgx.Conn
}

// fill opens sessions until there are enough, or the server has none left.
func (i *idleSessions) fill(ctx context.Context) error {
	for len(i.open) < i.want && ctx.Err() == nil {
		conn, err := i.begin(ctx)
		if pg, ok := errors.AsType[*pgconn.PgError](err); ok && pg.Code == "53300" { // too_many_connections
			return nil
		}
		if err != nil {
			return err
		}
		i.open = append(i.open, conn)
	}
	return ctx.Err()
}

func (i *idleSessions) begin(ctx context.Context) (*pgx.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, connectPatience)
	defer cancel()
	conn, err := pgx.Connect(ctx, i.url)
	if err != nil {
		return nil, err
	}
	if _, err := conn.Exec(ctx, "BEGIN"); err != nil {
		closeSoon(conn)
		return nil, err
	}
	return conn, nil
}

// dropDead forgets the sessions that a restart of the server has ended.
func (i *idleSessions) dropDead(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, connectPatience)
	defer cancel()
	alive := i.open[:0]
	for _, conn := range i.open {
		if ctx.Err() == nil && conn.Ping(ctx) != nil {
			closeSoon(conn)
			continue
		}
		alive = append(alive, conn)
	}
	clear(i.open[len(alive):])
	i.open = alive
}

// end closes all at once: on a paused server each takes its time.
func (i *idleSessions) end() {
	var closing sync.WaitGroup
	for _, conn := range i.open {
		closing.Go(func() { closeSoon(conn) })
	}
	closing.Wait()
	i.open = nil
}

func closeSoon(conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	_ = conn.Close(ctx)
}

// every waits and reports whether to go on.
func every(ctx context.Context, interval time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(interval):
		return true
	}
}
