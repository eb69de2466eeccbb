package cache_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/loadlinehq/loadline/cache"
	"github.com/loadlinehq/loadline/causal"
	"github.com/loadlinehq/loadline/internal/stack/stacktest"
)

// do runs a command on a server, past everything.
func do(t testing.TB, s *stacktest.Redis, command ...string) string {
	t.Helper()
	client, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{s.Address}, DisableCache: true, ForceSingleClient: true})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	result := client.Do(context.Background(), client.B().Arbitrary(command...).Build())
	if err := result.Error(); err != nil {
		t.Fatalf("%v: %v", command, err)
	}
	text, err := result.ToString()
	if err != nil {
		text = ""
	}
	return text
}

// path leads to a server, and can be led to another, or be slow.
type path struct {
	to    atomic.Pointer[stacktest.Redis]
	delay atomic.Int64 // of each answer
}

func (p *path) option() *rueidis.ClientOption {
	return &rueidis.ClientOption{
		InitAddress: []string{"redis:6379"},
		DialCtxFn: func(ctx context.Context, _ string, dialer *net.Dialer, _ *tls.Config) (net.Conn, error) {
			conn, err := dialer.DialContext(ctx, "tcp", p.to.Load().Address)
			if err != nil {
				return nil, err
			}
			return &slowConn{conn, p}, nil
		},
	}
}

type slowConn struct {
	net.Conn
	path *path
}

func (c *slowConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	time.Sleep(time.Duration(c.path.delay.Load()))
	return n, err
}

// A Redis that was promoted has not got the last invalidations. Nothing of what it has is given, by no process and
// at no time, also while the relay, or another process, is still with the old one, which answers as well.
func TestFailover(t *testing.T) {
	t.Parallel()
	first := stacktest.StartRedis(t)
	host, port, _ := net.SplitHostPort(first.Address)
	second := stacktest.StartRedis(t, "--replicaof", host, port)
	for limit := time.Now().Add(20 * time.Second); !strings.Contains(do(t, second, "INFO", "replication"), "master_link_status:up"); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatal("the replica does not come")
		}
	}
	var ofRelay, ofOne, ofTwo path
	for _, p := range []*path{&ofRelay, &ofOne, &ofTwo} {
		p.to.Store(first)
	}
	config := cache.StoreConfig{Redis: ofRelay.option(), Timeout: time.Second, Logger: slog.New(slog.DiscardHandler)}
	f := newFleetOn(t, config)
	f.config.Redis = ofOne.option()
	storeOne := f.process()
	f.config.Redis = ofTwo.option()
	storeTwo := f.process()
	one, two := articles(t, storeOne, cache.Hot()), articles(t, storeTwo, cache.Hot())
	var s source
	get(t, one, &s, "a")
	get(t, two, &s, "a")
	wantLoads(t, &s, 1)
	do(t, first, "WAIT", "1", "5000")
	epoch := f.epoch.Load()

	// The second is promoted, and the first does not know. A write is told to the first, and its row is
	// deleted.
	do(t, second, "REPLICAOF", "NO", "ONE")
	s.now.Store(1)
	session := causal.NewSession(causal.Token{})
	session.Add(at(2000))
	f.lsn.Store(2000)
	if err := storeOne.Invalidate(causal.WithSession(t.Context(), session), one.Key(t.Context(), "a")); err != nil {
		t.Fatal(err)
	}
	if _, err := f.relay.Apply(t.Context(), f.at(2000), [][]byte{one.Key(t.Context(), "a").Record()}); err != nil {
		t.Fatal(err)
	}
	f.until("both have heard", func() bool { return get(t, one, &s, "a") == 1 && get(t, two, &s, "a") == 1 })

	right := func() {
		for name, c := range map[string]*cache.Cache[string, article]{"one": one, "two": two} {
			for _, ctx := range []context.Context{t.Context(), causal.WithSession(t.Context(), causal.NewSession(session.Token()))} {
				if a, err := c.Get(ctx, "a", s.load); err != nil || a.Version != 1 {
					t.Fatalf("process %s: %v, %v", name, a, err)
				}
			}
		}
	}
	move := func(p *path) {
		p.to.Store(second)
		do(t, first, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
		do(t, first, "CLIENT", "KILL", "TYPE", "pubsub")
	}
	lookFor := func(length time.Duration) {
		for end := time.Now().Add(length); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
			right()
		}
	}
	move(&ofOne)
	lookFor(500 * time.Millisecond)
	if storeOne.Active() {
		t.Error("a process takes part in an epoch on a server on which the relay has opened none")
	}
	move(&ofRelay)
	lookFor(time.Second)
	f.until("the relay opens another epoch", func() bool { right(); return f.epoch.Load() != epoch && storeOne.Active() })
	if storeTwo.Active() {
		// It has heard nothing for less than 3 s, and what is told to it goes to the old server. Its sessions'
		// own writes do not count as heard.
		s.now.Store(2)
		f.lsn.Store(3000)
		late := causal.NewSession(causal.NewToken(at(3000)))
		if a, err := two.Get(causal.WithSession(t.Context(), late), "a", s.load); err != nil || a.Version != 2 {
			t.Errorf("%v, %v", a, err)
		}
		s.now.Store(1)
	}
	move(&ofTwo)
	f.until("all take part", func() bool { right(); return storeTwo.Active() })
	loads := s.loads.Load()
	f.until("the cache is warm again", func() bool {
		before := s.loads.Load()
		get(t, one, &s, "a")
		get(t, two, &s, "a")
		return s.loads.Load() == before
	})
	t.Logf("%d loads until it was warm", s.loads.Load()-loads)
}

