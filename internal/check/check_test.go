package check_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/loadlinehq/loadline/internal/check"
	"github.com/loadlinehq/loadline/internal/config"
	"github.com/loadlinehq/loadline/internal/migrate"
	"github.com/loadlinehq/loadline/internal/stack/faultproxy"
	"github.com/loadlinehq/loadline/internal/stack/stacktest"
	"github.com/loadlinehq/loadline/outbox"
)

// find returns what a check of a server has found.
func find(t *testing.T, servers []check.Server, server, name string) check.Finding {
	t.Helper()
	for _, s := range servers {
		for _, f := range s.Findings {
			if s.Name == server && f.Check == name {
				return f
			}
		}
	}
	t.Fatalf("there is no %s of %s in:\n%s", name, server, text(servers))
	return check.Finding{}
}

func want(t *testing.T, servers []check.Server, server, name string, level check.Level, words string) {
	t.Helper()
	f := find(t, servers, server, name)
	if f.Level != level || !strings.Contains(f.Found, words) {
		t.Errorf("%s of %s: got %s, %q; want %s, %q", name, server, f.Level, f.Found, level, words)
	}
	if f.Do == "" && (level == check.Failed || level == check.Warning) {
		t.Errorf("%s of %s does not say what to do: %s", name, server, f.Found)
	}
}

func text(servers []check.Server) string {
	out, _ := json.MarshalIndent(servers, "", " ")
	return string(out)
}

// Real servers that are as they have to be: nothing has failed.
func TestAllWell(t *testing.T) {
	t.Parallel()
	set := stacktest.New(t)
	c := check.Config{
		Primary: set.URL, Replicas: set.ReplicaURLs, Redis: set.RedisURL, NATS: set.NATSURL,
		Instances: 1, PoolConns: 20, ReplicaConns: 20, LagLimit: time.Minute, Timeout: 30 * time.Second,
		Tables:  []check.Tables{{Name: "outbox", Version: 1}, {Name: "inbox", Version: 1}},
		Streams: []check.Stream{{Name: set.StreamPrefix + "EVENTS", MaxBytes: 1 << 20}},
	}
	if _, err := migrate.Up(t.Context(), set.URL, migrate.Set{Name: "outbox", Files: outbox.Migrations}); err != nil {
		t.Fatal(err)
	}
	found := check.Run(t.Context(), c)
	for _, s := range found {
		for _, f := range s.Findings {
			if f.Level == check.Failed {
				t.Errorf("%s of %s has failed: %s", f.Check, s.Name, f.Found)
			}
		}
	}
	want(t, found, "primary", "reachable", check.OK, "PostgreSQL 1")
	want(t, found, "primary", "role", check.OK, "primary")
	want(t, found, "primary", "durability", check.Warning, "fsync is off") // as tests have it
	want(t, found, "primary", "connections", check.OK, "1 instance may open 22")
	want(t, found, "primary", "tables", check.Warning, "not there: inbox")
	want(t, found, "replica-1", "role", check.OK, "standby")
	want(t, found, "replica-2", "lag", check.OK, "behind")
	want(t, found, "redis", "eviction", check.Note, "noeviction")
	want(t, found, "redis", "persistence", check.OK, "append-only file, appendfsync everysec")
	want(t, found, "nats", "account", check.OK, "no limit")
	want(t, found, "nats", "streams", check.Warning, "not there: "+set.StreamPrefix+"EVENTS; they will set aside 1.0 MB")

	c.Instances = 50
	found = check.Run(t.Context(), c)
	want(t, found, "primary", "connections", check.Warning, "50 instances may open 1100")
}

// Addresses that have been mixed up.
func TestWrongRoles(t *testing.T) {
	t.Parallel()
	set := stacktest.New(t)
	found := check.Run(t.Context(), check.Config{Primary: set.URL, Replicas: []string{set.URL}, Timeout: 30 * time.Second})
	want(t, found, "primary", "role", check.OK, "primary")
	want(t, found, "replica-1", "role", check.Failed, "it is a primary")
	found = check.Run(t.Context(), check.Config{Primary: set.ReplicaURLs[0], Timeout: 30 * time.Second})
	want(t, found, "primary", "role", check.Failed, "a standby")
	replica := stacktest.StartRedis(t, "--replicaof", "127.0.0.1 1")
	found = check.Run(t.Context(), check.Config{Redis: "redis://" + replica.Address, Timeout: 30 * time.Second})
	want(t, found, "redis", "role", check.Failed, "a replica of 127.0.0.1:1")
}

