package db

import (
	"context"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/loadlinehq/loadline/causal"
)

// whereSQL asks one of several servers how far it has come. Its timeline is the control
// file's: after a failover it is believed later than that of a server that is watched.
const whereSQL = `
SELECT r.standby,
       CASE WHEN r.standby THEN coalesce(pg_last_wal_replay_lsn(), '0/0') ELSE '0/0' END AS lsn,
       CASE WHEN r.standby
            THEN greatest((SELECT timeline_id FROM pg_control_checkpoint()),
                          (SELECT min_recovery_end_timeline FROM pg_control_recovery()))::bigint
            ELSE ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::bigint
       END AS timeline
FROM (SELECT pg_is_in_recovery() AS standby) r`

const (
	checkSQL = "SELECT standby, lsn::text, timeline::text, 1 FROM (" + whereSQL + ") q"
	// guardSQL goes before a query in the same message: what has been replayed by then, the
	// query sees. It fails where that is not enough, so that the query is not run in vain.
	guardSQL = "SELECT standby, lsn::text, timeline::text, 1 / CASE WHEN timeline = $1 AND (NOT standby OR lsn >= $2::text::pg_lsn) THEN 1 ELSE 0 END FROM (" + whereSQL + ") q"
	// guardFailed is division_by_zero.
	guardFailed = "22012"
)

// heard notes the answer to checkSQL or guardSQL, and reports whether it proves what is
// needed.
func (l *lease) heard(row pgx.Row) (bool, error) {
	var s state
	var standby bool
	var replayed, timeline string
	if err := row.Scan(&standby, &replayed, &timeline, nil); err != nil {
		return false, err
	}
	lsn, err := causal.ParseLSN(replayed)
	if err != nil {
		return false, err
	}
	tli, err := strconv.ParseUint(timeline, 10, 32)
	if err != nil {
		return false, err
	}
	s.primary, s.lsn, s.timeline = !standby, lsn, uint32(tli)
	info := infoOf(l.conn.Conn())
	info.state = s // the connection is ours
	l.node.sawBest(lsn)
	l.unproven = !info.proven(l.node.state.Load(), l.timeline, l.target)
	return !l.unproven, nil
}

// forReadProven is forRead for calls that the question cannot go along with: it costs a
// round trip of its own, where the server is not proven yet.
func (r *Router) forReadProven(ctx context.Context, o *callOptions, tried *uint64) (lease, error) {
	var p patience
	var l lease
	for {
		if l.conn == nil {
			var err error
			if l, err = r.forRead(ctx, o, tried); err != nil {
				return lease{}, err
			}
		}
		if !l.unproven {
			return l, nil
		}
		n := l.node
		p.begin(o.waitOr(r.config.Wait))
		bounded, cancel := n.bounded(ctx, 0)
		ok, err := l.heard(l.conn.Conn().QueryRow(bounded, checkSQL))
		cancel()
		switch {
		case ok:
			return l, nil
		case err == nil:
			if r.another(ctx, &l, &p) {
				continue
			}
		default:
			broken := l.conn.Conn().IsClosed()
			l.release()
			if ctx.Err() != nil || !elsewhere(err, broken) {
				return lease{}, err
			}
		}
		*tried |= 1 << n.index
	}
}

// patience is what one read has left to find a server behind an address that hides
// several.
type patience struct {
	exchanged bool
	pause     time.Duration
	until     time.Time
}

// begin is called before the first server is asked.
func (p *patience) begin(wait time.Duration) {
	if p.until.IsZero() {
		p.until, p.pause = time.Now().Add(wait), time.Millisecond
	}
}

// another is asked when the server behind the lease's connection is behind. It takes
// another connection of the node, which may lead to another server, in exchange; or it
// gives the lease back and waits a moment, as long as the read has time to wait. False
// says that there is nothing more to hope for.
func (r *Router) another(ctx context.Context, l *lease, p *patience) bool {
	if !p.exchanged && time.Now().Before(p.until) {
		p.exchanged = true
		// Before the first is given back, or it would be the one that we get; and only if
		// there is room for both, or readers with one each would wait for each other.
		if other, err := l.node.acquireWithin(ctx, -1); err == nil {
			l.node.release(l.conn)
			l.conn = other
			l.unproven = !infoOf(other.Conn()).proven(l.node.state.Load(), l.timeline, l.target)
			return true
		}
	}
	l.release()
	p.exchanged = false
	if time.Now().Add(p.pause).After(p.until) {
		return false
	}
	select {
	case <-ctx.Done():
	case <-time.After(p.pause):
	}
	p.pause *= 2
	return true
}

// mayTry bounds how often a node is tried whose servers are all far behind, as far as
// is known: who never tries never learns better.
func (n *node) mayTry(every time.Duration) bool {
	last, now := n.triedAt.Load(), time.Now().UnixNano()
	return now-last > int64(every) && n.triedAt.CompareAndSwap(last, now)
}

// sawBest notes how far a server behind the address has come.
func (n *node) sawBest(lsn causal.LSN) {
	for {
		best := n.best.Load()
		if uint64(lsn) <= best || n.best.CompareAndSwap(best, uint64(lsn)) {
			return
		}
	}
}
