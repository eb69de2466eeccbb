-- name: ArticleIDBySlug :one
SELECT id FROM articles WHERE slug = @slug;

-- Walks comments_article_id_idx. The newest one is shown however long it is.
-- name: ListComments :many
SELECT
    c.id,
    c.body,
    c.created_at,
    c.updated_at,
    c.author_id,
    u.username            AS author_username,
    coalesce(u.bio, '')   AS author_bio,
    coalesce(u.image, '') AS author_image
FROM (
    SELECT
        n.*,
        sum(octet_length(n.body)) OVER (ORDER BY n.id DESC) - octet_length(n.body) AS bytes_before
    FROM (
        SELECT * FROM comments WHERE article_id = @article_id ORDER BY id DESC LIMIT @page_limit
    ) AS n
) AS c
JOIN users AS u ON u.id = c.author_id
WHERE c.bytes_before < @max_bytes::bigint
ORDER BY c.id DESC;

-- name: CommentByID :one
SELECT
    c.id,
    c.body,
    c.created_at,
    c.updated_at,
    c.author_id,
    u.username            AS author_username,
    coalesce(u.bio, '')   AS author_bio,
    coalesce(u.image, '') AS author_image
FROM comments AS c
JOIN users AS u ON u.id = c.author_id
WHERE c.id = @id;

-- No row: there is no such article.
-- name: CreateComment :one
WITH c AS (
    INSERT INTO comments (article_id, author_id, body)
    SELECT a.id, @author_id, @body FROM articles AS a WHERE a.slug = @slug
    RETURNING id, article_id, body, created_at, updated_at, author_id
)
SELECT
    c.id,
    c.article_id,
    c.body,
    c.created_at,
    c.updated_at,
    c.author_id,
    u.username            AS author_username,
    coalesce(u.bio, '')   AS author_bio,
    coalesce(u.image, '') AS author_image
FROM c
JOIN users AS u ON u.id = c.author_id;

-- The answer is what was found, deleted or not; 0 stands for nothing.
-- name: DeleteComment :one
WITH article AS (
    SELECT id FROM articles WHERE slug = @slug
), target AS (
    SELECT c.id, c.author_id
    FROM comments AS c
    JOIN article ON article.id = c.article_id
    WHERE c.id = @id
), gone AS (
    DELETE FROM comments AS c
    USING target
    WHERE c.id = target.id AND c.author_id = @author_id
    RETURNING c.id
)
SELECT
    coalesce((SELECT id FROM article), 0)::bigint       AS article_id,
    coalesce((SELECT author_id FROM target), 0)::bigint AS author_id,
    EXISTS (SELECT FROM gone)                           AS deleted;