// What is right for a cache is not for what must be kept.
func TestRedisSettings(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		args                  []string
		eviction, persistence check.Level
	}{
		"a cache":         {[]string{"--maxmemory", "64mb", "--maxmemory-policy", "allkeys-lru"}, check.Warning, check.Warning},
		"a store":         {[]string{"--maxmemory", "64mb", "--maxmemory-policy", "noeviction", "--appendonly", "yes"}, check.OK, check.OK},
		"neither":         {[]string{"--maxmemory", "64mb", "--maxmemory-policy", "volatile-ttl", "--save", "60 1"}, check.Warning, check.Warning},
		"a managed cache": {[]string{"--rename-command", "CONFIG", ""}, check.Note, check.Note},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			redis := stacktest.StartRedis(t, test.args...)
			found := check.Run(t.Context(), check.Config{Redis: "redis://" + redis.Address, Timeout: 30 * time.Second})
			want(t, found, "redis", "eviction", test.eviction, "")
			want(t, found, "redis", "persistence", test.persistence, "")
		})
	}
}

// broker starts one of the test's own.
func broker(t *testing.T, options server.Options) string {
	t.Helper()
	if testing.Short() {
		t.Skip("starts a server; skipped by -short")
	}
	options.Host, options.Port, options.NoSigs, options.NoLog, options.StoreDir = "127.0.0.1", server.RANDOM_PORT, true, true, t.TempDir()
	s, err := server.NewServer(&options)
	if err != nil {
		t.Fatal(err)
	}
	go s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(30 * time.Second) {
		t.Fatal("the broker is not ready")
	}
	return "nats://" + s.Addr().String()
}

func TestBrokers(t *testing.T) {
	t.Parallel()
	found := check.Run(t.Context(), check.Config{NATS: broker(t, server.Options{}), Timeout: 30 * time.Second})
	want(t, found, "nats", "reachable", check.OK, "NATS 2.")
	want(t, found, "nats", "jetstream", check.Failed, "no JetStream")

	// Several users of whom one has no JetStream, and one has little of it.
	none, little := server.NewAccount("NONE"), server.NewAccount("LITTLE")
	users := []*server.User{{Username: "none", Password: "hunter22", Account: none}, {Username: "little", Password: "hunter22", Account: little}}
	s := broker(t, server.Options{JetStream: true, Accounts: []*server.Account{none, little}, Users: users})
	as := func(user string) string { return strings.Replace(s, "://", "://"+user+":hunter22@", 1) }
	found = check.Run(t.Context(), check.Config{NATS: as("none"), Timeout: 30 * time.Second})
	want(t, found, "nats", "jetstream", check.Failed, "not enabled for this user's account")
	found = check.Run(t.Context(), check.Config{NATS: as("nobody"), Timeout: 30 * time.Second})
	want(t, found, "nats", "reachable", check.Failed, "Authorization Violation")
}

