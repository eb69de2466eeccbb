-- take lets in all that is asked for, or nothing, and says how far ahead of now each key is then, in microseconds.
-- KEYS of each policy. ARGV of each the cost, and how far ahead a key may be, in microseconds. A number of 2^53 microseconds is
-- in the year 2255.
local time = redis.call('TIME')
local now, answer = time[1] * 1000000 + time[2], { 1 }
for i = 1, #KEYS do
  local ahead, most = (redis.call('GET', KEYS[i]) or now) - now, tonumber(ARGV[2 * i])
  if ahead < 0 then ahead = 0 elseif ahead > most then ahead = most end -- the clock has gone back
  if ahead + ARGV[2 * i - 1] > most then answer[1] = 0 end
  answer[i + 1] = ahead
end
if answer[1] == 0 then return answer end
for i = 1, #KEYS do
  local ahead = answer[i + 1] + ARGV[2 * i - 1]
  redis.call('PSETEX', KEYS[i], math.ceil(ahead / 1000) + 1, string.format('%.0f', now + ahead))
  answer[i + 1] = ahead
end
return answer
