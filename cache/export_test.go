package cache

// WithoutLease has the store fill Redis whoever has the lease by now: what the lease is for.
func (s *Store) WithoutLease() {
	s.redis.scripts.set = newScript(`
local meta = redis.call('HMGET', KEYS[2], 'floor')
if not meta[1] then return false end
local head = redis.call('GETRANGE', KEYS[1], 0, HEADER - 1)
if not usable(head) then head = string.char(VERSION, 0) .. meta[1] .. ZERO .. ZERO end
local time = now()
redis.call('SET', KEYS[1], string.char(VERSION, VALUE) .. string.sub(head, 3, 10) .. ZERO .. ZERO ..
  ARGV[2] .. pack(time + ARGV[3]) .. pack(time + ARGV[4]) .. ARGV[5], 'PX', ARGV[4])
return time + ARGV[3]`)
}

// Suspect has the epoch looked at, as a failed exchange does.
func (s *Store) Suspect() {
	select {
	case s.suspect <- struct{}{}:
	default:
	}
}

// Views is how many views there were.
func (s *Store) Views() uint64 { return s.views.Load() }
