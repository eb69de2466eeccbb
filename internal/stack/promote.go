package stack

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// promote ends the primary as a crash would, and makes a replica the new one. The
// old one stays down, as the fencing of a failover has it, until that is undone.
func (s *Stack) promote(ctx context.Context, c *child, f *fault) error {
	if err := s.topology.take(ctx); err != nil {
		return err
	}
	defer s.topology.give()
	old := s.child(s.cluster.primary().name)
	s.mu.Lock()
	f.Was = old.service.Name
	err := s.writeFaultsLocked()
	s.mu.Unlock()
	if err != nil {
		return err
	}
	if c == old {
		return fmt.Errorf("%w: %s is the primary", ErrConflict, f.Service)
	}
	var others []*child
	for _, role := range []string{"primary", "replica"} {
		for _, server := range s.childrenOf(role) {
			if err := server.busy.take(ctx); err != nil {
				return err
			}
			defer server.busy.give()
			if server != c && server != old {
				others = append(others, server)
			}
		}
	}
	server := s.cluster.server(f.Service)
	conn, err := server.connect(ctx)
	if err != nil {
		return err
	}
	defer closeSoon(conn)
	if s.runs(old) {
		old.process.crash()
	}
	s.mu.Lock()
	f.Promoting = true
	err = s.writeFaultsLocked()
	s.mu.Unlock()
	if err != nil {
		return err
	}
	var promoted bool
	if err := conn.QueryRow(ctx, "SELECT pg_promote(true, 60)").Scan(&promoted); err != nil {
		return err
	}
	if !promoted {
		return errors.New("PostgreSQL has not promoted it within 60 s")
	}
	// Where its recovery has ended is where it has left the old timeline.
	var fork string
	if err := conn.QueryRow(ctx, "SELECT pg_last_wal_replay_lsn()::text").Scan(&fork); err != nil {
		return err
	}
	if err := s.cluster.setLeader(server.name); err != nil {
		return err
	}
	if err := s.setRoles(); err != nil {
		return err
	}
	for _, replica := range s.cluster.replicas() {
		if err := createSlot(ctx, conn, replica.name); err != nil {
			return err
		}
	}
	if err := s.reload(c); err != nil {
		return err
	}
	for _, other := range others {
		if !s.runs(other) || s.cluster.mayClone(other.service.Name) != nil {
			continue // it learns of the new primary when it starts
		}
		// One that has received more can never follow. It would try for ever, and show
		// as streaming in between: it asks for all of the segment, which begins before.
		ahead, err := isTrue(ctx, s.cluster.server(other.service.Name),
			`SELECT greatest(pg_last_wal_replay_lsn(), pg_last_wal_receive_lsn()) > $1::pg_lsn`, fork)
		if err == nil && ahead {
			if err := s.rebuild(ctx, other, "had come further than the new primary"); err != nil {
				return err
			}
			continue
		}
		if err := s.reload(other); err != nil {
			return err
		}
		if err := s.mend(ctx, other); err != nil {
			return err
		}
	}
	return nil
}

// undoPromotion makes the old primary a replica of the server that is the primary now,
// and gives the application's instances their new environment.
func (s *Stack) undoPromotion(ctx context.Context, f *fault) error {
	if f.Was == "" {
		return nil // it never came to anything
	}
	if err := s.topology.take(ctx); err != nil {
		return err
	}
	defer s.topology.give()
	old := s.child(f.Was)
	if s.cluster.role(f.Was) == "primary" { // nothing was promoted
		return s.startUnlessHeld(ctx, old)
	}
	if err := s.replaceOldPrimary(ctx, old); err != nil {
		return err
	}
	// At the same time: one after the other, some that drain for long take longer than
	// anybody waits. An operator's failover does not spare them either.
	var group errgroup.Group
	for _, instance := range s.childrenOf("app") {
		group.Go(func() error { return s.restartInstance(ctx, instance) })
	}
	return group.Wait()
}

func (s *Stack) replaceOldPrimary(ctx context.Context, old *child) error {
	if err := old.busy.take(ctx); err != nil {
		return err
	}
	defer old.busy.give()
	if s.runs(old) {
		return nil // an earlier try has come this far
	}
	if s.holder(old) != nil {
		// What holds it down starts it, and finds that its data is of no use.
		return s.cluster.discard(old.service.Name)
	}
	return s.rebuild(ctx, old, "had been the primary")
}

func (s *Stack) restartInstance(ctx context.Context, c *child) error {
	if s.holder(c) != nil || s.runs(c) && !s.answers(c) {
		return nil // ended or paused by another fault
	}
	return s.restart(ctx, c)
}

