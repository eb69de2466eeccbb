-- take answers several questions, one after the other: each is let in by all its keys, or by none. It says of each whether it is, and how
-- far ahead of now each of its keys is then, in microseconds.
-- KEYS of all. ARGV of each question the number of its keys, and of each key the cost, and how far ahead it may be, in microseconds. A
-- number of 2^53 microseconds is in the year 2255.
local time, answer, key, arg, out = redis.call('TIME'), {}, 0, 1, 1
local now = time[1] * 1000000 + time[2]
while key < #KEYS do
  local keys = tonumber(ARGV[arg])
  answer[out] = 1
  for i = 1, keys do
    local is, most = redis.pcall('GET', KEYS[key + i]), tonumber(ARGV[arg + 2 * i])
    local ahead = (type(is) == 'string' and tonumber(is) or now) - now -- what somebody else has put there must not fail the others
    if ahead < 0 then ahead = 0 elseif ahead > most then ahead = most end -- the clock has gone back
    if ahead + ARGV[arg + 2 * i - 1] > most then answer[out] = 0 end
    answer[out + i] = ahead
  end
  for i = 1, keys * answer[out] do
    local ahead = answer[out + i] + ARGV[arg + 2 * i - 1]
    redis.call('PSETEX', KEYS[key + i], math.ceil(ahead / 1000) + 1, string.format('%.0f', now + ahead))
    answer[out + i] = ahead
  end
  key, arg, out = key + keys, arg + 2 * keys + 1, out + keys + 1
end
return answer
