package redisstore_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"pgregory.net/rapid"

	"github.com/loadlinehq/loadline/causal"
	"github.com/loadlinehq/loadline/causal/redisstore"
	"github.com/loadlinehq/loadline/internal/stack"
	"github.com/loadlinehq/loadline/internal/stack/faultproxy"
	"github.com/loadlinehq/loadline/internal/stack/stacktest"
)

func client(t *testing.T, addr string) rueidis.Client {
	t.Helper()
	c, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{addr}, DisableCache: true, ForceSingleClient: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func store(t *testing.T, addr, prefix string, ttl time.Duration) *redisstore.Store {
	t.Helper()
	s, err := redisstore.New(client(t, addr), redisstore.Config{Prefix: prefix, TTL: ttl})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func at(lsn causal.LSN) causal.Token {
	return causal.NewToken(causal.Mark{System: 7, Timeline: 1, LSN: lsn})
}

func want(t *testing.T, s *redisstore.Store, who string, token causal.Token) {
	t.Helper()
	if got, err := s.Load(t.Context(), who); err != nil || !got.Equal(token) {
		t.Errorf("%s: %v, %v, want %v", who, got, err, token)
	}
}

// beside returns a principal whose token is in the same slot as another's, or is not.
func beside(other string, same bool) string {
	slot := func(principal string) byte { return sha256.Sum256([]byte(principal))[0] % 16 }
	for i := 0; ; i++ {
		if who := fmt.Sprint("user", i); (slot(who) == slot(other)) == same {
			return who
		}
	}
}

// all returns the keys that a test has made.
func all(t *testing.T, c rueidis.Client, prefix string) []string {
	t.Helper()
	keys, err := c.Do(t.Context(), c.B().Keys().Pattern(prefix+"*").Build()).AsStrSlice()
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// Keys are spread over a cluster, and name nobody.
func TestKeys(t *testing.T) {
	t.Parallel()
	set := stacktest.New(t)
	addr := strings.TrimPrefix(set.RedisURL, "redis://")
	s := store(t, addr, set.KeyPrefix, time.Minute)
	for i := range 200 {
		if err := s.Save(t.Context(), fmt.Sprintf("ann%d@example.org", i), at(5)); err != nil {
			t.Fatal(err)
		}
	}
	slots := map[string]int{}
	for _, key := range all(t, client(t, addr), set.KeyPrefix) {
		if strings.Contains(key, "ann") || strings.Contains(key, "example") {
			t.Errorf("%s names who it is", key)
		}
		slot, _, ok := strings.Cut(strings.TrimPrefix(key, set.KeyPrefix+"{"), "}:")
		if !ok {
			t.Errorf("%s has no slot", key)
		}
		slots[slot]++
	}
	if len(slots) != 16 {
		t.Errorf("slots: %v", slots)
	}
	want(t, s, "ann7@example.org", at(5).Merge(causal.Unknown())) // the store is new
}

// Redis merges as Token.Merge does.
func TestMergesAsTokens(t *testing.T) {
	t.Parallel()
	set := stacktest.New(t)
	s := store(t, strings.TrimPrefix(set.RedisURL, "redis://"), set.KeyPrefix, time.Minute)
	n := 0
	rapid.Check(t, func(rt *rapid.T) {
		n++
		who := "user" + time.Now().Format(time.RFC3339Nano) + strings.Repeat("x", n%7)
		var model causal.Token
		for range rapid.IntRange(1, 6).Draw(rt, "saves") {
			token := causal.NewToken(causal.Mark{
				System:   rapid.SampledFrom([]uint64{1, 2, 1<<64 - 1}).Draw(rt, "system"),
				Timeline: rapid.Uint32Range(1, 2).Draw(rt, "timeline"),
				LSN:      causal.LSN(rapid.Uint64Range(1, 1<<63+5).Draw(rt, "lsn")),
				Epoch:    rapid.Uint64Range(0, 2).Draw(rt, "epoch"),
				Number:   rapid.Uint64Range(0, 3).Draw(rt, "number"),
			})
			if rapid.IntRange(0, 9).Draw(rt, "incomplete") == 0 {
				token = token.Merge(causal.Unknown())
			}
			model = model.Merge(token)
			if err := s.Save(context.Background(), who, token); err != nil {
				rt.Fatal(err)
			}
		}
		if got, err := s.Load(context.Background(), who); err != nil || !got.Equal(model.Merge(causal.Unknown())) { // the store is new
			rt.Fatalf("%v, %v, want %v", got, err, model)
		}
	})
}

func TestBounded(t *testing.T) {
	t.Parallel()
	set := stacktest.New(t)
	s := store(t, strings.TrimPrefix(set.RedisURL, "redis://"), set.KeyPrefix, time.Minute)
	for system := range uint64(causal.MaxMarks + 3) {
		if err := s.Save(t.Context(), "ann", causal.NewToken(causal.Mark{System: system, Timeline: 1, LSN: 1})); err != nil {
			t.Fatal(err)
		}
	}
	got, err := s.Load(t.Context(), "ann")
	marks := 0
	for range got.Marks() {
		marks++
	}
	if err != nil || !got.Incomplete() || marks != causal.MaxMarks {
		t.Errorf("%d marks, incomplete: %t, %v", marks, got.Incomplete(), err)
	}
}

// A Redis that has lost its tokens, or may lack one, does not pass for one where
// nobody has written.
func TestLostTokens(t *testing.T) {
	t.Parallel()
	set := stacktest.New(t)
	addr := strings.TrimPrefix(set.RedisURL, "redis://")
	_, proxy := stacktest.Proxied(t, set.RedisURL)

	const ttl = 300 * time.Millisecond
	s := store(t, proxy.Addr(), set.KeyPrefix, ttl)
	bob, eve := beside("ann", true), beside("ann", false)
	want(t, s, bob, causal.Unknown()) // what was before is not known
	want(t, s, eve, causal.Unknown())
	time.Sleep(ttl + 10*time.Millisecond)
	want(t, s, bob, causal.Token{})
	if err := s.Save(t.Context(), "ann", at(5)); err != nil {
		t.Fatal(err)
	}
	want(t, s, "ann", at(5))

	raw := client(t, addr)
	if err := raw.Do(t.Context(), raw.B().Del().Key(all(t, raw, set.KeyPrefix)...).Build()).Error(); err != nil {
		t.Fatal(err)
	}
	want(t, s, "ann", causal.Unknown())
	want(t, s, eve, causal.Unknown())
	time.Sleep(ttl + 10*time.Millisecond)
	want(t, s, "ann", causal.Token{})

	if err := proxy.Add("away", faultproxy.Fault{Kind: faultproxy.Stall}); err != nil {
		t.Fatal(err)
	}
	short, stop := context.WithTimeout(t.Context(), 50*time.Millisecond)
	if err := s.Save(short, "ann", at(6)); err == nil {
		t.Error("saved to nowhere")
	}
	if _, err := s.Load(short, "ann"); err == nil { // and nobody is told of that
		t.Error("loaded from nowhere")
	}
	stop()
	if err := proxy.Remove("away"); err != nil {
		t.Fatal(err)
	}
	time.Sleep(ttl + 10*time.Millisecond)
	if err := s.Save(t.Context(), "ann", at(5)); err != nil { // she is there, with less than she has seen
		t.Fatal(err)
	}
	if got, err := s.Load(t.Context(), "ann"); err != nil || !got.Incomplete() {
		t.Errorf("after a failed save, of who has failed: %v, %v", got, err)
	}
	if got, err := s.Load(t.Context(), bob); err != nil || !got.Equal(causal.Unknown()) {
		t.Errorf("after a failed save: %v, %v", got, err)
	}
	// Other instances know of it as well.
	want(t, store(t, addr, set.KeyPrefix, ttl), bob, causal.Unknown())
	// It concerns those in the slot alone.
	want(t, s, eve, causal.Token{})
	time.Sleep(ttl + 10*time.Millisecond)
	want(t, s, bob, causal.Token{}) // it is told once
}

// server starts a Redis of its own, which a test may restart. Its data are in dir.
func server(t *testing.T, dir, port string) (stop func()) {
	t.Helper()
	program, err := stack.FindRedis()
	if err != nil {
		t.Fatal(err)
	}
	redis := exec.Command(program, "--bind", "127.0.0.1", "--port", port, "--dir", dir, "--appendonly", "yes", "--save", "")
	if err := redis.Start(); err != nil {
		t.Fatal(err)
	}
	stop = sync.OnceFunc(func() {
		_ = redis.Process.Signal(syscall.SIGTERM)
		_ = redis.Wait()
	})
	t.Cleanup(stop)
	return stop
}

// A Redis that was started again may have an older snapshot, with the mark that says it
// is complete.
func TestRestart(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("needs a real server; skipped by -short")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	_ = l.Close()
	connect := func(ttl time.Duration) *redisstore.Store {
		for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			c, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{l.Addr().String()}, DisableCache: true, ForceSingleClient: true})
			if err == nil {
				if err = c.Do(t.Context(), c.B().Ping().Build()).Error(); err == nil {
					c.Close()
					return store(t, l.Addr().String(), "", ttl)
				}
				c.Close()
			}
			if time.Now().After(deadline) {
				t.Fatal(err)
			}
		}
	}
	dir, older := t.TempDir(), t.TempDir()
	const ttl = 2 * time.Second
	stop := server(t, dir, port)
	s := connect(ttl)
	want(t, s, "ann", causal.Unknown())
	time.Sleep(ttl + 10*time.Millisecond)
	want(t, s, "ann", causal.Token{})
	stop()
	if err := os.CopyFS(older, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}

	stop = server(t, dir, port)
	s = connect(ttl)
	if err := s.Save(t.Context(), "ann", at(5)); err != nil {
		t.Fatal(err)
	}
	stop()

	server(t, older, port)
	s = connect(ttl)
	want(t, s, "ann", causal.Unknown()) // not: nothing
	time.Sleep(ttl + 10*time.Millisecond)
	want(t, s, "ann", causal.Token{})
}
