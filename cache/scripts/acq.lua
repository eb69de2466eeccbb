-- acq returns a value that is fresh, or gives the lease to fill it, or says that another has it.
-- KEYS record, meta. ARGV token, lease in ms, schema, time to live in ms, soft end of a value that
-- does not count, or ''.
local meta = redis.call('HMGET', KEYS[2], 'floor', 'd', 'n')
if not meta[1] then return false end
local r = redis.call('GET', KEYS[1])
local time, fence, value = now(), later(meta[1], meta[2]), ''
if r and usable(r) then
  fence = string.sub(r, 3, 10)
  if string.byte(r, 2) == VALUE then
    local soft = string.sub(r, HEADER + 9, HEADER + 16)
    if string.sub(r, HEADER + 25, HEADER + 28) == ARGV[3] and soft ~= ARGV[5] and time < number(soft, 1) then
      return { 'value', r }
    end
    value = string.sub(r, HEADER + 1)
  end
  local left = number(r, 19) - time
  if string.sub(r, 11, 18) ~= ZERO and left > 0 then
    return { 'wait', fence, left }
  end
end
local flags, ttl = 0, tonumber(ARGV[4])
if value ~= '' then
  flags, ttl = VALUE, math.max(ttl, number(value, 17) - time)
end
redis.call('SET', KEYS[1], string.char(VERSION, flags) .. fence .. ARGV[1] .. pack(time + ARGV[2]) .. value, 'PX', ttl)
return { 'lease', fence, tonumber(meta[3]) }
