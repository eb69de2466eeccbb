-- +goose Up
-- No invalidation is below: how many wait is known by it without counting them.
ALTER TABLE loadline.outbox_relay ADD COLUMN invalidation_low bigint NOT NULL DEFAULT 0;

-- +goose Down
ALTER TABLE loadline.outbox_relay DROP COLUMN invalidation_low;
