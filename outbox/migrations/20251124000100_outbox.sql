-- +goose Up
CREATE SCHEMA IF NOT EXISTS loadline;

-- What has been committed and not yet been published. Writers of any language insert
-- type and payload, and what else they know; docs/outbox.md has the columns.
CREATE TABLE loadline.outbox (
	seq             bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	txid            xid8        NOT NULL DEFAULT pg_current_xact_id(),
	id              uuid        NOT NULL DEFAULT gen_random_uuid(),
	created_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
	occurred_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
	key_version     bigint      NOT NULL DEFAULT 0 CHECK (key_version >= 0),
	shard           smallint    NOT NULL DEFAULT 0,
	type            text        NOT NULL,
	version         text        NOT NULL DEFAULT 'v1',
	key             text        NOT NULL DEFAULT '',
	tenant          text        NOT NULL DEFAULT '',
	idempotency_key text,                 -- null: the id
	token           text,                 -- what the writer had seen, as docs/causal-token.md has it
	traceparent     text,
	tracestate      text,
	payload         json        NOT NULL  -- json keeps the bytes; jsonb does not
);

-- Rows live for milliseconds: what a share of the table means changes all the time, so
-- vacuum by count, and without pauses. Updates there are none.
ALTER TABLE loadline.outbox SET (
	fillfactor = 100,
	autovacuum_vacuum_scale_factor = 0,
	autovacuum_vacuum_threshold = 5000,
	autovacuum_vacuum_insert_threshold = -1,
	autovacuum_analyze_scale_factor = 0,
	autovacuum_analyze_threshold = 50000,
	autovacuum_vacuum_cost_delay = 0,
	toast.autovacuum_vacuum_scale_factor = 0,
	toast.autovacuum_vacuum_threshold = 5000,
	toast.autovacuum_vacuum_cost_delay = 0
);

-- What has been published, by day. The relay makes the partitions ahead and drops
-- them; the default one takes what has no other, so that no row is ever refused.
CREATE TABLE loadline.outbox_sent (
	seq             bigint      NOT NULL,
	txid            xid8        NOT NULL,
	id              uuid        NOT NULL,
	created_at      timestamptz NOT NULL,
	occurred_at     timestamptz NOT NULL,
	key_version     bigint      NOT NULL,
	shard           smallint    NOT NULL,
	type            text        NOT NULL,
	version         text        NOT NULL,
	key             text        NOT NULL,
	tenant          text        NOT NULL,
	idempotency_key text,
	token           text,
	traceparent     text,
	tracestate      text,
	payload         json        NOT NULL,
	sent_at         timestamptz NOT NULL
) PARTITION BY RANGE (sent_at);
CREATE INDEX outbox_sent_at ON loadline.outbox_sent (sent_at, seq); -- republishing reads by it
CREATE TABLE loadline.outbox_sent_default PARTITION OF loadline.outbox_sent DEFAULT;

-- What the broker never takes.
CREATE TABLE loadline.outbox_dead (
	seq             bigint      PRIMARY KEY,
	txid            xid8        NOT NULL,
	id              uuid        NOT NULL,
	created_at      timestamptz NOT NULL,
	occurred_at     timestamptz NOT NULL,
	key_version     bigint      NOT NULL,
	shard           smallint    NOT NULL,
	type            text        NOT NULL,
	version         text        NOT NULL,
	key             text        NOT NULL,
	tenant          text        NOT NULL,
	idempotency_key text,
	token           text,
	traceparent     text,
	tracestate      text,
	payload         json        NOT NULL,
	reason          text        NOT NULL, -- rejected, or unencodable
	error           text        NOT NULL,
	attempts        integer     NOT NULL,
	first_failed_at timestamptz NOT NULL,
	last_failed_at  timestamptz NOT NULL
);

-- Rows of the outbox that have failed, or died, and hold back their key. The relay
-- alone inserts and deletes here; others may set resolved.
CREATE TABLE loadline.outbox_held (
	seq             bigint      PRIMARY KEY,
	shard           smallint    NOT NULL,
	key             text        NOT NULL,
	attempts        integer     NOT NULL,
	first_failed_at timestamptz NOT NULL,
	last_failed_at  timestamptz NOT NULL,
	not_before      timestamptz NOT NULL,
	dead            boolean     NOT NULL DEFAULT false,
	resolved        boolean     NOT NULL DEFAULT false
);
CREATE INDEX outbox_held_key ON loadline.outbox_held (key, seq); -- the claim asks it for each row's key

-- What the caches must be told of, and have not been. The record is the cache's.
CREATE TABLE loadline.outbox_invalidation (
	seq        bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	txid       xid8        NOT NULL DEFAULT pg_current_xact_id(),
	created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
	record     bytea       NOT NULL
);
ALTER TABLE loadline.outbox_invalidation SET (
	fillfactor = 100,
	autovacuum_vacuum_scale_factor = 0,
	autovacuum_vacuum_threshold = 5000,
	autovacuum_vacuum_insert_threshold = -1,
	autovacuum_analyze_scale_factor = 0,
	autovacuum_analyze_threshold = 50000,
	autovacuum_vacuum_cost_delay = 0
);

-- Who relays each shard. A lease belongs to a backend, and ends with it.
CREATE TABLE loadline.outbox_relay (
	shard         smallint    PRIMARY KEY,
	epoch         bigint      NOT NULL DEFAULT 0, -- counts the holders
	pid           integer     NOT NULL DEFAULT 0, -- of the holder's backend; 0: none
	backend_start timestamptz NOT NULL DEFAULT '-infinity',
	holder        text        NOT NULL DEFAULT '',
	taken_at      timestamptz NOT NULL DEFAULT '-infinity',
	renewed_at    timestamptz NOT NULL DEFAULT '-infinity',
	paused        text        NOT NULL DEFAULT '', -- why nothing is published
	position      bigint      NOT NULL DEFAULT 0,  -- rows up to here are published, except for those that are held
	low_water     bigint      NOT NULL DEFAULT 0   -- no row is below
) WITH (fillfactor = 50);

-- +goose Down
DROP TABLE loadline.outbox_relay;
DROP TABLE loadline.outbox_invalidation;
DROP TABLE loadline.outbox_held;
DROP TABLE loadline.outbox_dead;
DROP TABLE loadline.outbox_sent;
DROP TABLE loadline.outbox;
-- The schema stays: other packages have tables in it.
