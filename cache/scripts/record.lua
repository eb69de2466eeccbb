-- What all scripts share. A record is
--   version flags fence(8) token(8) leaseUntil(8) [asOf(8) soft(8) hard(8) schema(4) ...]
-- with numbers in big-endian order. Numbers of Lua are exact up to 2^53: log positions, which
-- may be larger, are compared in halves.
local VERSION, VALUE, HEADER = 1, 1, 26
local ZERO = string.rep('\0', 8)

local function number(s, at)
  local hi, lo = struct.unpack('>I4I4', string.sub(s, at, at + 7))
  return hi * 4294967296 + lo
end

local function pack(n)
  return struct.pack('>I4I4', math.floor(n / 4294967296), n % 4294967296)
end

local function later(a, b)
  local ahi, alo = struct.unpack('>I4I4', a)
  local bhi, blo = struct.unpack('>I4I4', b)
  if ahi > bhi or ahi == bhi and alo > blo then return a end
  return b
end

local function now()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

local function usable(r)
  return #r >= HEADER and string.byte(r, 1) == VERSION
end
