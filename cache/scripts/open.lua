-- open begins an epoch, unless another has begun one since the opener looked.
-- KEYS open, new meta, new tags. ARGV epoch that was seen, or '', new epoch, floor, system, timeline,
-- bytes of tags.
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[2], 'floor', ARGV[3], 'n', 0, 'd', ZERO, 'system', ARGV[4], 'timeline', ARGV[5])
redis.call('SETRANGE', KEYS[3], ARGV[6] - 1, '\0')
redis.call('SET', KEYS[1], ARGV[2])
return 1
