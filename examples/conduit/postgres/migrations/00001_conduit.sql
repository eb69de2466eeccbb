-- The schema of Conduit.
--
-- Lists are ordered by articles.id, newest first: the identity is handed out
-- in order of publication, and one column in the order means that every list
-- walks one index and stops after a page.
--
-- Totals are counters, because count(*) over the articles costs more than the
-- page it accompanies. They are kept by the triggers at the end of this file,
-- once per statement, so that no path can forget them: the API, COPY, psql and
-- cascades alike.

-- +goose Up

CREATE TABLE users (
    id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    username       text        NOT NULL CHECK (char_length(username) BETWEEN 1 AND 64),
    email          text        NOT NULL CHECK (char_length(email) BETWEEN 1 AND 254),
    password_hash  text        NOT NULL,
    bio            text,
    image          text,
    articles_count integer     NOT NULL DEFAULT 0 CHECK (articles_count >= 0),
    created_at     timestamptz NOT NULL DEFAULT now(),
    updated_at     timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 90); -- room on the page for HOT updates of the counter

CREATE UNIQUE INDEX users_username_key ON users (lower(username));
CREATE UNIQUE INDEX users_email_key ON users (lower(email));

CREATE TABLE articles (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    slug            text        NOT NULL CONSTRAINT articles_slug_key UNIQUE CHECK (slug <> ''),
    title           text        NOT NULL CHECK (title <> ''),
    description     text        NOT NULL,
    body            text        NOT NULL,
    author_id       bigint      NOT NULL CONSTRAINT articles_author_id_fkey REFERENCES users ON DELETE CASCADE,
    favorites_count integer     NOT NULL DEFAULT 0 CHECK (favorites_count >= 0),
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 90);

CREATE INDEX articles_author_id_idx ON articles (author_id, id DESC);

CREATE TABLE tags (
    id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name           text    NOT NULL CONSTRAINT tags_name_key UNIQUE CHECK (name <> ''),
    articles_count integer NOT NULL DEFAULT 0 CHECK (articles_count >= 0)
) WITH (fillfactor = 50); -- few rows, updated by every publication

CREATE TABLE article_tags (
    article_id bigint  NOT NULL CONSTRAINT article_tags_article_id_fkey REFERENCES articles ON DELETE CASCADE,
    position   integer NOT NULL CHECK (position >= 0), -- in the order the author gave
    tag_id     bigint  NOT NULL CONSTRAINT article_tags_tag_id_fkey REFERENCES tags ON DELETE CASCADE,
    PRIMARY KEY (article_id, position)
);

CREATE UNIQUE INDEX article_tags_tag_id_key ON article_tags (tag_id, article_id DESC);

CREATE TABLE comments (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    article_id bigint      NOT NULL CONSTRAINT comments_article_id_fkey REFERENCES articles ON DELETE CASCADE,
    author_id  bigint      NOT NULL CONSTRAINT comments_author_id_fkey REFERENCES users ON DELETE CASCADE,
    body       text        NOT NULL CHECK (body <> ''),
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX comments_article_id_idx ON comments (article_id, id DESC);
CREATE INDEX comments_author_id_idx ON comments (author_id);

CREATE TABLE favorites (
    user_id    bigint      NOT NULL CONSTRAINT favorites_user_id_fkey REFERENCES users ON DELETE CASCADE,
    article_id bigint      NOT NULL CONSTRAINT favorites_article_id_fkey REFERENCES articles ON DELETE CASCADE,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, article_id)
);

CREATE INDEX favorites_article_id_idx ON favorites (article_id);

-- Following oneself is allowed: the contract does not forbid it, and it only
-- puts one's own articles into one's feed.
CREATE TABLE follows (
    follower_id bigint      NOT NULL CONSTRAINT follows_follower_id_fkey REFERENCES users ON DELETE CASCADE,
    followee_id bigint      NOT NULL CONSTRAINT follows_followee_id_fkey REFERENCES users ON DELETE CASCADE,
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (follower_id, followee_id)
);

CREATE INDEX follows_followee_id_idx ON follows (followee_id);

-- The number of all articles is the sum over these slots. One row would make
-- all publications wait for each other until commit; an author's articles
-- count in slot author_id % 16, and authors wait for their own row anyway.
CREATE TABLE article_totals (
    slot           smallint PRIMARY KEY CHECK (slot BETWEEN 0 AND 15),
    articles_count bigint NOT NULL DEFAULT 0 CHECK (articles_count >= 0)
) WITH (fillfactor = 10);

INSERT INTO article_totals (slot) SELECT generate_series(0, 15);

-- What a list shows of an article: everything but the body.
CREATE VIEW article_summaries AS
SELECT
    a.id,
    a.slug,
    a.title,
    a.description,
    a.favorites_count,
    a.created_at,
    a.updated_at,
    a.author_id,
    u.username              AS author_username,
    coalesce(u.bio, '')     AS author_bio,
    coalesce(u.image, '')   AS author_image,
    ARRAY(
        SELECT t.name
        FROM article_tags AS at
        JOIN tags AS t ON t.id = at.tag_id
        WHERE at.article_id = a.id
        ORDER BY at.position
    )::text[]               AS tag_list
FROM articles AS a
JOIN users AS u ON u.id = a.author_id;

