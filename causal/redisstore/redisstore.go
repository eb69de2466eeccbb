// Package redisstore keeps causal tokens in Redis, by principal, for applications with
// several instances whose clients keep neither cookie nor header.
//
// Tokens are merged in Redis, by the rules of package causal. A Redis that may have lost
// some, by a restart, a flush or a failover, says so: a key per slot holds since when it is
// complete, and in which process. Until a TTL has passed since then, all tokens are
// incomplete, and their principals read the primary. The same begins anew after a save has
// failed, for the sixteenth of the principals that are in the same slot of a cluster.
//
// Any restart counts, also one that has kept everything by an append-only file, and so does
// any failover, and the move of a slot to another server: Redis does not know whether its
// files were an older snapshot, nor a replica what it has not received. That costs a TTL of
// reads from the primary, and is the safe side. The user that the client connects as needs the
// permission for INFO; a Redis that answers it without run_id is refused.
//
// Keys have a hash of the principal.
//
// It does not help when Redis drops single keys: set maxmemory-policy to noeviction.
// Between a failed save and the next use of the store by the same instance, another
// instance that does reach Redis answers as if nothing had been written.
package redisstore

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
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
	shards [shards]shard
}

// shards is how many slots of a cluster the keys are in, for its servers to share. Guess:
// more than there are servers; each has a doubt of its own after a failed save.
const shards = 16

// shard has the principals whose keys are in one slot.
type shard struct {
	failed atomic.Uint64 // saves, after which the shard is not complete,
	told   atomic.Uint64 // and how many of these Redis has been told of
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

// sinceLua finds whether the store may lack tokens. KEYS[1] holds since when it does not,
// and which process of Redis was told that: another one has what its files or its primary
// had, which may be less. ARGV are the TTL in ms and whether a save has failed.
const sinceLua = `
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local run = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
if not run then
  return redis.error_reply('ERR INFO server has no run_id, so a restart would not be noticed')
end
local since, of = string.match(redis.call('GET', KEYS[1]) or '', '^(%d+) (%x+)$')
if of ~= run or ARGV[2] == '1' then
  since = now
  redis.call('SET', KEYS[1], string.format('%d %s', now, run))
end
local doubt = now - tonumber(since) < tonumber(ARGV[1])
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

// place returns where a principal's token is. Principals may be addresses of people,
// and keys get into logs and backups, so a key has a hash. It hides no principal from who
// can guess it.
func (s *Store) place(principal string) (sh *shard, keys []string) {
	sum := sha256.Sum256([]byte(principal))
	n := sum[0] % shards
	// What is in braces chooses the slot: both keys of a script must be in one.
	prefix := fmt.Sprintf("%s{%d}:", s.c.Prefix, n)
	return &s.shards[n], []string{prefix + "since", prefix + "of:" + hex.EncodeToString(sum[:16])}
}

// args also returns what is to be called when Redis has run the script. Until then the
// failure is told by each script, lest one overtakes the other that tells it.
func (s *Store) args(sh *shard) (args []string, done func()) {
	failed, flag := sh.failed.Load(), "0"
	if failed > sh.told.Load() {
		flag = "1"
	}
	args = []string{strconv.FormatInt(s.c.TTL.Milliseconds(), 10), flag, strconv.Itoa(causal.MaxMarks)}
	return args, func() {
		for told := sh.told.Load(); told < failed && !sh.told.CompareAndSwap(told, failed); told = sh.told.Load() {
		}
	}
}

// Load implements [causal.Store]. Its errors are the client's.
func (s *Store) Load(ctx context.Context, principal string) (causal.Token, error) {
	sh, keys := s.place(principal)
	args, done := s.args(sh)
	reply, err := loadScript.Exec(ctx, s.client, keys, args).ToArray()
	if err != nil {
		return causal.Token{}, fmt.Errorf("redisstore: %w", err)
	}
	done()
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
	sh, keys := s.place(principal)
	args, done := s.args(sh)
	if t.Incomplete() {
		args = append(args, incomplete, "1")
	}
	for m := range t.Marks() {
		args = append(args, fmt.Sprintf("%x/%x", m.System, m.Timeline), fmt.Sprintf("%016x%016x%016x", uint64(m.LSN), m.Epoch, m.Number))
	}
	if err := saveScript.Exec(ctx, s.client, keys, args).Error(); err != nil {
		sh.failed.Add(1)
		return fmt.Errorf("redisstore: %w", err)
	}
	done()
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