// discard makes a replica's data unusable, so that its next start makes it anew.
func (c *cluster) discard(name string) error {
	err := os.Remove(filepath.Join(c.dataDir(name), standbySignal))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// superviseReplicas makes replicas anew that cannot be replicas any more, until ctx
// is done: one that somebody has promoted has a history of its own, and one whose
// slot has lost the WAL that it needs will never have the primary's.
func (s *Stack) superviseReplicas(ctx context.Context) {
	stills := make(map[*child]*standstill)
	for every(ctx, 2*time.Second) {
		for _, c := range s.childrenOf("replica") {
			if stills[c] == nil {
				stills[c] = new(standstill)
			}
			s.superviseReplica(ctx, c, stills[c])
		}
	}
}

func (s *Stack) superviseReplica(ctx context.Context, c *child, still *standstill) {
	// Somebody who works on it, or on the primary, knows what he does.
	if !s.topology.tryTake() {
		return
	}
	defer s.topology.give()
	if !c.busy.tryTake() {
		return
	}
	defer c.busy.give()
	primary := s.cluster.primary()
	if !s.answers(c) || s.cluster.role(c.service.Name) != "replica" || !s.answers(s.child(primary.name)) {
		return
	}
	server := s.cluster.server(c.service.Name)
	if recovers, err := isTrue(ctx, server, `SELECT pg_is_in_recovery()`); err == nil && !recovers {
		s.tryRebuild(ctx, c, "was promoted, but not by the stack")
		return
	}
	lost, err := isTrue(ctx, primary, `SELECT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1 AND wal_status = 'lost')`, slotName(server.name))
	if err == nil && lost {
		s.tryRebuild(ctx, c, "was away for longer than the primary keeps its WAL")
		return
	}
	if s.cluster.isCut(server.name) {
		return // it may catch up, or be ahead, when it has a stream
	}
	if diverged, err := diverged(ctx, primary, server, still); err == nil && diverged {
		*still = standstill{}
		s.tryRebuild(ctx, c, "had come further than the new primary")
	}
}

// standstill is where a replica's replay has stood at how many looks.
type standstill struct {
	at    string
	looks int
}

// maxLooks is at how many of them, each 2 s after the other, replay that should go on is taken for stuck.
const maxLooks = 5

// diverged reports whether a replica has replayed WAL that the primary's timeline has not: it was away during the
// promotion, or had not replayed yet what it had. It follows never, and shows as streaming in between. One that
// is past the fork on the primary's timeline has a file of that; but so has one that was started since, which takes what
// it has beyond the fork for the primary's, and stands still where that is not what comes.
func diverged(ctx context.Context, primary, replica pgServer, still *standstill) (bool, error) {
	conn, err := primary.connect(ctx)
	if err != nil {
		return false, err
	}
	defer closeSoon(conn)
	ctx, cancel := context.WithTimeout(ctx, connectPatience)
	defer cancel()
	var timeline, history, end string
	// The name of a file of WAL begins with its timeline; pg_control_checkpoint has it minutes later.
	err = conn.QueryRow(ctx, `SELECT t, coalesce(pg_read_file('pg_wal/' || t || '.history', 0, 1 << 20, true), ''), pg_current_wal_flush_lsn()::text
		FROM left(pg_walfile_name(pg_current_wal_lsn()), 8) t`).Scan(&timeline, &history, &end)
	if err != nil {
		return false, err
	}
	// Its last line is where this timeline began: the old one, the position, a reason.
	lines := strings.Split(strings.TrimSpace(history), "\n")
	fields := strings.Fields(lines[len(lines)-1])
	if len(fields) < 2 {
		return false, nil // the first timeline has none
	}
	other, err := replica.connect(ctx)
	if err != nil {
		return false, err
	}
	defer closeSoon(other)
	var at string
	var past, has, waits bool
	err = other.QueryRow(ctx, `SELECT at::text, at > $1::pg_lsn, EXISTS (SELECT FROM pg_ls_waldir() WHERE name ~ $2),
			at >= $3::pg_lsn OR pg_get_wal_replay_pause_state() <> 'not paused' OR current_setting('recovery_min_apply_delay') <> '0'
		FROM pg_last_wal_replay_lsn() at`, fields[1], "^"+timeline+"[0-9A-F]{16}$", end).Scan(&at, &past, &has, &waits)
	if err != nil || !past {
		return false, err
	}
	if waits || at != still.at {
		*still = standstill{at: at}
	}
	still.looks++
	return !has || still.looks > maxLooks, nil
}

func (s *Stack) tryRebuild(ctx context.Context, c *child, why string) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	if err := s.rebuild(ctx, c, why); err != nil && s.watch.Err() == nil {
		s.mu.Lock()
		service := c.service
		s.mu.Unlock()
		s.cfg.Notify(Event{Service: service, Err: fmt.Errorf("%s %s, and could not be made anew: %w", service.Name, why, err)})
		if s.cfg.Restart && !s.runs(c) {
			s.inBackground(func() { s.revive(c) })
		}
	}
}
