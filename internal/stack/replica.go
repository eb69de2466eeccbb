package stack

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// startReplica starts a streaming replica on the data that it has, when that
// still fits the primary, and on a fresh base backup otherwise.
func (c *cluster) startReplica(ctx context.Context, launch launcher, replica pgServer) error {
	primary := c.primary()
	conn, err := primary.connect(ctx)
	if err != nil {
		if ctx.Err() != nil || !c.isStandby(replica) {
			return fmt.Errorf("%s: a base backup is needed, and the primary (%s) gives none: %w", replica.name, primary.name, err)
		}
		// It serves what it has, as a replica does that starts while its primary is away.
		_, err := c.start(ctx, launch, replica)
		return err
	}
	defer closeSoon(conn)
	usable, err := c.usable(ctx, conn, replica, primary)
	if err != nil {
		return fmt.Errorf("%s: %w", replica.name, err)
	}
	if usable {
		err := c.followPrimary(ctx, launch, conn, replica)
		if err == nil || ctx.Err() != nil {
			return err
		}
		// All that it has is the primary's: a copy that is of no use is made anew.
	}
	if err := c.cloneReplica(ctx, conn, replica, primary); err != nil {
		return fmt.Errorf("%s: %w", replica.name, err)
	}
	return c.followPrimary(ctx, launch, conn, replica)
}

// isStandby reports whether a server has data on which it starts as a standby.
func (c *cluster) isStandby(s pgServer) bool {
	dir := c.dataDir(s.name)
	return exists(filepath.Join(dir, "PG_VERSION")) && exists(filepath.Join(dir, standbySignal))
}

// standbySignal makes a server start as a standby; a promotion removes it.
const standbySignal = "standby.signal"

func (c *cluster) followPrimary(ctx context.Context, launch launcher, conn *pgx.Conn, replica pgServer) error {
	p, err := c.start(ctx, launch, replica)
	if err == nil {
		err = c.waitStreaming(ctx, conn, replica, p)
	}
	if err != nil && p != nil {
		p.kill()
	}
	return err
}

// usable reports whether the replica's data is a copy of this primary, has not been
// promoted, and the slot still holds the WAL that it needs.
func (c *cluster) usable(ctx context.Context, conn *pgx.Conn, replica, primary pgServer) (bool, error) {
	if !c.isStandby(replica) {
		return false, nil
	}
	mine, err := systemIdentifier(c.dataDir(replica.name))
	if err != nil {
		return false, err
	}
	theirs, err := systemIdentifier(c.dataDir(primary.name))
	if err != nil || mine != theirs {
		return false, err
	}
	var kept bool
	err = conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_replication_slots
		WHERE slot_name = $1 AND coalesce(wal_status, '') NOT IN ('lost', 'unreserved'))`, slotName(replica.name)).Scan(&kept)
	return kept, err
}

func (c *cluster) cloneReplica(ctx context.Context, conn *pgx.Conn, replica, primary pgServer) error {
	if err := c.mayClone(replica.name); err != nil {
		return err
	}
	// A new slot, that holds WAL from now on: the replica's first start may come
	// long after its backup. Whoever still uses the old one is a walsender whose
	// replica has ended.
	_, err := conn.Exec(ctx, `SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots
		WHERE slot_name = $1 AND active`, slotName(replica.name))
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, `SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1`, slotName(replica.name))
	if err != nil {
		return err
	}
	if err := createSlot(ctx, conn, replica.name); err != nil {
		return err
	}
	return c.build(ctx, c.dataDir(replica.name), func(unfinished string) error {
		// Without a fast checkpoint the backup waits minutes for the next one.
		err := c.account.run(ctx, c.home, c.bin.program("pg_basebackup"), "--pgdata", unfinished,
			"--host", "127.0.0.1", "--port", strconv.Itoa(primary.directPort()), "--username", superuser,
			"--slot", slotName(replica.name), "--wal-method", "stream", "--checkpoint", "fast", "--no-sync")
		if err != nil {
			return err
		}
		return c.account.touch(filepath.Join(unfinished, standbySignal))
	})
}

// isCut reports whether a fault wants a replica not to stream.
func (c *cluster) isCut(name string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, cut := c.settings[name]["primary_conninfo"]
	return cut
}

// mayClone refuses to replace a data directory that a full disk is mounted over.
func (c *cluster) mayClone(name string) error {
	if exists(c.dataDir(name) + limitedSuffix) {
		return fmt.Errorf("%w: the data of %s cannot be made anew while its disk is full; remove that fault first", ErrConflict, name)
	}
	return nil
}

func createSlot(ctx context.Context, conn *pgx.Conn, replica string) error {
	_, err := conn.Exec(ctx, `SELECT pg_create_physical_replication_slot($1, true)
		WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1)`, slotName(replica))
	return err
}

// waitStreaming waits until the primary, at the other end of conn, sends to the replica.
func (c *cluster) waitStreaming(ctx context.Context, conn *pgx.Conn, replica pgServer, p *process) error {
	if c.isCut(replica.name) {
		return nil
	}
	return await(ctx, p, 30*time.Second, func(ctx context.Context) error {
		var streaming bool
		err := conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_stat_replication
			WHERE application_name = $1 AND state = 'streaming')`, replica.name).Scan(&streaming)
		if err == nil && !streaming {
			err = errors.New("does not stream from the primary")
		}
		return err
	})
}

func replicaName(n int) string { return fmt.Sprintf("replica-%d", n) }

// slotName: a slot's name may not hold a hyphen.
func slotName(name string) string { return strings.ReplaceAll(name, "-", "_") }
