-- KEYS[1]: the attempt. ARGV: owner, what to do, ms, answer.
-- Returns 1, or 0 where the owner has lost it.
if redis.call('HGET', KEYS[1], 'owner') ~= ARGV[1] then
	return 0
end
if ARGV[2] == 'release' then
	redis.call('DEL', KEYS[1])
	return 1
end
if ARGV[2] == 'keep' then
	redis.call('HSET', KEYS[1], 'answer', ARGV[4])
	redis.call('HDEL', KEYS[1], 'owner')
end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
