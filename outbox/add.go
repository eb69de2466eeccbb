package outbox

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/loadlinehq/loadline/events"
)

// Tx is what Add needs of a transaction. A pgx.Tx is one.
type Tx interface {
	SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults
}

// MaxMessages bounds what one call adds. Guess: a transaction that tells of more should
// tell of it in one event.
const MaxMessages = 1000

// Add adds events to a transaction, in one round trip, with the tenant, the trace and what
// the session of the context has seen. They are published after it commits, in the order
// that they were added in, and not at all if it does not. The outbox is without a bound; see [New].
//
// Its error is an [events.ErrMessage], and then the transaction can go on; or that of the
// database, and then it cannot.
func Add(ctx context.Context, tx Tx, messages ...events.Message) error {
	return unbounded.Add(ctx, tx, messages...)
}

// Queue is Add for a batch that the caller sends: with the transaction's own statements in
// it, an event costs no round trip.
func Queue(ctx context.Context, b *pgx.Batch, messages ...events.Message) error {
	return unbounded.Queue(ctx, b, messages...)
}

var unbounded = &Outbox{shards: 1}

// Add is like the function [Add], and returns a [*FullError] when the outbox holds too
// much; the transaction can go on then.
func (o *Outbox) Add(ctx context.Context, tx Tx, messages ...events.Message) error {
	if len(messages) == 0 {
		return nil
	}
	var b pgx.Batch
	if err := o.queue(ctx, &b, messages); err != nil {
		return err
	}
	if err := o.admit(ctx, tx, &b); err != nil {
		return err
	}
	if err := tx.SendBatch(ctx, &b).Close(); err != nil {
		return fmt.Errorf("outbox: add: %w", missing(err))
	}
	return nil
}

// Queue is like the function [Queue], and returns a [*FullError] when the outbox held too
// much when it was last looked at.
func (o *Outbox) Queue(ctx context.Context, b *pgx.Batch, messages ...events.Message) error {
	if len(messages) == 0 {
		return nil
	}
	if err := o.admitQueued(b); err != nil {
		return err
	}
	return o.queue(ctx, b, messages)
}

const (
	columns   = "id, occurred_at, key_version, shard, type, version, key, tenant, idempotency_key, token, traceparent, tracestate, payload"
	insertOne = "insert into loadline.outbox (" + columns + ") values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)"
	// insertMany keeps the order: rows are numbered as they come from the function.
	insertMany = "insert into loadline.outbox (" + columns + ") select * from unnest($1::uuid[], $2::timestamptz[], $3::bigint[], $4::smallint[]," +
		" $5::text[], $6::text[], $7::text[], $8::text[], $9::text[], $10::text[], $11::text[], $12::text[], $13::json[])"
)

func (o *Outbox) queue(ctx context.Context, b *pgx.Batch, messages []events.Message) error {
	if len(messages) > MaxMessages {
		return fmt.Errorf("outbox: %d events in one call are more than %d", len(messages), MaxMessages)
	}
	var errs []error
	rows := make([]newRow, len(messages))
	size := 0
	for i, m := range messages {
		m = m.From(ctx)
		if m.Time.IsZero() {
			m.Time = time.Now()
		}
		var err error
		if rows[i], err = o.row(&m); err != nil {
			errs = append(errs, fmt.Errorf("outbox: add %.40s %.40s: %w", m.Type, m.ID, err))
		}
		size += rowOverhead + len(m.Payload) + len(m.Key)
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	o.events.add(len(rows), size)
	if len(rows) == 1 {
		r := &rows[0]
		b.Queue(insertOne, r.id, r.at, r.keyVersion, r.shard, r.typ, r.version, r.key, r.tenant, r.idempotency, r.token, r.traceParent, r.traceState, r.payload)
		return nil
	}
	b.Queue(insertMany,
		column(rows, func(r *newRow) [16]byte { return r.id }), column(rows, func(r *newRow) time.Time { return r.at }),
		column(rows, func(r *newRow) int64 { return r.keyVersion }), column(rows, func(r *newRow) int16 { return r.shard }),
		column(rows, func(r *newRow) string { return r.typ }), column(rows, func(r *newRow) string { return r.version }),
		column(rows, func(r *newRow) string { return r.key }), column(rows, func(r *newRow) string { return r.tenant }),
		column(rows, func(r *newRow) *string { return r.idempotency }), column(rows, func(r *newRow) *string { return r.token }),
		column(rows, func(r *newRow) *string { return r.traceParent }), column(rows, func(r *newRow) *string { return r.traceState }),
		column(rows, func(r *newRow) json.RawMessage { return r.payload }))
	return nil
}

func column[T any](rows []newRow, value func(*newRow) T) []T {
	all := make([]T, len(rows))
	for i := range rows {
		all[i] = value(&rows[i])
	}
	return all
}

// newRow is an event as a writer inserts it.
type newRow struct {
	id                                          [16]byte
	at                                          time.Time
	keyVersion                                  int64
	shard                                       int16
	typ, version, key, tenant                   string
	idempotency, token, traceParent, traceState *string // null where there is none
	payload                                     json.RawMessage
}

// row checks all that the server would refuse: an error there ends the transaction.
func (o *Outbox) row(m *events.Message) (newRow, error) {
	if err := m.Check(); err != nil {
		return newRow{}, err
	}
	id, err := uuid.Parse(m.ID)
	if err != nil || id.String() != m.ID {
		return newRow{}, fmt.Errorf("%w: its id %.40q is no UUID in lower case", events.ErrMessage, m.ID)
	}
	if !utf8.Valid(m.Payload) || bytes.IndexByte(m.Payload, 0) >= 0 {
		return newRow{}, fmt.Errorf("%w: its payload is not UTF-8 text without zero bytes", events.ErrMessage)
	}
	for _, text := range [...]string{m.Key, m.IdempotencyKey, m.TraceParent, m.TraceState} {
		if !utf8.ValidString(text) || strings.IndexByte(text, 0) >= 0 {
			return newRow{}, fmt.Errorf("%w: its key, idempotency key or trace is not UTF-8 text without zero bytes", events.ErrMessage)
		}
	}
	r := newRow{
		id: id, at: m.Time, keyVersion: m.KeyVersion, shard: o.shardOf(m), typ: m.Type, version: m.Version, key: m.Key, tenant: m.Tenant,
		token: optional(m.Token.String()), traceParent: optional(m.TraceParent), traceState: optional(m.TraceState), payload: m.Payload,
	}
	if m.IdempotencyKey != m.ID {
		r.idempotency = optional(m.IdempotencyKey)
	}
	return r, nil
}

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
