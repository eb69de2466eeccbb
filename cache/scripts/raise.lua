-- raise raises the fence of absent records.
-- KEYS meta. ARGV fence.
local floor = redis.call('HGET', KEYS[1], 'floor')
if not floor then return false end
redis.call('HSET', KEYS[1], 'floor', later(floor, ARGV[1]))
return 1
