-- drained says that every invalidation of a commit up to a position has been applied.
-- KEYS meta, tags. ARGV position, channel.
local d = redis.call('HGET', KEYS[1], 'd')
if not d then return false end
-- Read, so that Redis, when it has to, drops others first.
if redis.call('GETRANGE', KEYS[2], 0, 0) == '' then return false end
d = later(d, ARGV[1])
redis.call('HSET', KEYS[1], 'd', d)
local n = redis.call('HINCRBY', KEYS[1], 'n', 1)
redis.call('PUBLISH', ARGV[2], 'd' .. pack(n) .. d)
return n
