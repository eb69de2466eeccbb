-- +goose Up
CREATE SCHEMA IF NOT EXISTS loadline;

-- Answers to requests with an idempotency key, each written in the transaction of the request's effect. The scope is
-- a hash of tenant, principal, method and route; the fingerprint one of the request.
CREATE TABLE loadline.idempotency (
	scope       bytea       NOT NULL,
	key         text        NOT NULL CHECK (length(key) BETWEEN 1 AND 255),
	fingerprint bytea       NOT NULL,
	status      smallint    NOT NULL,
	headers     jsonb       NOT NULL,
	body        bytea,                 -- null: too long to be kept
	token       text        NOT NULL,  -- what the session had seen, as docs/causal-token.md has it
	created_at  timestamptz NOT NULL DEFAULT now(),
	expires_at  timestamptz NOT NULL,
	PRIMARY KEY (scope, key)
);

-- For the purge. Not partitions by day: the key must be unique over all of them.
CREATE INDEX idempotency_expires_at ON loadline.idempotency (expires_at);

-- +goose Down
DROP TABLE loadline.idempotency;