// Sentinel promotes the replica: the store finds it, and the relay opens an epoch there.
func TestSentinel(t *testing.T) {
	t.Parallel()
	if os.Getenv("LOADLINE_SLOW") == "" {
		t.Skip("slow: set LOADLINE_SLOW=1")
	}
	first := stacktest.StartRedis(t)
	host, port, _ := net.SplitHostPort(first.Address)
	second := stacktest.StartRedis(t, "--replicaof", host, port)
	file := filepath.Join(t.TempDir(), "sentinel.conf")
	settings := fmt.Sprintf("sentinel monitor cache 127.0.0.1 %s 1\nsentinel down-after-milliseconds cache 500\nsentinel failover-timeout cache 3000\n", port)
	if err := os.WriteFile(file, []byte(settings), 0o600); err != nil {
		t.Fatal(err)
	}
	watching := stacktest.StartRedis(t, file, "--sentinel")
	for limit := time.Now().Add(30 * time.Second); !strings.Contains(do(t, watching, "INFO", "sentinel"), "slaves=1"); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatal("Sentinel does not find the replica")
		}
	}
	option := &rueidis.ClientOption{InitAddress: []string{watching.Address}, Sentinel: rueidis.SentinelOption{MasterSet: "cache"}}
	f := newFleetOn(t, cache.StoreConfig{Redis: option, Timeout: time.Second, Logger: slog.New(slog.DiscardHandler)})
	store := f.process()
	c := articles(t, store, cache.Hot())
	var s source
	get(t, c, &s, "a")
	get(t, c, &s, "a")
	wantLoads(t, &s, 1)
	epoch := f.epoch.Load()
	first.Kill()
	s.now.Store(1) // and nobody can be told
	f.until("it is not part of the old epoch", func() bool { return !store.Active() || f.epoch.Load() != epoch })
	for limit := time.Now().Add(60 * time.Second); f.epoch.Load() == epoch || !store.Active(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatal("it does not go on with the replica that was promoted")
		}
	}
	if !strings.Contains(do(t, second, "INFO", "replication"), "role:master") {
		t.Error("the replica was not promoted")
	}
	if got := get(t, c, &s, "a"); got != 1 {
		t.Errorf("version %d", got)
	}
}

// A process that starts while Redis is away serves from the database, and caches when it comes; the relay as well. One
// that Redis refuses does not start.
func TestStartWithoutRedis(t *testing.T) {
	t.Parallel()
	s, p := stacktest.StartRedis(t), &path{}
	p.to.Store(s)
	s.Kill()
	config := cache.StoreConfig{Redis: p.option(), Timeout: time.Second, Logger: slog.New(slog.DiscardHandler)}
	relay, store := open(t, config), open(t, config)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- store.Run(ctx) }()
	c := articles(t, store, cache.Hot())
	var from source
	get(t, c, &from, "a")
	get(t, c, &from, "a")
	wantLoads(t, &from, 2)
	if err := c.Invalidate(t.Context(), "a"); err == nil {
		t.Error("an invalidation that nobody got has no error")
	}
	if _, err := relay.Tick(t.Context(), at(1000)); err == nil {
		t.Error("a tick that nobody got has no error")
	}
	s.Start()
	f := &fleet{t: t}
	now := at(1000)
	f.until("the process takes part", func() bool {
		if epoch, err := relay.Tick(t.Context(), now); err == nil {
			now.Epoch = epoch
		}
		return now.Epoch != 0 && store.Active()
	})
	get(t, c, &from, "a")
	get(t, c, &from, "a")
	wantLoads(t, &from, 3)
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	do(t, s, "CONFIG", "SET", "requirepass", "secret")
	if _, err := cache.OpenStore(t.Context(), config); err == nil || !strings.Contains(err.Error(), "NOAUTH") {
		t.Errorf("without a password: %v", err)
	}
	wrong := p.option()
	wrong.Password = "wrong"
	config.Redis = wrong
	if _, err := cache.OpenStore(t.Context(), config); err == nil || !strings.Contains(err.Error(), "WRONGPASS") {
		t.Errorf("with a wrong password: %v", err)
	}
}

