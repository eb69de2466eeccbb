-- What everyone sees, in parts, each without the others: a cache that keeps them
-- apart has few entries to end by a write.

-- name: ArticlePart :one
SELECT
    a.id,
    a.slug,
    a.title,
    a.description,
    a.body,
    a.favorites_count,
    a.created_at,
    a.updated_at,
    a.author_id,
    ARRAY(
        SELECT t.name
        FROM article_tags AS at
        JOIN tags AS t ON t.id = at.tag_id
        WHERE at.article_id = a.id
        ORDER BY at.position
    )::text[] AS tag_list
FROM articles AS a
WHERE a.slug = @slug;

-- name: SummaryParts :many
SELECT
    a.id,
    a.slug,
    a.title,
    a.description,
    a.favorites_count,
    a.created_at,
    a.updated_at,
    a.author_id,
    ARRAY(
        SELECT t.name
        FROM article_tags AS at
        JOIN tags AS t ON t.id = at.tag_id
        WHERE at.article_id = a.id
        ORDER BY at.position
    )::text[] AS tag_list
FROM articles AS a
WHERE a.id = ANY (@article_ids::bigint[]);

-- name: ProfileParts :many
SELECT id, username, coalesce(bio, '') AS bio, coalesce(image, '') AS image
FROM users
WHERE id = ANY (@user_ids::bigint[]);

-- Walks comments_article_id_idx. The newest one is shown however long it is.
-- name: CommentParts :many
SELECT c.id, c.body, c.created_at, c.updated_at, c.author_id
FROM (
    SELECT
        n.*,
        sum(octet_length(n.body)) OVER (ORDER BY n.id DESC) - octet_length(n.body) AS bytes_before
    FROM (
        SELECT * FROM comments WHERE article_id = @article_id ORDER BY id DESC LIMIT @page_limit
    ) AS n
) AS c
WHERE c.bytes_before < @max_bytes::bigint
ORDER BY c.id DESC;

-- The tags of an article that is locked.
-- name: TagsOfArticle :many
SELECT t.name
FROM article_tags AS at
JOIN tags AS t ON t.id = at.tag_id
WHERE at.article_id = @article_id
ORDER BY at.position;

-- A change of the name, which is no key of another table's, waits for it.
-- name: LockUsername :one
SELECT username FROM users WHERE id = @id FOR NO KEY UPDATE;

-- The ids that lists.sql finds first.

-- name: ArticleIDs :many
SELECT id FROM articles
ORDER BY id DESC
LIMIT @page_limit OFFSET @page_offset;

-- name: ArticleIDsByTag :many
SELECT article_id FROM article_tags
WHERE tag_id = @tag_id
ORDER BY article_id DESC
LIMIT @page_limit OFFSET @page_offset;

-- name: ArticleIDsByAuthor :many
SELECT a.id FROM articles AS a
WHERE a.author_id = @author_id
    AND (@tag_id::bigint = 0 OR (
        SELECT true FROM article_tags AS at
        WHERE at.tag_id = @tag_id AND at.article_id = a.id
    ))
ORDER BY a.id DESC
LIMIT @page_limit OFFSET @page_offset;

-- name: ArticleIDsFavoritedBy :many
SELECT f.article_id FROM favorites AS f
WHERE f.user_id = @user_id
    AND (@author_id::bigint = 0 OR (
        SELECT a.author_id = @author_id FROM articles AS a
        WHERE a.id = f.article_id
    ))
    AND (@tag_id::bigint = 0 OR (
        SELECT true FROM article_tags AS at
        WHERE at.tag_id = @tag_id AND at.article_id = f.article_id
    ))
ORDER BY f.article_id DESC
LIMIT @page_limit OFFSET @page_offset;

-- name: FeedIDs :many
SELECT newest.id
FROM follows AS f
CROSS JOIN LATERAL (
    SELECT a.id FROM articles AS a
    WHERE a.author_id = f.followee_id
    ORDER BY a.id DESC
    LIMIT @page_depth
) AS newest
WHERE f.follower_id = @follower_id
ORDER BY newest.id DESC
LIMIT @page_limit OFFSET @page_offset;
