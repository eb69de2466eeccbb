package check

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// one returns the finding of a check, and fails where there is another number of them.
func one(t *testing.T, s Server, name string) Finding {
	t.Helper()
	var found []Finding
	for _, f := range s.Findings {
		if f.Check == name {
			found = append(found, f)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%s: %+v", name, s.Findings)
	}
	return found[0]
}

// facts are those of a primary that is as it has to be.
func facts() *pgFacts {
	return &pgFacts{
		VersionNumber: 170006, Version: "17.6", System: "1", Position: 5000, User: "app", MayStats: true, RoleLimit: -1, DBLimit: -1,
		MaxConns: 100, Reserved: 3, WALLevel: "replica", MaxSenders: 10, Senders: 1, Fsync: "on", FullPages: "on", SynchronousCommit: "on",
		SynchronousNames: "replica_1", StatementTimeout: "0", IdleInTransaction: "0", HotStandbyFeedback: "on",
	}
}

func TestPrimaries(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		change func(*pgFacts)
		check  string
		level  Level
		words  string
	}{
		"well":                 {func(*pgFacts) {}, "durability", OK, "standbys replica_1"},
		"old":                  {func(f *pgFacts) { f.VersionNumber, f.Version = 130000, "13.0" }, "version", Failed, "13.0"},
		"read only":            {func(f *pgFacts) { f.ReadOnly = true }, "role", Failed, "read-only"},
		"superuser":            {func(f *pgFacts) { f.Superuser = true }, "rights", Warning, "superuser"},
		"no statistics":        {func(f *pgFacts) { f.MayStats = false }, "rights", Warning, "statistics"},
		"no fsync":             {func(f *pgFacts) { f.Fsync = "off" }, "durability", Warning, "fsync"},
		"torn pages":           {func(f *pgFacts) { f.FullPages = "off" }, "durability", Warning, "full_page_writes"},
		"asynchronous":         {func(f *pgFacts) { f.SynchronousCommit = "off" }, "durability", Warning, "loses what was acknowledged"},
		"no standby is waited": {func(f *pgFacts) { f.SynchronousNames = "" }, "durability", Note, "no synchronous standby"},
		"no replication":       {func(f *pgFacts) { f.WALLevel = "minimal" }, "replication", Failed, "no replica can follow"},
		"nobody streams":       {func(f *pgFacts) { f.Senders = 0 }, "replication", Warning, "1 replicas are configured"},
		"limit of the role":    {func(f *pgFacts) { f.RoleLimit = 10 }, "connections", Warning, "of 10; 2 instances may open 44"},
		"others have them":     {func(f *pgFacts) { f.Used = 60 }, "connections", Warning, "60 in use of 97; 2 instances may open 44"},
		"limit of the base":    {func(f *pgFacts) { f.DBLimit = 10 }, "connections", Warning, "of 10;"},
		"superusers have none": {func(f *pgFacts) { f.Superuser, f.RoleLimit = true, 10 }, "connections", OK, "of 97"},
		"a timeout":            {func(f *pgFacts) { f.StatementTimeout = "5s" }, "timeouts", Note, "statement 5s, idle in transaction none"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := &postgres{said: facts()}
			test.change(p.said)
			p.judge(Config{Replicas: []string{"one"}, Instances: 2, PoolConns: 20}, []*postgres{p})
			if f := one(t, p.server, test.check); f.Level != test.level || !strings.Contains(f.Found, test.words) {
				t.Errorf("got %+v", f)
			}
		})
	}
}

