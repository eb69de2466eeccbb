-- Every list finds the ids of its page first, on one index, and joins the rest
-- to that page: the offset then costs index entries and not rows.
--
-- What further narrows a list is asked of each entry by a scalar subquery. An
-- EXISTS or a join the planner may turn round, and read all articles of a
-- popular tag to find the few by one author.

-- name: CountArticles :one
SELECT sum(articles_count)::bigint FROM article_totals;

-- Walks articles_pkey backward.
-- name: ListArticles :many
SELECT s.*
FROM (
    SELECT id FROM articles
    ORDER BY id DESC
    LIMIT @page_limit OFFSET @page_offset
) AS page
JOIN article_summaries AS s ON s.id = page.id
ORDER BY s.id DESC;

-- name: TagByName :one
SELECT id, articles_count FROM tags WHERE name = @name;

-- Walks article_tags_tag_id_key.
-- name: ListArticlesByTag :many
SELECT s.*
FROM (
    SELECT article_id AS id FROM article_tags
    WHERE tag_id = @tag_id
    ORDER BY article_id DESC
    LIMIT @page_limit OFFSET @page_offset
) AS page
JOIN article_summaries AS s ON s.id = page.id
ORDER BY s.id DESC;

-- Walks articles_author_id_idx. A tag_id of 0 stands for any tag.
-- name: ListArticlesByAuthor :many
SELECT s.*
FROM (
    SELECT a.id FROM articles AS a
    WHERE a.author_id = @author_id
        AND (@tag_id::bigint = 0 OR (
            SELECT true FROM article_tags AS at
            WHERE at.tag_id = @tag_id AND at.article_id = a.id
        ))
    ORDER BY a.id DESC
    LIMIT @page_limit OFFSET @page_offset
) AS page
JOIN article_summaries AS s ON s.id = page.id
ORDER BY s.id DESC;

-- Bounded by what one author wrote; without a tag, a counter has the answer.
-- name: CountArticlesByAuthorAndTag :one
SELECT count(*)
FROM articles AS a
WHERE a.author_id = @author_id
    AND (
        SELECT true FROM article_tags AS at
        WHERE at.tag_id = @tag_id AND at.article_id = a.id
    );

-- Walks favorites_pkey of one user backward. 0 stands for any author or tag.
-- name: ListArticlesFavoritedBy :many
SELECT s.*
FROM (
    SELECT f.article_id AS id FROM favorites AS f
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
    LIMIT @page_limit OFFSET @page_offset
) AS page
JOIN article_summaries AS s ON s.id = page.id
ORDER BY s.id DESC;

-- Bounded by what one user clicked.
-- name: CountArticlesFavoritedBy :one
SELECT count(*)
FROM favorites AS f
WHERE f.user_id = @user_id
    AND (@author_id::bigint = 0 OR (
        SELECT a.author_id = @author_id FROM articles AS a
        WHERE a.id = f.article_id
    ))
    AND (@tag_id::bigint = 0 OR (
        SELECT true FROM article_tags AS at
        WHERE at.tag_id = @tag_id AND at.article_id = f.article_id
    ));

-- Takes the newest articles of each followee from articles_author_id_idx and
-- merges them: the cost grows with the followees and the page's depth, and not
-- with all that the followees ever wrote. page_depth is page_limit + page_offset.
-- name: ListFeed :many
SELECT s.*
FROM (
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
    LIMIT @page_limit OFFSET @page_offset
) AS page
JOIN article_summaries AS s ON s.id = page.id
ORDER BY s.id DESC;

-- name: CountFeed :one
SELECT coalesce(sum(u.articles_count), 0)::bigint
FROM follows AS f
JOIN users AS u ON u.id = f.followee_id
WHERE f.follower_id = @follower_id;

-- Sorts the tags in use; the table is as long as the vocabulary, not the list
-- of articles.
-- name: ListTags :many
SELECT name FROM tags
WHERE articles_count > 0
ORDER BY articles_count DESC, name
LIMIT @page_limit;

-- What one viewer thinks of a page: which of these articles they have
-- favourited and which of these users they follow. It probes an index for each
-- id, however much the viewer has ever marked.
-- name: Marks :one
SELECT
    ARRAY(
        SELECT page.id FROM unnest(@article_ids::bigint[]) AS page (id)
        WHERE (
            SELECT true FROM favorites
            WHERE favorites.user_id = @viewer_id AND favorites.article_id = page.id
        )
    )::bigint[] AS favorited,
    ARRAY(
        SELECT page.id FROM unnest(@user_ids::bigint[]) AS page (id)
        WHERE (
            SELECT true FROM follows
            WHERE follows.follower_id = @viewer_id AND follows.followee_id = page.id
        )
    )::bigint[] AS following;
