-- +goose Up
-- After a failover, whether an event's transaction is there is asked by its number.
CREATE INDEX outbox_sent_seq ON loadline.outbox_sent (seq);

-- +goose Down
DROP INDEX loadline.outbox_sent_seq;
