package db

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"

	"github.com/loadlinehq/loadline/causal"
)

// pollSQL asks a server for its role and position. Any role may call all of it, but
// the receiver's timeline is NULL without pg_read_all_stats; then the control file says
// it, later: a restart point after the timeline has changed. What the receiver asks for
// is not what has been replayed; see follows.
//
// pg_walfile_name gives the timeline of a primary at once (pg_control_checkpoint does
// after the next checkpoint only), and fails in recovery, hence the CASE.
const pollSQL = `
SELECT r.standby,
       pg_postmaster_start_time(),
       coalesce(pg_last_wal_replay_lsn(), '0/0')::text,
       CASE WHEN r.standby THEN '0/0' ELSE pg_current_wal_flush_lsn()::text END,
       CASE WHEN r.standby
            THEN greatest((SELECT timeline_id FROM pg_control_checkpoint()),
                          (SELECT min_recovery_end_timeline FROM pg_control_recovery()))::text
            ELSE left(pg_walfile_name(pg_current_wal_insert_lsn()), 8)
       END,
       coalesce((SELECT received_tli FROM pg_stat_wal_receiver), 0)
FROM (SELECT pg_is_in_recovery() AS standby) r`

const (
	// minPollGap bounds how often readers that wait make the server be asked: never more
	// often than this, nor for more than a quarter of the time.
	minPollGap   = time.Millisecond
	pollDutyPart = 4
	// minRetryGap bounds how often callers that wait make a server be asked that does not
	// answer: a guess. Each time is a new connection.
	minRetryGap = 50 * time.Millisecond
	// minPollTimeout is a guess: a server that takes longer for a position is not one
	// to send a user's read to.
	minPollTimeout = 500 * time.Millisecond
)

// ask asks a server over a connection.
func ask(ctx context.Context, conn *pgx.Conn) (state, error) {
	s := state{at: time.Now()}
	var standby bool
	var replay, flush, timeline string
	err := conn.QueryRow(ctx, pollSQL).Scan(&standby, &s.started, &replay, &flush, &timeline, &s.received)
	if err != nil {
		return state{}, err
	}
	s.primary = !standby
	base := 10
	if s.primary {
		base = 16
	}
	tli, err0 := strconv.ParseUint(timeline, base, 32)
	s.timeline = uint32(tli)
	var err1, err2 error
	s.lsn, err1 = causal.ParseLSN(replay)
	if s.primary {
		s.replayed = s.lsn
		s.lsn, err2 = causal.ParseLSN(flush)
	}
	return s, errors.Join(err0, err1, err2)
}

// watch polls the server until ctx is done.
func (n *node) watch(ctx context.Context) {
	defer n.unwatch()
	timer := time.NewTimer(0)
	defer timer.Stop()
	var took time.Duration
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-n.kick:
			// Readers that wait share a poll, and the next one is not at once.
			last := n.state.Load()
			gap := max(minPollGap, took*pollDutyPart)
			if last.err != nil {
				gap = minRetryGap
			}
			if wait := min(gap, n.router.config.PollInterval) - time.Since(last.at); wait > 0 {
				time.Sleep(wait)
			}
		}
		began := time.Now()
		n.poll(ctx)
		took = time.Since(began)
		timer.Reset(n.router.config.PollInterval)
	}
}

func (n *node) unwatch() {
	if n.conn != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		_ = n.conn.Close(ctx)
		cancel()
		n.conn = nil
	}
}

// poll asks the server and makes known what it said.
func (n *node) poll(ctx context.Context) {
	s, err := n.askWatched(ctx)
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		silent := timedOut(err)
		n.unwatch()
		n.timeline, n.received = 0, 0
		s = state{at: time.Now(), err: err, hidden: n.hidden, primary: n.state.Load().primary}
		n.router.note(n, &s)
		if !silent {
			n.silent = time.Time{}
			return
		}
		if n.silent.IsZero() {
			n.silent = time.Now()
		}
		// A read can have its answer from another server, now. A write that waits may
		// yet be committed, and its client be told, for as long as a query may take.
		if !s.primary || time.Since(n.silent) > n.limits.QueryTimeout+grace {
			n.cut()
		}
		return
	}
	n.silent = time.Time{}
	if n.hidden {
		s.hidden = true
		n.sawBest(s.lsn)
		n.router.note(n, &s)
		return
	}
	// A server's timeline does not go back while it runs. What the receiver said
	// holds when the receiver has gone.
	n.timeline = max(n.timeline, s.timeline)
	if n.follows(&s) {
		n.timeline = s.received
	}
	s.timeline = n.timeline
	n.router.note(n, &s)
}

// follows reports whether a standby is on the timeline that its receiver asks for: it has
// replayed something since that was first seen, and has never been seen past the point
// where that timeline was left. A replica that had come further than the promoted
// server asks for the new timeline after a restart, too, and has replayed the old one past
// the fork: each of its positions would pass for one that it has not.
func (n *node) follows(s *state) bool {
	if s.primary || s.received <= n.timeline {
		return false
	}
	if n.received != s.received {
		n.received, n.receivedAt = s.received, s.lsn
		return false
	}
	n.router.mu.Lock()
	defer n.router.mu.Unlock()
	return s.lsn > n.receivedAt && n.diverged < s.received
}

func (n *node) askWatched(ctx context.Context) (state, error) {
	if n.conn == nil {
		ctx, cancel := context.WithTimeout(ctx, n.limits.ConnectTimeout)
		defer cancel()
		pool := n.pool.Config()
		config := pool.ConnConfig
		if pool.BeforeConnect != nil {
			if err := pool.BeforeConnect(ctx, config); err != nil {
				return state{}, err
			}
		}
		// Whether it answers in time is the question, so there is no grace.
		config.BuildContextWatcherHandler = func(conn *pgconn.PgConn) ctxwatch.Handler {
			return &pgconn.DeadlineContextWatcherHandler{Conn: conn.Conn()}
		}
		conn, err := pgx.ConnectConfig(ctx, config)
		if err != nil {
			return state{}, err
		}
		if err := n.identify(ctx, conn); err != nil {
			_ = conn.Close(ctx)
			return state{}, err
		}
		n.conn = conn
	}
	ctx, cancel := context.WithTimeout(ctx, max(2*n.router.config.PollInterval, minPollTimeout))
	defer cancel()
	s, err := ask(ctx, n.conn)
	if err != nil {
		err = fmt.Errorf("db: %s: %w", n.name, err)
	}
	return s, err
}
