-- +goose Up
-- How far each group has come, as the broker has said before the row was written: the
-- effects of all up to there are in the database, wherever the row is. It is what the
-- group is rewound to when the database has lost what came after.
CREATE TABLE loadline.inbox_floor (
    consumer     text        NOT NULL,
    subscription text        NOT NULL,
    floor        numeric(20) NOT NULL,
    timeline     bigint      NOT NULL, -- of the primary when the row was written
    generation   bigint      NOT NULL DEFAULT 0, -- counts the rewinds
    again_at     timestamptz,          -- the second rewind is due; until then the floor stays
    noted_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (consumer, subscription)
) WITH (fillfactor = 50);

-- +goose Down
DROP TABLE loadline.inbox_floor;
