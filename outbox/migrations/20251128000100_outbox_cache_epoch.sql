-- +goose Up
-- What was invalidated, and is not waiting any more, was so in this epoch of the cache. A relay that takes over
-- does not go on with another, in which its predecessor may have left something out.
ALTER TABLE loadline.outbox_relay ADD COLUMN cache_epoch bigint NOT NULL DEFAULT 0;

-- +goose Down
ALTER TABLE loadline.outbox_relay DROP COLUMN cache_epoch;
