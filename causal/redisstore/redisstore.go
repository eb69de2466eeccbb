// Package redisstore keeps causal tokens in Redis, by principal, for applications with
// several instances whose clients keep neither cookie nor header.
//
// Tokens are merged in Redis, by the rules of package causal. A Redis that has lost its
// data, by a restart, a flush or a failover to an empty server, says so: a key holds since
// when it is complete, and principals that are not found before a TTL has passed are
// [causal.Unknown], and read the primary. The same begins anew after a save has failed.
//
// It does not help when Redis drops single keys: set maxmemory-policy to noeviction.
// Between a failed save and the next use of the store by the same instance, another
// instance that does reach Redis answers as if nothing had been written.
package redisstore

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"github.com/loadlinehq/loadline/causal"
)

// DefaultPrefix begins all keys.
const DefaultPrefix = "causal:"

// Config has a usable zero value.
type Config struct {
	// Prefix begins all keys. Default [DefaultPrefix].
	Prefix string
	// TTL is how long a token is kept, and how long the store is in doubt after it has
	// lost some. Default [causal.DefaultStoreTTL]. When replicas may lag longer, their readers see
	// the past.
	TTL time.Duration
}

// Store is a [causal.Store].
type Store struct {
	client rueidis.Client
	c      Config
	// failed: a save has failed, so the store is not complete.
	failed atomic.Bool
}

var _ causal.Store = (*Store)(nil)

// New returns a store that uses the client, and does not close it.
func New(client rueidis.Client, c Config) (*Store, error) {
	if c.Prefix == "" {
		c.Prefix = DefaultPrefix
	}
	if c.TTL == 0 {
		c.TTL = causal.DefaultStoreTTL
	}
	if c.TTL < time.Millisecond {
		return nil, fmt.Errorf("redisstore: Config.TTL is %v, less than Redis's millisecond", c.TTL)
	}
	return &Store{client: client, c: c}, nil
}

// A token is a hash: a field per log, "system/timeline" in hexadecimal, whose value is
// position, epoch and number in sixteen digits each, so that they compare as text.
const incomplete = "incomplete"

// sinceLua returns whether the store may lack tokens. KEYS[1] holds since when it does
// not; ARGV are the TTL in ms and whether a save has failed.
const sinceLua = `
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local since = redis.call('GET', KEYS[1])
if not since or ARGV[2] == '1' then
  since = now
  redis.call('SET', KEYS[1], now)
end
local doubt = now - since < tonumber(ARGV[1])
`

var (
	loadScript = rueidis.NewLuaScript(sinceLua + `
return {doubt and '1' or '0', redis.call('HGETALL', KEYS[2])}`)

	// saveScript is Token.Add in Redis. ARGV from 4 on are fields and values.
	saveScript = rueidis.NewLuaScript(sinceLua + `
local size = redis.call('HLEN', KEYS[2]) - redis.call('HEXISTS', KEYS[2], 'incomplete')
for i = 4, #ARGV, 2 do
  local field, new = ARGV[i], ARGV[i + 1]
  local old = redis.call('HGET', KEYS[2], field)
  if field == 'incomplete' then
    redis.call('HSET', KEYS[2], field, '1')
  elseif old then
    local zero = string.rep('0', 16)
    local lsn = string.sub(old, 1, 16)
    if string.sub(new, 1, 16) > lsn then lsn = string.sub(new, 1, 16) end
    local epoch, number, other = string.sub(old, 17, 32), string.sub(old, 33), string.sub(new, 33)
    if number == zero or other == zero or epoch ~= string.sub(new, 17, 32) then
      epoch, number = zero, zero
    elseif other > number then
      number = other
    end
    redis.call('HSET', KEYS[2], field, lsn .. epoch .. number)
  elseif size < tonumber(ARGV[3]) then
    redis.call('HSET', KEYS[2], field, new)
    size = size + 1
  else
    redis.call('HSET', KEYS[2], 'incomplete', '1')
  end
end
redis.call('PEXPIRE', KEYS[2], ARGV[1])
return 'OK'`)
)

func (s *Store) keys(principal string) []string {
	// In one slot of a cluster, since the scripts need both.
	return []string{s.c.Prefix + "{tokens}:since", s.c.Prefix + "{tokens}:of:" + principal}
}

func (s *Store) args() (args []string, failed bool) {
	failed = s.failed.Swap(false)
	flag := "0"
	if failed {
		flag = "1"
	}
	return []string{strconv.FormatInt(s.c.TTL.Milliseconds(), 10), flag, strconv.Itoa(causal.MaxMarks)}, failed
}

// Load implements [causal.Store]. Its errors are the client's.
func (s *Store) Load(ctx context.Context, principal string) (causal.Token, error) {
	args, failed := s.args()
	reply, err := loadScript.Exec(ctx, s.client, s.keys(principal), args).ToArray()
	if err != nil {
		if failed {
			s.failed.Store(true)
		}
		return causal.Token{}, fmt.Errorf("redisstore: %w", err)
	}
	if len(reply) != 2 {
		return causal.Token{}, fmt.Errorf("redisstore: %d values instead of 2", len(reply))
	}
	doubt, err1 := reply[0].ToString()
	fields, err2 := reply[1].AsStrMap()
	if err := errors.Join(err1, err2); err != nil {
		return causal.Token{}, fmt.Errorf("redisstore: %w", err)
	}
	t, err := parse(fields)
	if err == nil && doubt == "1" {
		t = t.Merge(causal.Unknown()) // what is there may not be all
	}
	return t, err
}

// Save implements [causal.Store]. Its errors are the client's.
func (s *Store) Save(ctx context.Context, principal string, t causal.Token) error {
	if t.IsZero() {
		return nil
	}
	args, _ := s.args()
	if t.Incomplete() {
		args = append(args, incomplete, "1")
	}
	for m := range t.Marks() {
		args = append(args, fmt.Sprintf("%x/%x", m.System, m.Timeline), fmt.Sprintf("%016x%016x%016x", uint64(m.LSN), m.Epoch, m.Number))
	}
	if err := saveScript.Exec(ctx, s.client, s.keys(principal), args).Error(); err != nil {
		s.failed.Store(true)
		return fmt.Errorf("redisstore: %w", err)
	}
	return nil
}

func parse(fields map[string]string) (causal.Token, error) {
	var t causal.Token
	if _, ok := fields[incomplete]; ok {
		t = causal.Unknown()
	}
	for field, value := range fields {
		if field == incomplete {
			continue
		}
		var m causal.Mark
		var lsn uint64
		if _, err := fmt.Sscanf(field, "%x/%x", &m.System, &m.Timeline); err != nil {
			return causal.Token{}, fmt.Errorf("redisstore: field %.40q: %w", field, err)
		}
		if _, err := fmt.Sscanf(value, "%16x%16x%16x", &lsn, &m.Epoch, &m.Number); err != nil {
			return causal.Token{}, fmt.Errorf("redisstore: value %.60q: %w", value, err)
		}
		m.LSN = causal.LSN(lsn)
		t = t.Add(m)
	}
	return t, nil
}
