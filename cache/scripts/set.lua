-- set stores a value for who has the lease. It returns the soft end if it did, 0 if the lease is gone, and 1 if a
-- tag was invalidated meanwhile, or has a fence past what the value was read at: the record's fence is
-- raised to it, and the lease ends.
-- KEYS record, meta, tags. ARGV token, asOf, soft and hard end in ms from now, the rest of the value,
-- what it was read at, time to live in ms, slots of its tags.
if redis.call('EXISTS', KEYS[2], KEYS[3]) < 2 then return false end
local head = redis.call('GETRANGE', KEYS[1], 0, HEADER - 1)
if not usable(head) or string.sub(head, 11, 18) ~= ARGV[1] then return 0 end
local fence, wanted, during = string.sub(head, 3, 10), ARGV[6], false
for i = 8, #ARGV do
  local tag = redis.call('GETRANGE', KEYS[3], ARGV[i] * 16, ARGV[i] * 16 + 15)
  during = during or number(tag, 9) > number(ARGV[2], 1)
  wanted = later(wanted, string.sub(tag, 1, 8))
end
local time, ttl = now(), tonumber(ARGV[7])
if during or wanted ~= ARGV[6] then
  redis.call('SET', KEYS[1], string.char(VERSION, 0) .. later(fence, wanted) .. ZERO .. ZERO, 'PX', ttl)
  return 1
end
redis.call('SET', KEYS[1], string.char(VERSION, VALUE) .. fence .. ZERO .. ZERO ..
  ARGV[2] .. pack(time + ARGV[3]) .. pack(time + ARGV[4]) .. ARGV[5], 'PX', math.max(ttl, tonumber(ARGV[4])))
return time + ARGV[3]
