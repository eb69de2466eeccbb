package outbox

import (
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/loadlinehq/loadline/causal"
	"github.com/loadlinehq/loadline/events"
)

// entry is a row of the outbox, or of the archive.
type entry struct {
	seq     int64
	created time.Time
	message events.Message
}

const (
	entryColumns = "seq, created_at, id, occurred_at, key_version, type, version, key, tenant," +
		" coalesce(idempotency_key, ''), coalesce(token, ''), coalesce(traceparent, ''), coalesce(tracestate, ''), payload::text"

	// heldSQL leaves out rows whose time has not come, and those of a key after one that is
	// held. It is in the claim only while there are such.
	heldSQL = ` and not exists (select from loadline.outbox_held h where h.seq = o.seq and (h.dead or h.not_before > now()))
		and not exists (select from loadline.outbox_held h where h.key = o.key and h.key <> '' and h.seq < o.seq)`
)

// claimSQL takes top, gaps, shard, rows and bytes. Nothing is locked: this relay alone
// deletes, its lease says. The length of a json is known without reading it.
func claimSQL(gaps, held bool) string {
	where := ""
	if held {
		where = heldSQL
	}
	var b strings.Builder
	fmt.Fprintf(&b, "select %s from (select r.*, sum(octet_length(payload::text)) over (order by seq) - octet_length(payload::text) as before from (", entryColumns)
	if gaps {
		fmt.Fprintf(&b, "(select * from loadline.outbox o where seq = any($2::bigint[]) and shard = $3%s order by seq limit $4) union all ", where)
	} else {
		b.WriteString("(select * from loadline.outbox o where $2::bigint[] is not null and false) union all ")
	}
	fmt.Fprintf(&b, "(select * from loadline.outbox o where seq > $1 and shard = $3%s order by seq limit $4)) r) q where before < $5 order by seq limit $4", where)
	return b.String()
}

// Built once, so that each is prepared once.
var claims = map[[2]bool]string{
	{false, false}: claimSQL(false, false), {false, true}: claimSQL(false, true),
	{true, false}: claimSQL(true, false), {true, true}: claimSQL(true, true),
}

// readEntries reads the columns of entryColumns, and others after them, whose last values it leaves
// in more.
func readEntries(rows pgx.Rows, more ...any) ([]entry, error) {
	defer rows.Close()
	var all []entry
	for rows.Next() {
		var e entry
		var id uuid.UUID
		var token, payload string
		m := &e.message
		err := rows.Scan(append([]any{
			&e.seq, &e.created, (*[16]byte)(&id), &m.Time, &m.KeyVersion, &m.Type, &m.Version, &m.Key, &m.Tenant,
			&m.IdempotencyKey, &token, &m.TraceParent, &m.TraceState, &payload,
		}, more...)...)
		if err != nil {
			return nil, err
		}
		m.ID = id.String()
		if m.IdempotencyKey == "" {
			m.IdempotencyKey = m.ID
		}
		if m.Token, err = causal.Parse(token); err != nil { // of a writer in another language
			m.Token = causal.Unknown()
		}
		m.Payload = []byte(payload)
		all = append(all, e)
	}
	return all, rows.Err()
}

func seqsOf(entries []entry) []int64 {
	seqs := make([]int64, len(entries))
	for i := range entries {
		seqs[i] = entries[i].seq
	}
	return seqs
}

const (
	archived = "seq, txid, id, created_at, occurred_at, key_version, shard, type, version, key, tenant, idempotency_key, token, traceparent, tracestate, payload"
	// sentSQL moves what the broker has acknowledged to the archive.
	sentSQL = "with d as (delete from loadline.outbox where seq = any($1::bigint[]) returning *)" +
		" insert into loadline.outbox_sent (" + archived + ", sent_at) select " + archived + ", now() from d order by seq"
	// unarchivedSQL is for relays that keep no archive.
	unarchivedSQL = "delete from loadline.outbox where seq = any($1::bigint[])"
	releaseSQL    = "delete from loadline.outbox_held where seq = any($1::bigint[])"
	holdSQL       = `insert into loadline.outbox_held (seq, shard, key, attempts, first_failed_at, last_failed_at, not_before)
		values ($1, $2, $3, $4, $5, now(), now() + $6::interval)
		on conflict (seq) do update set attempts = excluded.attempts, last_failed_at = excluded.last_failed_at, not_before = excluded.not_before`
	dieSQL = "with d as (delete from loadline.outbox where seq = $1 returning *)" +
		" insert into loadline.outbox_dead (" + archived + ", reason, error, attempts, first_failed_at, last_failed_at)" +
		" select " + archived + ", $2, $3, $4, $5, now() from d"
	blockSQL = "update loadline.outbox_held set dead = true, attempts = $2, last_failed_at = now() where seq = $1"
	// heldsSQL: a row that is neither here nor among the dead has been deleted by somebody.
	heldsSQL = `select h.seq, h.key, h.attempts, h.first_failed_at, h.not_before <= now(), h.dead, h.resolved
		or not exists (select from loadline.outbox o where o.seq = h.seq) and not exists (select from loadline.outbox_dead d where d.seq = h.seq)
		from loadline.outbox_held h where h.shard = $1 order by h.seq limit $2`

	positionSQL = "select pg_current_wal_insert_lsn()::text"
	// lastSQL and holdersSQL go one after the other: see round.
	lastSQL = `select pg_current_wal_insert_lsn()::text, coalesce(pg_sequence_last_value('loadline.outbox_seq_seq'), 0),
		coalesce(pg_sequence_last_value('loadline.outbox_invalidation_seq_seq'), 0)`
	holdersSQL = `select relation = 'loadline.outbox'::regclass, array_agg(virtualtransaction) from pg_locks
		where locktype = 'relation' and database = (select oid from pg_database where datname = current_database())
		and relation in ('loadline.outbox'::regclass, 'loadline.outbox_invalidation'::regclass)
		and mode = 'RowExclusiveLock' and granted and pid is distinct from pg_backend_pid() group by 1`
)
