-- +goose Up
-- What each group of consumers has handled: the row is written in the transaction of the
-- effect. A day is that of the event, so that an event falls into the same partition
-- however late it comes again; days are dropped when no broker has their events any more.
CREATE SCHEMA IF NOT EXISTS loadline;

CREATE TABLE loadline.inbox (
    day           date NOT NULL,
    consumer      text NOT NULL,
    id            text NOT NULL,
    PRIMARY KEY (consumer, id, day)
) PARTITION BY LIST (day);

-- Events whose day has no partition: very old ones, and those of clocks that are wrong.
CREATE TABLE loadline.inbox_other PARTITION OF loadline.inbox DEFAULT;

-- +goose Down
DROP TABLE loadline.inbox;