-- The triggers. Rows are locked in one order everywhere, so that concurrent
-- writes wait for each other and never deadlock:
--
--     articles, users, article_totals, tags; within each table by ascending key.
--
-- An UPDATE ... FROM locks rows in the order of its plan, hence the SELECT
-- before each one. Two things are left to the statements that set them off:
-- to remove a favourite, lock its article first, as the cascade of a deleted
-- article does; to replace the tags of an article, lock the old and the new
-- ones first. Deleting a user is the exception: its cascade goes from the user
-- to the articles, so it may be the victim of a deadlock, to be repeated.
--
-- Both kinds of trigger name their transition table `changed`; a function
-- that runs for TRUNCATE has none and does not look at it.

-- +goose StatementBegin
CREATE FUNCTION count_articles() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    step integer := CASE TG_OP WHEN 'INSERT' THEN 1 ELSE -1 END;
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        UPDATE users SET articles_count = 0 WHERE articles_count <> 0;
        UPDATE article_totals SET articles_count = 0;
        RETURN NULL;
    END IF;

    PERFORM FROM users
    WHERE id IN (SELECT author_id FROM changed)
    ORDER BY id FOR NO KEY UPDATE;

    UPDATE users
    SET articles_count = users.articles_count + step * c.n
    FROM (SELECT author_id, count(*) AS n FROM changed GROUP BY author_id) AS c
    WHERE users.id = c.author_id;

    PERFORM FROM article_totals
    WHERE slot IN (SELECT author_id % 16 FROM changed)
    ORDER BY slot FOR NO KEY UPDATE;

    UPDATE article_totals
    SET articles_count = article_totals.articles_count + step * c.n
    FROM (SELECT author_id % 16 AS slot, count(*) AS n FROM changed GROUP BY 1) AS c
    WHERE article_totals.slot = c.slot;

    RETURN NULL;
END
$$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE FUNCTION count_tagged_articles() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    step integer := CASE TG_OP WHEN 'INSERT' THEN 1 ELSE -1 END;
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        UPDATE tags SET articles_count = 0 WHERE articles_count <> 0;
        RETURN NULL;
    END IF;

    PERFORM FROM tags
    WHERE id IN (SELECT tag_id FROM changed)
    ORDER BY id FOR NO KEY UPDATE;

    UPDATE tags
    SET articles_count = tags.articles_count + step * c.n
    FROM (SELECT tag_id, count(*) AS n FROM changed GROUP BY tag_id) AS c
    WHERE tags.id = c.tag_id;

    RETURN NULL;
END
$$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE FUNCTION count_favorites() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    step integer := CASE TG_OP WHEN 'INSERT' THEN 1 ELSE -1 END;
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        UPDATE articles SET favorites_count = 0 WHERE favorites_count <> 0;
        RETURN NULL;
    END IF;

    PERFORM FROM articles
    WHERE id IN (SELECT article_id FROM changed)
    ORDER BY id FOR NO KEY UPDATE;

    UPDATE articles
    SET favorites_count = articles.favorites_count + step * c.n
    FROM (SELECT article_id, count(*) AS n FROM changed GROUP BY article_id) AS c
    WHERE articles.id = c.article_id;

    RETURN NULL;
END
$$;
-- +goose StatementEnd

-- Moving a row from one counter to another is refused rather than counted:
-- nothing in Conduit does it, and an UPDATE trigger with transition tables
-- would run for every update of an article.
-- +goose StatementBegin
CREATE FUNCTION refuse_move() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'a row of % cannot move to another owner', TG_TABLE_NAME
        USING ERRCODE = 'feature_not_supported', HINT = 'Delete the row and insert it anew.';
END
$$;
-- +goose StatementEnd

CREATE TRIGGER articles_count_insert AFTER INSERT ON articles
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION count_articles();
CREATE TRIGGER articles_count_delete AFTER DELETE ON articles
    REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION count_articles();
CREATE TRIGGER articles_count_truncate AFTER TRUNCATE ON articles
    FOR EACH STATEMENT EXECUTE FUNCTION count_articles();
CREATE TRIGGER articles_refuse_move BEFORE UPDATE OF author_id ON articles
    FOR EACH ROW WHEN (OLD.author_id <> NEW.author_id) EXECUTE FUNCTION refuse_move();

CREATE TRIGGER article_tags_count_insert AFTER INSERT ON article_tags
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION count_tagged_articles();
CREATE TRIGGER article_tags_count_delete AFTER DELETE ON article_tags
    REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION count_tagged_articles();
CREATE TRIGGER article_tags_count_truncate AFTER TRUNCATE ON article_tags
    FOR EACH STATEMENT EXECUTE FUNCTION count_tagged_articles();
CREATE TRIGGER article_tags_refuse_move BEFORE UPDATE OF tag_id ON article_tags
    FOR EACH ROW WHEN (OLD.tag_id <> NEW.tag_id) EXECUTE FUNCTION refuse_move();

CREATE TRIGGER favorites_count_insert AFTER INSERT ON favorites
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION count_favorites();
CREATE TRIGGER favorites_count_delete AFTER DELETE ON favorites
    REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION count_favorites();
CREATE TRIGGER favorites_count_truncate AFTER TRUNCATE ON favorites
    FOR EACH STATEMENT EXECUTE FUNCTION count_favorites();
CREATE TRIGGER favorites_refuse_move BEFORE UPDATE OF article_id ON favorites
    FOR EACH ROW WHEN (OLD.article_id <> NEW.article_id) EXECUTE FUNCTION refuse_move();

-- +goose Down

DROP VIEW article_summaries;
DROP TABLE article_totals, follows, favorites, comments, article_tags, tags, articles, users;
DROP FUNCTION count_articles, count_tagged_articles, count_favorites, refuse_move;
