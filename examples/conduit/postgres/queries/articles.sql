-- name: ArticleBySlug :one
SELECT sqlc.embed(s), a.body
FROM articles AS a
JOIN article_summaries AS s ON s.id = a.id
WHERE a.slug = @slug;

-- name: ArticleByID :one
SELECT sqlc.embed(s), a.body
FROM articles AS a
JOIN article_summaries AS s ON s.id = a.id
WHERE a.id = @id;

-- No row: the slug is taken.
-- name: CreateArticle :one
INSERT INTO articles (slug, title, description, body, author_id, created_at, updated_at)
SELECT @slug, @title, @description, @body, @author_id, t.now, t.now
FROM (SELECT clock_timestamp() AS now) AS t -- now() is older than the wait for a tag
ON CONFLICT (slug) DO NOTHING
RETURNING id;

-- The full lock, and not the weaker one of an UPDATE: a new slug is a new key,
-- and to raise the lock later would deadlock with a favourite on its way in.
-- name: LockArticle :one
SELECT id, author_id, title FROM articles WHERE slug = @slug FOR UPDATE;

-- A NULL leaves the column as it is. The article is locked; now() would be older than
-- the wait for that lock, and could go back behind the edit before.
-- name: UpdateArticle :exec
UPDATE articles
SET description = coalesce(sqlc.narg(description), description),
    body        = coalesce(sqlc.narg(body), body),
    updated_at  = greatest(clock_timestamp(), updated_at + interval '1 microsecond')
WHERE id = @id;

-- No row: the slug is taken. To look first avoids waiting for the owner of the
-- slug, who may be waiting for ours; the unique index decides all the same.
-- name: RenameArticle :execrows
UPDATE articles AS a
SET title = @title, slug = @slug
WHERE a.id = @id
    AND NOT EXISTS (SELECT FROM articles AS o WHERE o.slug = @slug AND o.id <> @id);

-- author_id is that of the article found, whether it was deleted or not.
-- name: DeleteArticle :one
WITH target AS (
    SELECT a.id, a.author_id FROM articles AS a WHERE a.slug = @slug
), gone AS (
    DELETE FROM articles AS a
    USING target
    WHERE a.id = target.id AND a.author_id = @author_id
    RETURNING a.id
)
SELECT author_id, EXISTS (SELECT FROM gone) AS deleted FROM target;

-- Sorted, so that two articles that bring the same new tags wait for each
-- other and do not deadlock.
-- name: AddTags :exec
INSERT INTO tags (name)
SELECT name FROM unnest(@names::text[]) AS name
ORDER BY name
ON CONFLICT (name) DO NOTHING;

-- Locks the tags an article has and those it is to have.
-- name: LockTags :exec
SELECT id FROM tags
WHERE id IN (
    SELECT tag_id FROM article_tags WHERE article_id = @article_id
    UNION
    SELECT t.id FROM tags AS t WHERE t.name = ANY (@names::text[])
)
ORDER BY id
FOR NO KEY UPDATE;

-- name: ClearArticleTags :exec
DELETE FROM article_tags WHERE article_id = @article_id;

-- name: SetArticleTags :exec
INSERT INTO article_tags (article_id, position, tag_id)
SELECT @article_id::bigint, given.position - 1, t.id
FROM unnest(@names::text[]) WITH ORDINALITY AS given (name, position)
JOIN tags AS t ON t.name = given.name;

-- name: Favorite :one
WITH article AS (
    SELECT id FROM articles WHERE slug = @slug
), added AS (
    INSERT INTO favorites (user_id, article_id)
    SELECT @user_id, id FROM article
    ON CONFLICT DO NOTHING
    RETURNING article_id
)
SELECT id, EXISTS (SELECT FROM added) AS added FROM article;

-- Locks the article before the favourite: see the triggers.
-- name: Unfavorite :one
WITH article AS (
    SELECT id FROM articles WHERE slug = @slug FOR NO KEY UPDATE
), removed AS (
    DELETE FROM favorites
    USING article
    WHERE user_id = @user_id AND article_id = article.id
)
SELECT id FROM article;