// Servers that are away: the error says it, at once, and of each by itself.
func TestAway(t *testing.T) {
	t.Parallel()
	began := time.Now()
	found := check.Run(t.Context(), check.Config{
		Primary: "postgres://app:hunter22@127.0.0.1:1/app", Replicas: []string{"host=127.0.0.1 port=1 user=app password=hunter22"},
		Redis: "redis://:hunter22@127.0.0.1:1", NATS: "nats://me:hunter22@127.0.0.1:1,nats://127.0.0.1:2", Redact: config.Redact, Timeout: 30 * time.Second,
	})
	for _, s := range []string{"primary", "replica-1", "redis", "nats"} {
		want(t, found, s, "reachable", check.Failed, "nothing listens there")
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
	if all := text(found); strings.Contains(all, "hunter22") {
		t.Errorf("a password is shown:\n%s", all)
	}
	for i, by := range []string{
		"psql 'postgres://app:[redacted]@127.0.0.1:1/app' -c", "psql 'host=127.0.0.1 port=1 user=app password=[redacted]' -c",
		"redis-cli -u 'redis://:[redacted]@127.0.0.1:1' ping", "nats --server 'nats://me:[redacted]@127.0.0.1:1,nats://127.0.0.1:2' server check jetstream",
	} {
		if !strings.HasPrefix(found[i].ByHand, by) {
			t.Errorf("by hand: got %s, want %s", found[i].ByHand, by)
		}
	}
}

func TestNoAddresses(t *testing.T) {
	t.Parallel()
	found := check.Run(t.Context(), check.Config{
		Primary: "app:hunter22@host", Redis: "http://:hunter22@127.0.0.1", NATS: "127.0.0.1:hunter22", Redact: config.Redact,
	})
	for _, s := range []string{"primary", "redis", "nats"} {
		want(t, found, s, "reachable", check.Failed, "not understood")
	}
	if all := text(found); strings.Contains(all, "hunter22") {
		t.Errorf("a password is shown:\n%s", all)
	}
	found = check.Run(t.Context(), check.Config{Primary: "postgres://app@nowhere.invalid/app", Redis: "redis://nowhere.invalid", Timeout: 30 * time.Second})
	for _, s := range []string{"primary", "redis"} {
		f := find(t, found, s, "reachable")
		if f.Level != check.Failed || !strings.Contains(f.Found, "nowhere.invalid") {
			t.Errorf("%s: %+v", s, f)
		}
	}
}

// hanging are addresses of servers that accept connections and say nothing, as a machine that is
// paused does.
func hanging(t *testing.T) check.Config {
	t.Helper()
	set := stacktest.New(t)
	stall := func(url string) string {
		through, proxy := stacktest.Proxied(t, url)
		if err := proxy.Add("paused", faultproxy.Fault{Kind: faultproxy.Stall}); err != nil {
			t.Fatal(err)
		}
		return through
	}
	return check.Config{
		Primary: stall(set.URL), Replicas: []string{stall(set.ReplicaURLs[0]), set.ReplicaURLs[1]},
		Redis: stall(set.RedisURL), NATS: stall(set.NATSURL),
	}
}

// Servers that do not answer take their time and no more, and nothing from the others.
func TestPaused(t *testing.T) {
	t.Parallel()
	c := hanging(t)
	c.Timeout = 2 * time.Second
	began := time.Now()
	found := check.Run(t.Context(), c)
	if took := time.Since(began); took > 8*time.Second {
		t.Errorf("it took %v", took)
	}
	for _, s := range []string{"primary", "replica-1", "redis", "nats"} {
		want(t, found, s, "reachable", check.Failed, "no answer within 2s")
	}
	want(t, found, "replica-2", "role", check.OK, "standby")
}

// A server whose process is stopped when it has been asked.
func TestPausedRedis(t *testing.T) {
	t.Parallel()
	redis := stacktest.StartRedis(t)
	redis.Pause()
	t.Cleanup(redis.Resume)
	found := check.Run(t.Context(), check.Config{Redis: "redis://" + redis.Address, Timeout: time.Second})
	want(t, found, "redis", "reachable", check.Failed, "no answer within 1s")
}

// Another kind of server behind the port.
func TestStrangers(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			fmt.Fprint(conn, "220 mail.example.com ESMTP\r\n")
			_ = conn.Close()
		}
	}()
	at := listener.Addr().String()
	found := check.Run(t.Context(), check.Config{Primary: "postgres://app@" + at + "/app?sslmode=disable", Redis: "redis://" + at, NATS: "nats://" + at, Timeout: 10 * time.Second})
	for _, s := range []string{"primary", "redis", "nats"} {
		want(t, found, s, "reachable", check.Failed, "")
	}
}

// Who has lost patience does not wait for servers that hang.
func TestCancelled(t *testing.T) {
	t.Parallel()
	c := hanging(t)
	c.Timeout = time.Minute
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	began := time.Now()
	check.Run(ctx, c)
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
}
