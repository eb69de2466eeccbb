package check

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"
)

// redisFacts are the answers to INFO and to CONFIG GET; the latter are nil where the server
// does not tell, as managed ones do not.
type redisFacts struct {
	info, settings map[string]string
	took           time.Duration
}

func checkRedis(ctx context.Context, c Config, s *Server) {
	option, err := rueidis.ParseURL(c.Redis)
	if err != nil {
		// Its own words may hold a piece of the password.
		s.add("reachable", Failed, "the URL is not understood", "it is like redis://user:password@127.0.0.1:6379/0")
		return
	}
	s.Address = strings.Join(option.InitAddress, ",")
	s.ByHand = "redis-cli -u " + quote(c.Redact(c.Redis)) + " ping"
	option.ClientName = "loadline-check"
	option.DisableCache, option.DisableRetry = true, true
	option.ForceSingleClient = option.Sentinel.MasterSet == ""
	option.Dialer.Timeout, option.ConnWriteTimeout = c.Timeout, c.Timeout
	// The client bounds what it waits for by itself, and longer than ctx.
	option.DialCtxFn = func(_ context.Context, addr string, d *net.Dialer, t *tls.Config) (net.Conn, error) {
		var conn net.Conn
		var err error
		if t != nil {
			conn, err = (&tls.Dialer{NetDialer: d, Config: t}).DialContext(ctx, "tcp", addr)
		} else {
			conn, err = d.DialContext(ctx, "tcp", addr)
		}
		return endWith(ctx, conn, err)
	}
	began := time.Now()
	client, err := rueidis.NewClient(option)
	if err != nil {
		s.unreachable(ctx, c, err)
		return
	}
	defer client.Close()
	facts, err := askRedis(ctx, client, began)
	if err != nil {
		s.unreachable(ctx, c, err)
		return
	}
	facts.judge(s)
}

// endWith closes a connection when ctx is done, for clients that do not look at it.
func endWith(ctx context.Context, conn net.Conn, err error) (net.Conn, error) {
	if err != nil {
		return nil, err
	}
	context.AfterFunc(ctx, func() { _ = conn.Close() })
	return conn, nil
}

func askRedis(ctx context.Context, client rueidis.Client, began time.Time) (redisFacts, error) {
	var f redisFacts
	if err := client.Do(ctx, client.B().Ping().Build()).Error(); err != nil {
		return f, err
	}
	f.took = time.Since(began)
	text, err := client.Do(ctx, client.B().Info().Build()).ToString()
	if err != nil {
		return f, err
	}
	f.info = make(map[string]string)
	for line := range strings.SplitSeq(text, "\n") {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			f.info[name] = value
		}
	}
	f.settings, err = client.Do(ctx, client.B().ConfigGet().Parameter("save", "appendfsync", "repl-backlog-ttl", "stop-writes-on-bgsave-error").Build()).AsStrMap()
	if _, refused := rueidis.IsRedisErr(err); refused {
		f.settings, err = nil, nil
	}
	return f, err
}

func (f redisFacts) number(name string) int64 {
	n, _ := strconv.ParseInt(f.info[name], 10, 64) // what is not there is 0
	return n
}

func (f redisFacts) judge(s *Server) {
	version := f.info["redis_version"]
	s.add("reachable", OK, fmt.Sprintf("Redis %s, connected in %v", version, f.took.Round(time.Millisecond)), "")
	if major, _, _ := strings.Cut(version, "."); major != "" && len(major) == 1 && major < "7" {
		s.add("version", Failed, "Redis "+version+" is too old: the cache's scripts are refused", "7.0 is needed")
	}
	if f.info["loading"] == "1" {
		s.add("loading", Failed, "it is still loading its data, and answers nothing else", "wait")
	}
	switch {
	case f.info["role"] == "slave":
		s.add("role", Failed, fmt.Sprintf("a replica of %s:%s, where nothing can be written", f.info["master_host"], f.info["master_port"]), "let REDIS_URL lead to the primary, or to Sentinels by ?master_set=NAME")
	case f.info["cluster_enabled"] == "1":
		s.add("role", Note, "a node of a cluster; the others were not asked", "")
	default:
		s.add("role", OK, "primary, with "+f.info["connected_slaves"]+" replicas", "")
	}
	f.judgeEviction(s)
	f.judgePersistence(s)
	f.judgeBacklog(s)
	f.judgeMemory(s)
}

