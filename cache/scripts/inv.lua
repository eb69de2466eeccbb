-- inv invalidates a key: it drops value and lease, raises the fence, and announces.
-- KEYS record, meta. ARGV fence, time to live in ms, channel, key.
local meta = redis.call('HMGET', KEYS[2], 'floor', 'd')
if not meta[1] then return false end
local fence = later(later(meta[1], meta[2]), ARGV[1])
local old = redis.call('GETRANGE', KEYS[1], 0, HEADER - 1)
if usable(old) then fence = later(fence, string.sub(old, 3, 10)) end
redis.call('SET', KEYS[1], string.char(VERSION, 0) .. fence .. ZERO .. ZERO, 'PX', ARGV[2])
local n = redis.call('HINCRBY', KEYS[2], 'n', 1)
redis.call('PUBLISH', ARGV[3], 'k' .. pack(n) .. ARGV[4])
return n