func TestReplicas(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		change func(primary, replica *pgFacts)
		check  string
		level  Level
		words  string
	}{
		"well":         {func(_, _ *pgFacts) {}, "lag", OK, "0 B behind"},
		"ahead of us":  {func(_, r *pgFacts) { r.Position = 6000 }, "lag", OK, "0 B behind"},
		"a bit behind": {func(_, r *pgFacts) { r.Position, r.Age = 4000, 0.5 }, "lag", OK, "1.0 kB behind, its last transaction is 500ms old"},
		"far behind":   {func(_, r *pgFacts) { r.Position, r.Age = 4000, 60 }, "lag", Warning, "more than 30s"},
		"idle":         {func(_, r *pgFacts) { r.Age = 3600 }, "lag", OK, "0 B behind"},
		// What it has received it has replayed; that it receives nothing is seen by the primary's position alone.
		"cut off":        {func(p, r *pgFacts) { p.Position, r.Received, r.Age = 9000, 5000, 60 }, "lag", Warning, "4.0 kB behind"},
		"no stream":      {func(_, r *pgFacts) { r.Receivers = 0 }, "lag", Warning, "does not stream"},
		"a stranger":     {func(_, r *pgFacts) { r.System = "2" }, "origin", Failed, "another primary"},
		"no feedback":    {func(_, r *pgFacts) { r.HotStandbyFeedback = "off" }, "conflicts", Note, "hot_standby_feedback"},
		"no standby":     {func(_, r *pgFacts) { r.Standby = false }, "role", Failed, "it is a primary"},
		"few may come":   {func(_, r *pgFacts) { r.MaxConns = 20 }, "connections", Warning, "may open 41"},
		"a poor primary": {func(p, r *pgFacts) { p.Standby, r.Received, r.Position, r.Age = true, 5100, 5000, 1 }, "lag", OK, "100 B behind"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			primary, replica := &postgres{said: facts()}, &postgres{said: facts(), replica: true}
			replica.said.Standby, replica.said.Receivers, replica.said.Received = true, 1, 5000
			test.change(primary.said, replica.said)
			replica.judge(Config{Instances: 1, ReplicaConns: 40, LagLimit: 30 * time.Second}, []*postgres{primary, replica})
			if f := one(t, replica.server, test.check); f.Level != test.level || !strings.Contains(f.Found, test.words) {
				t.Errorf("got %+v", f)
			}
		})
	}
}

func TestRedisThatFails(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		info, settings map[string]string
		check          string
		level          Level
	}{
		"log not written":      {map[string]string{"aof_enabled": "1", "aof_last_write_status": "err"}, nil, "persistence", Failed},
		"snapshot failed":      {map[string]string{"rdb_last_bgsave_status": "err"}, map[string]string{"save": "60 1"}, "persistence", Failed},
		"snapshot failed, yet": {map[string]string{"rdb_last_bgsave_status": "err"}, map[string]string{"save": "60 1", "stop-writes-on-bgsave-error": "no"}, "persistence", Warning},
		"old":                  {map[string]string{"redis_version": "6.2.1"}, nil, "version", Failed},
		"loading":              {map[string]string{"loading": "1"}, nil, "loading", Failed},
		"full":                 {map[string]string{"maxmemory": "100", "used_memory": "90", "maxmemory_policy": "noeviction"}, nil, "memory", Warning},
		"full, as a cache is":  {map[string]string{"maxmemory": "100", "used_memory": "99", "maxmemory_policy": "allkeys-lru"}, nil, "memory", OK},
		"a cluster":            {map[string]string{"cluster_enabled": "1"}, nil, "role", Note},
		"backlog":              {nil, map[string]string{"repl-backlog-ttl": "0"}, "repl-backlog-ttl", OK},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var s Server
			redisFacts{info: test.info, settings: test.settings}.judge(&s)
			if f := one(t, s, test.check); f.Level != test.level {
				t.Errorf("got %+v", f)
			}
		})
	}
}

