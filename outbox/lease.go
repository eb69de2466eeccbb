package outbox

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
)

// errLease: another relay has the lease. This one stands by.
var errLease = errors.New("outbox: the lease is lost")

// lease is a shard's, and belongs to the backend of conn: who takes it over ends that
// backend first, so that what it was doing is done or never will be.
type lease struct {
	conn    *pgx.Conn
	shard   int
	epoch   int64
	cache   uint64    // epoch of the cache that holds what was invalidated, when this was taken
	place   place     // a primary stays on its timeline until it stops
	renewed time.Time // when the last renewal was sent
}

const (
	lookSQL = `select l.epoch, l.pid, l.renewed_at < clock_timestamp() - $2::interval,
		exists (select from pg_stat_activity a where a.pid = l.pid and (a.backend_start = l.backend_start or a.backend_start is null))
		from loadline.outbox_relay l where l.shard = $1`
	// endSQL does not end who has got the number since, of the operating system.
	endSQL = `select pg_terminate_backend(a.pid, $2) from pg_stat_activity a, loadline.outbox_relay l
		where l.shard = $1 and l.epoch = $3 and a.pid = l.pid and (a.backend_start = l.backend_start or a.backend_start is null)`
	takeSQL = `update loadline.outbox_relay set epoch = epoch + 1, pid = pg_backend_pid(),
		backend_start = (select backend_start from pg_stat_activity where pid = pg_backend_pid()),
		holder = $3, taken_at = clock_timestamp(), renewed_at = clock_timestamp(), paused = ''
		where shard = $1 and epoch = $2 returning epoch, cache_epoch`
	renewSQL = `update loadline.outbox_relay set renewed_at = clock_timestamp(), paused = $3,
		position = coalesce($4, position), low_water = coalesce($5, low_water), invalidation_low = coalesce($6, invalidation_low),
		cache_epoch = $7
		where shard = $1 and epoch = $2 and pid = pg_backend_pid()`
	giveBackSQL = `update loadline.outbox_relay set pid = 0, paused = '' where shard = $1 and epoch = $2 and pid = pg_backend_pid()`
)

// sessionSQL: what the statistics say of a table that is empty at one moment and has a
// million rows at the next is wrong. Left to them, claims read the whole table and sort it. Plans
// that are not wanted cost so much that the server would compile them, for 300 ms each.
const sessionSQL = `set application_name = 'loadline outbox relay'; set default_transaction_isolation = 'read committed';
	set enable_seqscan = off; set enable_bitmapscan = off; set jit = off; set plan_cache_mode = force_generic_plan`

// connect returns a connection of its own.
func (r *Relay) connect(ctx context.Context) (*pgx.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, r.c.StatementTimeout)
	defer cancel()
	var conn *pgx.Conn
	if r.c.Pool != nil {
		pooled, err := r.c.Pool.Acquire(ctx)
		if err != nil {
			return nil, fmt.Errorf("outbox: connect: %w", err)
		}
		conn = pooled.Hijack()
	} else {
		var err error
		if conn, err = pgx.Connect(ctx, r.c.DSN); err != nil {
			return nil, fmt.Errorf("outbox: connect: %w", err)
		}
	}
	timeout := strconv.FormatInt(r.c.StatementTimeout.Milliseconds(), 10)
	_, err := conn.Exec(ctx, "set statement_timeout = "+timeout+"; set idle_in_transaction_session_timeout = "+timeout+"; "+sessionSQL)
	if err != nil {
		_ = conn.Close(ctx)
		return nil, fmt.Errorf("outbox: connect: %w", err)
	}
	return conn, nil
}

// acquire takes the lease over the connection, or returns nil when another holds it.
func (r *Relay) acquire(ctx context.Context, conn *pgx.Conn) (*lease, error) {
	ctx, cancel := context.WithTimeout(ctx, r.c.StatementTimeout+leaseCheck)
	defer cancel()
	var epoch int64
	var pid int32
	var stale, alive bool
	look := func() error {
		return conn.QueryRow(ctx, lookSQL, r.c.Shard, r.c.LeaseTTL).Scan(&epoch, &pid, &stale, &alive)
	}
	err := look()
	if errors.Is(err, pgx.ErrNoRows) {
		if _, err = conn.Exec(ctx, "insert into loadline.outbox_relay (shard) values ($1) on conflict do nothing", r.c.Shard); err == nil {
			err = look()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("outbox: lease: %w", missing(err))
	}
	if alive && !stale {
		return nil, nil
	}
	if alive {
		r.c.Logger.WarnContext(ctx, "outbox: the relay before has not renewed its lease; its backend is ended", "shard", r.c.Shard, "pid", pid)
		if _, err := conn.Exec(ctx, endSQL, r.c.Shard, leaseCheck.Milliseconds(), epoch); err != nil {
			return nil, fmt.Errorf("outbox: end the backend %d of the relay before: %w", pid, err)
		}
		old := epoch
		if err := look(); err != nil {
			return nil, fmt.Errorf("outbox: lease: %w", missing(err))
		}
		if alive && epoch == old {
			return nil, fmt.Errorf("outbox: the backend %d of the relay before does not end within %v", pid, leaseCheck)
		}
		if epoch != old {
			return nil, nil // another was first
		}
	}
	l := &lease{conn: conn, shard: r.c.Shard, renewed: time.Now()}
	var cache int64 // numbers above 2^63 are negative in PostgreSQL's bigint
	err = conn.QueryRow(ctx, takeSQL, r.c.Shard, epoch, r.c.Name).Scan(&l.epoch, &cache)
	l.cache = uint64(cache)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("outbox: lease: %w", missing(err))
	}
	if l.place, err = placeOf(ctx, conn); err != nil {
		return nil, err
	}
	return l, nil
}

// giveBack lets another take the lease at once.
func (l *lease) giveBack(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_, _ = l.conn.Exec(ctx, giveBackSQL, l.shard, l.epoch) // otherwise its end does
}
