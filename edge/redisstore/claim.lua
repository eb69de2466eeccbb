-- KEYS[1]: the attempt. ARGV: fingerprint, owner, lease in ms.
-- Returns {'new'}, {'busy'}, {'reused'} or {'done', answer}.
local record = redis.call('HMGET', KEYS[1], 'fingerprint', 'answer')
if not record[1] then
	redis.call('HSET', KEYS[1], 'fingerprint', ARGV[1], 'owner', ARGV[2])
	redis.call('PEXPIRE', KEYS[1], ARGV[3])
	return {'new'}
end
if record[1] ~= ARGV[1] then
	return {'reused'}
end
if record[2] then
	return {'done', record[2]}
end
return {'busy'}