// judgeEviction: what may be dropped is one thing to a cache, and another to a store.
func (f redisFacts) judgeEviction(s *Server) {
	policy, bound := f.info["maxmemory_policy"], f.number("maxmemory")
	found := policy + ", maxmemory " + size(bound)
	switch {
	case bound == 0:
		s.add("eviction", Note, policy+", no maxmemory: it takes what the machine has", "in production set maxmemory, so that its end is an error and not that of the process")
	case policy == "noeviction":
		s.add("eviction", OK, found+": nothing is dropped, as causal/redisstore and edge/redisstore need it. For the cache a full Redis refuses invalidations", "give a cache that fills it a Redis of its own, with allkeys-lru")
	case policy == "allkeys-lru", policy == "allkeys-lfu":
		s.add("eviction", Warning, found+": right for the cache. For causal/redisstore a key that is dropped is a write that its author may not see, and for edge/redisstore a request that may run twice", "give those two a Redis of their own, with noeviction; where there is the cache alone, all is well")
	default:
		s.add("eviction", Warning, found+": it may drop the cache's fences before its values, and what causal/redisstore and edge/redisstore keep", "set maxmemory-policy to noeviction; or, for the cache alone, to allkeys-lru")
	}
}

func (f redisFacts) judgePersistence(s *Server) {
	aof := f.info["aof_enabled"] == "1"
	save, shown := f.settings["save"]
	var ways []string
	if aof {
		way := "append-only file"
		if sync := f.settings["appendfsync"]; sync != "" {
			way += ", appendfsync " + sync
		}
		ways = append(ways, way)
	}
	if save != "" {
		ways = append(ways, "snapshots")
	}
	found := strings.Join(ways, "; ")
	failing := f.info["rdb_last_bgsave_status"] == "err"
	switch {
	case aof && f.info["aof_last_write_status"] == "err":
		s.add("persistence", Failed, "the append-only file cannot be written, and so writes are refused", "look at the disk and the log of the server")
	case failing && f.settings["stop-writes-on-bgsave-error"] != "no" && save != "":
		s.add("persistence", Failed, "the last snapshot has failed, and so writes are refused", "look at the disk and the log of the server")
	case failing:
		s.add("persistence", Warning, "the last snapshot has failed", "look at the disk and the log of the server")
	case len(ways) == 0 && !shown:
		s.add("persistence", Note, "no append-only file; the server does not show whether it takes snapshots", "")
	case len(ways) == 0:
		s.add("persistence", Warning, "none: a restart begins empty. The cache bears that; edge/redisstore forgets which requests have run", "set appendonly to yes, unless it is the cache's alone")
	case !aof:
		s.add("persistence", Warning, found+" alone: a crash loses minutes. The cache bears that; edge/redisstore forgets which requests have run", "set appendonly to yes, unless it is the cache's alone")
	default:
		s.add("persistence", OK, found, "")
	}
}

func (f redisFacts) judgeBacklog(s *Server) {
	switch ttl, shown := f.settings["repl-backlog-ttl"]; {
	case f.settings == nil:
		s.add("repl-backlog-ttl", Note, "the server does not show its settings (CONFIG GET is refused)", "")
	case shown && ttl != "0":
		s.add("repl-backlog-ttl", Note, ttl+" s: when the last replica has been gone for that long, the cache begins anew", "0 would keep it; nothing else depends on it")
	case shown:
		s.add("repl-backlog-ttl", OK, ttl, "")
	}
}

// full is the share from which on a bound is near.
const full = 0.8

func (f redisFacts) judgeMemory(s *Server) {
	used, bound := f.number("used_memory"), f.number("maxmemory")
	found := size(used) + " used"
	if evicted := f.number("evicted_keys"); evicted > 0 {
		found += fmt.Sprintf(", %d keys evicted since its start", evicted)
	}
	switch {
	case bound == 0:
		s.add("memory", OK, found, "")
	case float64(used) > full*float64(bound) && f.info["maxmemory_policy"] == "noeviction":
		s.add("memory", Warning, fmt.Sprintf("%s of %s: when it is full, writes are refused", found, size(bound)), "raise maxmemory, or shorten what is kept")
	default:
		s.add("memory", OK, fmt.Sprintf("%s of %s", found, size(bound)), "")
	}
}