// Whatever becomes of Redis, no reader waits for long, and the database gets no more than MaxLoads at once.
func TestRedisAway(t *testing.T) {
	t.Parallel()
	const timeout = 200 * time.Millisecond // longer than by default, for a machine that does other things
	for name, fault := range map[string]func(s *stacktest.Redis, p *path) (end func()){
		"killed": func(s *stacktest.Redis, _ *path) func() { s.Kill(); return func() { s.Start() } },
		"paused": func(s *stacktest.Redis, _ *path) func() {
			s.Pause()
			return s.Resume
		},
		"slow": func(_ *stacktest.Redis, p *path) func() {
			p.delay.Store(int64(timeout + timeout/2))
			return func() { p.delay.Store(0) }
		},
		"full": func(s *stacktest.Redis, _ *path) func() { // and it evicts all the time
			do(t, s, "CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
			do(t, s, "CONFIG", "SET", "maxmemory", "1mb")
			return func() { do(t, s, "CONFIG", "SET", "maxmemory", "0") }
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, p := stacktest.StartRedis(t), &path{}
			p.to.Store(s)
			f := newFleetOn(t, cache.StoreConfig{Redis: p.option(), Timeout: timeout, MaxLoads: 4, Logger: slog.New(slog.DiscardHandler)})
			store := f.process()
			c, err := cache.New(store, cache.Config[int, int64]{Name: "item", Class: cache.Hot(), MaxBytes: -1}) // each hit needs Redis
			if err != nil {
				t.Fatal(err)
			}
			var now, most, loads atomic.Int64
			load := func(context.Context) (int64, error) {
				loads.Add(1)
				defer now.Add(-1)
				for n, m := now.Add(1), most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
				}
				time.Sleep(time.Millisecond)
				return 7, nil
			}
			read := func(length time.Duration) (took []time.Duration) {
				var mu sync.Mutex
				var wait sync.WaitGroup
				for r := range 16 {
					wait.Go(func() {
						for end := time.Now().Add(length); time.Now().Before(end); time.Sleep(time.Millisecond) {
							began := time.Now()
							if got, err := c.Get(t.Context(), int(began.UnixNano())%50*16+r, load); err != nil || got != 7 {
								t.Errorf("%d, %v", got, err)
							}
							mu.Lock()
							took = append(took, time.Since(began))
							mu.Unlock()
						}
					})
				}
				wait.Wait()
				slices.Sort(took)
				return took
			}
			read(500 * time.Millisecond)
			end := fault(s, p)
			began := read(500 * time.Millisecond)
			var active atomic.Int64
			watched := make(chan struct{})
			go func() {
				defer close(watched)
				for until := time.Now().Add(3 * time.Second); time.Now().Before(until); time.Sleep(time.Millisecond) {
					if store.Active() {
						active.Add(1)
					}
				}
			}()
			during := read(3 * time.Second)
			<-watched
			if n := active.Load(); n > 0 && name != "full" {
				t.Errorf("it was taken part %d times in an epoch of a Redis that is away, or slower than readers wait", n)
			}
			end()
			f.until("the process takes part again", store.Active)
			f.until("there are hits again", func() bool {
				read(300 * time.Millisecond)
				before := loads.Load()
				took := read(100 * time.Millisecond)
				return loads.Load()-before < int64(len(took))/2
			})
			t.Logf("of %d reads in the first half second the slowest took %v; then of %d half took %v, 99 %% %v, all %v; at most %d loads at once", len(began), began[len(began)-1],
				len(during), during[len(during)/2], during[len(during)*99/100], during[len(during)-1], most.Load())
			if most.Load() > 4 {
				t.Errorf("%d loads at once", most.Load())
			}
			// Times of a machine that does other things: a reader that waits for Redis waits for the
			// connection, a second, and for the lease, five.
			if slowest := max(began[len(began)-1], during[len(during)-1]); slowest > 5*time.Second {
				t.Errorf("a reader waited %v", slowest)
			}
			if median := during[len(during)/2]; median > timeout {
				t.Errorf("half of all waited %v for a Redis that was known to be away", median)
			}
		})
	}
}
