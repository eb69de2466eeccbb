-- Followers are told of an article. The answer is who they are.
-- name: NotifyFollowers :many
INSERT INTO notifications (user_id, kind, actor_id, article_id)
SELECT f.follower_id, 'article', a.author_id, a.id
FROM articles AS a
JOIN follows AS f ON f.followee_id = a.author_id AND f.follower_id <> a.author_id
WHERE a.id = @article_id
RETURNING user_id;

-- An author is told of a comment, unless it is his own. No row: one of them is gone.
-- name: NotifyOfComment :many
INSERT INTO notifications (user_id, kind, actor_id, article_id, comment_id)
SELECT a.author_id, 'comment', c.author_id, a.id, c.id
FROM comments AS c
JOIN articles AS a ON a.id = c.article_id
WHERE c.id = @comment_id AND c.author_id <> a.author_id
RETURNING user_id;

-- An author is told of a favourite, unless it is his own.
-- name: NotifyOfFavorite :many
INSERT INTO notifications (user_id, kind, actor_id, article_id)
SELECT a.author_id, 'favorite', f.user_id, a.id
FROM favorites AS f
JOIN articles AS a ON a.id = f.article_id
WHERE f.article_id = @article_id AND f.user_id = @user_id AND f.user_id <> a.author_id
ON CONFLICT (article_id, actor_id) WHERE kind = 'favorite' DO NOTHING
RETURNING user_id;

-- name: ListNotifications :many
SELECT
    n.id,
    n.kind,
    n.created_at,
    n.read,
    coalesce(n.comment_id, 0)::bigint AS comment_id,
    a.slug                            AS article_slug,
    a.title                           AS article_title,
    n.actor_id,
    u.username                        AS actor_username,
    coalesce(u.bio, '')               AS actor_bio,
    coalesce(u.image, '')             AS actor_image
FROM notifications AS n
JOIN articles AS a ON a.id = n.article_id
JOIN users AS u ON u.id = n.actor_id
WHERE n.user_id = @user_id AND n.id < @before
ORDER BY n.id DESC
LIMIT @page_limit;

-- Up to 100, which is what a bell shows.
-- name: CountUnread :one
SELECT count(*) FROM (SELECT FROM notifications WHERE user_id = @user_id AND NOT read LIMIT 100) AS unread;

-- name: MarkRead :exec
UPDATE notifications SET read = true WHERE user_id = @user_id AND id <= @up_to AND NOT read;

-- One row per article, in ascending order, so that two batches do not deadlock. An article
-- that is being deleted is waited for, and passed over.
-- name: AddViews :exec
WITH known AS (
    SELECT id FROM articles WHERE id = ANY (@article_ids::bigint[]) ORDER BY id FOR KEY SHARE
)
INSERT INTO article_views (article_id, views)
SELECT known.id, v.views
FROM (SELECT unnest(@article_ids::bigint[]) AS id, unnest(@views::bigint[]) AS views) AS v
JOIN known ON known.id = v.id
ORDER BY known.id
ON CONFLICT (article_id) DO UPDATE SET views = article_views.views + excluded.views;

-- name: ArticleViews :one
SELECT coalesce((SELECT views FROM article_views WHERE article_id = a.id), 0)::bigint AS views
FROM articles AS a
WHERE a.slug = @slug;

-- name: CountTags :exec
INSERT INTO tag_days (day, tag, articles)
SELECT @day::date, tag, 1
FROM unnest(@tags::text[]) AS tag
ORDER BY tag
ON CONFLICT (day, tag) DO UPDATE SET articles = tag_days.articles + 1;

-- An empty name is any.
-- name: PopularTags :many
SELECT tag, sum(articles)::bigint AS articles
FROM tag_days
WHERE day >= @since::date AND (@name::text = '' OR tag = @name)
GROUP BY tag
ORDER BY 2 DESC, tag
LIMIT @page_limit;
