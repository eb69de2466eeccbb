-- tag invalidates all that has a tag: it raises the fence and the number of the tag's slot, and
-- announces.
-- KEYS tags, meta. ARGV fence, slot, channel.
local meta = redis.call('HMGET', KEYS[2], 'floor', 'd')
local size = redis.call('STRLEN', KEYS[1])
if not meta[1] or size == 0 then return false end
local at = ARGV[2] * 16
local fence = later(later(meta[1], meta[2]), ARGV[1])
fence = later(fence, redis.call('GETRANGE', KEYS[1], at, at + 7))
local n = redis.call('HINCRBY', KEYS[2], 'n', 1)
redis.call('SETRANGE', KEYS[1], at, fence .. pack(n))
redis.call('PUBLISH', ARGV[3], 't' .. pack(n) .. fence .. ARGV[2])
return n
