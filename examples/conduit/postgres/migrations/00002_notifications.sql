-- What follows from what users do, and may come a moment later: see
-- docs/consistency.md. The specification's answers hold none of it.

-- +goose Up

CREATE TABLE notifications (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id    bigint      NOT NULL REFERENCES users ON DELETE CASCADE, -- who is told
    kind       text        NOT NULL CHECK (kind IN ('article', 'comment', 'favorite')),
    actor_id   bigint      NOT NULL REFERENCES users ON DELETE CASCADE, -- who did it
    article_id bigint      NOT NULL REFERENCES articles ON DELETE CASCADE,
    comment_id bigint      REFERENCES comments ON DELETE CASCADE,
    created_at timestamptz NOT NULL DEFAULT now(),
    read       boolean     NOT NULL DEFAULT false
);

CREATE INDEX notifications_user_id_idx ON notifications (user_id, id DESC);
CREATE INDEX notifications_unread_idx ON notifications (user_id) WHERE NOT read;
CREATE INDEX notifications_article_id_idx ON notifications (article_id);
CREATE INDEX notifications_comment_id_idx ON notifications (comment_id);
CREATE INDEX notifications_actor_id_idx ON notifications (actor_id);
-- Who takes a favourite back and gives it again is no news.
CREATE UNIQUE INDEX notifications_favorite_key ON notifications (article_id, actor_id) WHERE kind = 'favorite';

CREATE TABLE article_views (
    article_id bigint PRIMARY KEY REFERENCES articles ON DELETE CASCADE,
    views      bigint NOT NULL
) WITH (fillfactor = 70);

-- How many articles have been published with a tag, by day: a projection of the events.
CREATE TABLE tag_days (
    day      date   NOT NULL,
    tag      text   NOT NULL,
    articles bigint NOT NULL,
    PRIMARY KEY (day, tag)
) WITH (fillfactor = 70);

-- +goose Down
DROP TABLE tag_days, article_views, notifications;