func TestAccountsAndStreams(t *testing.T) {
	t.Parallel()
	unlimited := jetstream.AccountLimits{MaxMemory: -1, MaxStore: -1, MaxStreams: -1, MaxConsumers: -1}
	limited := unlimited
	limited.MaxStore = 1000
	few := unlimited
	few.MaxStreams = 1
	stream := func(bytes uint64, change func(*jetstream.StreamConfig)) map[string]*jetstream.StreamInfo {
		c := jetstream.StreamConfig{Name: "EVENTS", MaxBytes: 1000, Discard: jetstream.DiscardNew, Storage: jetstream.FileStorage, Replicas: 1}
		change(&c)
		return map[string]*jetstream.StreamInfo{"EVENTS": {Config: c, State: jetstream.StreamState{Bytes: bytes}}}
	}
	same := func(*jetstream.StreamConfig) {}
	for name, test := range map[string]struct {
		b     broker
		check string
		level Level
		words string
	}{
		"no limits":        {broker{account: &jetstream.AccountInfo{Tier: jetstream.Tier{Limits: unlimited}}}, "streams", Warning, "not there: EVENTS"},
		"no room":          {broker{account: &jetstream.AccountInfo{Tier: jetstream.Tier{Limits: limited, ReservedStore: 600}}}, "streams", Failed, "and the account has 400 B"},
		"too many streams": {broker{account: &jetstream.AccountInfo{Tier: jetstream.Tier{Limits: few, Streams: 1}}}, "streams", Failed, "may have 1 streams"},
		"nearly full":      {broker{account: &jetstream.AccountInfo{Tier: jetstream.Tier{Limits: limited, Store: 900}}}, "account", Warning, "900 B of 1.0 kB"},
		"by tiers":         {broker{account: &jetstream.AccountInfo{Tiers: map[string]jetstream.Tier{"R1": {}}}}, "account", Note, "by number of replicas"},
		"a stream":         {broker{streams: stream(100, same)}, "stream EVENTS", OK, "100 B of 1.0 kB"},
		"a full stream":    {broker{streams: stream(900, same)}, "stream EVENTS", Warning, "publishing is refused"},
		"in memory":        {broker{streams: stream(1, func(c *jetstream.StreamConfig) { c.Storage = jetstream.MemoryStorage })}, "stream EVENTS", Warning, "in memory"},
		"alone in a crowd": {broker{cluster: "c", streams: stream(1, same)}, "stream EVENTS", Warning, "away when its server is"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if test.b.account == nil {
				test.b.account = &jetstream.AccountInfo{Tier: jetstream.Tier{Limits: unlimited}}
			}
			var s Server
			test.b.judge(&s, []Stream{{Name: "EVENTS", MaxBytes: 500}})
			if f := one(t, s, test.check); f.Level != test.level || !strings.Contains(f.Found, test.words) {
				t.Errorf("got %+v", f)
			}
		})
	}
}

func TestExplainRedis(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"LOADING Redis is loading the dataset in memory":               "wait",
		"NOPERM User app has no permissions to run the 'info' command": "PING, INFO and CONFIG GET",
	} {
		if _, do := explain(t.Context(), errors.New(text)); !strings.Contains(do, want) {
			t.Errorf("%s: %s", text, do)
		}
	}
}

func TestByHand(t *testing.T) {
	t.Parallel()
	if got, want := natsCommand("nats://h", []string{"--creds", "/a b/c"}), "nats --server nats://h --creds '/a b/c' server check jetstream"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	for dsn, want := range map[string]string{
		"postgres://app@h/app?sslmode=disable":                  "'postgres://app@h/app?sslmode=disable'",
		"postgres://app@h/app?pool_max_conns=4&sslmode=disable": "'postgres://app@h/app?sslmode=disable'",
		"host=h user=it's": `'host=h user=it'\''s'`,
		"postgres://app@h/app?default_query_exec_mode=simple_query": "postgres://app@h/app",
	} {
		if got := quote(libpq(dsn)); got != want {
			t.Errorf("%s: got %s, want %s", dsn, got, want)
		}
	}
	for n, want := range map[int64]string{0: "0 B", 999: "999 B", 1000: "1.0 kB", 999_999: "1.0 MB", 1 << 30: "1.1 GB", 5e15: "5000.0 TB"} {
		if got := size(n); got != want {
			t.Errorf("%d: got %s, want %s", n, got, want)
		}
	}
}
