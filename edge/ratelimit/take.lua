-- take lets in all that is asked for, or nothing, and says how far ahead of now each key is then, in microseconds.
-- KEYS of each policy. ARGV of each the cost, and how far ahead a key may be, in microseconds. A number of 2^53 microseconds is
-- in the year 2255.
local time = redis.call('TIME')
local now, tats, ok = time[1] * 1000000 + time[2], {}, 1
for i, key in ipairs(KEYS) do
  tats[i] = math.max(tonumber(redis.call('GET', key) or 0), now)
  if tats[i] + ARGV[2 * i - 1] - now > tonumber(ARGV[2 * i]) then ok = 0 end
end
local answer = { ok }
for i, key in ipairs(KEYS) do
  if ok == 1 then
    tats[i] = tats[i] + ARGV[2 * i - 1]
    redis.call('SET', key, string.format('%.0f', tats[i]), 'PX', math.ceil((tats[i] - now) / 1000) + 1)
  end
  answer[i + 1] = tats[i] - now
end
return answer
