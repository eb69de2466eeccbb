-- release gives a lease back without a value.
-- KEYS record. ARGV token.
local head = redis.call('GETRANGE', KEYS[1], 0, HEADER - 1)
if usable(head) and string.sub(head, 11, 18) == ARGV[1] then
  redis.call('SETRANGE', KEYS[1], 10, ZERO .. ZERO)
end
return 0
