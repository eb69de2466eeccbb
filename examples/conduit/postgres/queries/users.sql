-- name: CreateUser :one
INSERT INTO users (username, email, password_hash)
VALUES (@username, @email, @password_hash)
RETURNING *;

-- name: UserByID :one
SELECT * FROM users WHERE id = @id;

-- name: UserByEmail :one
SELECT * FROM users WHERE lower(email) = lower(@email);

-- A NULL leaves the column as it is. The texts a user may take away again are
-- NULL when they are empty.
-- name: UpdateUser :one
UPDATE users
SET username      = coalesce(sqlc.narg(username), username),
    email         = coalesce(sqlc.narg(email), email),
    password_hash = coalesce(sqlc.narg(password_hash), password_hash),
    bio           = nullif(coalesce(sqlc.narg(bio), bio), ''),
    image         = nullif(coalesce(sqlc.narg(image), image), ''),
    updated_at    = greatest(clock_timestamp(), updated_at + interval '1 microsecond')
WHERE id = @id
RETURNING *;

-- name: ProfileByUsername :one
SELECT
    id,
    username,
    coalesce(bio, '')   AS bio,
    coalesce(image, '') AS image,
    articles_count
FROM users
WHERE lower(username) = lower(@username);

-- name: Follow :one
WITH followee AS (
    SELECT id, username, coalesce(bio, '') AS bio, coalesce(image, '') AS image
    FROM users
    WHERE lower(username) = lower(@username)
), added AS (
    INSERT INTO follows (follower_id, followee_id)
    SELECT @follower_id, id FROM followee
    ON CONFLICT DO NOTHING
)
SELECT * FROM followee;

-- name: Unfollow :one
WITH followee AS (
    SELECT id, username, coalesce(bio, '') AS bio, coalesce(image, '') AS image
    FROM users
    WHERE lower(username) = lower(@username)
), removed AS (
    DELETE FROM follows
    USING followee
    WHERE follower_id = @follower_id AND followee_id = followee.id
)
SELECT * FROM followee;
