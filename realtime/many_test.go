package realtime_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/redis/rueidis"

	"github.com/loadlinehq/loadline/internal/stack/stacktest"
	"github.com/loadlinehq/loadline/realtime"
)

// plain is a client of little memory, which comes back with full jitter.
type plain struct {
	url    func() string
	offset uint64
	epoch  string
	heard  atomic.Int64 // the number of the latest publication
	gaps   atomic.Int64
	lost   atomic.Int64
	online atomic.Bool
}

func (p *plain) run(ctx context.Context, channel string) {
	for tries := 0; ctx.Err() == nil; tries++ {
		if p.once(ctx, channel) {
			tries = 0
		}
		p.online.Store(false)
		select {
		case <-time.After(time.Duration(rand.Float64() * float64(min(2*time.Second, 100*time.Millisecond<<min(tries, 5))))):
		case <-ctx.Done():
		}
	}
}

// once reports whether it was connected.
func (p *plain) once(ctx context.Context, channel string) bool {
	conn, response, err := websocket.DefaultDialer.DialContext(ctx, "ws"+strings.TrimPrefix(p.url(), "http")+"/rt/websocket", as("ann", ""))
	if response != nil {
		_ = response.Body.Close()
	}
	if err != nil {
		return false
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	subscribe := fmt.Sprintf(`{"id":1,"connect":{}}`+"\n"+`{"id":2,"subscribe":{"channel":%q,"recover":%t,"offset":%d,"epoch":%q}}`, channel, p.epoch != "", p.offset, p.epoch)
	if conn.WriteMessage(websocket.TextMessage, []byte(subscribe)) != nil {
		return false
	}
	for {
		_, text, err := conn.ReadMessage()
		if err != nil {
			return true
		}
		for line := range strings.SplitSeq(string(text), "\n") {
			if line == "{}" {
				_ = conn.WriteMessage(websocket.TextMessage, []byte("{}"))
				continue
			}
			p.take(line)
		}
	}
}

type told struct {
	Data   json.RawMessage
	Offset uint64
}

// number is what the data begins with.
func (t told) number() (n int64) {
	for _, digit := range bytes.TrimPrefix(t.Data, []byte(`"`)) {
		if digit < '0' || digit > '9' {
			break
		}
		n = 10*n + int64(digit-'0')
	}
	return n
}

// visit listens until leave is called, which reports whether it was connected until then.
func (p *plain) visit(t *testing.T, channel string) (leave func() bool) {
	t.Helper()
	p.online.Store(false)
	ctx, cancel := context.WithCancel(t.Context())
	var visiting sync.WaitGroup
	var early atomic.Bool
	visiting.Go(func() {
		p.once(ctx, channel)
		early.Store(ctx.Err() == nil)
	})
	until(t, "it listens", p.online.Load)
	return func() bool {
		cancel()
		visiting.Wait()
		return !early.Load()
	}
}

func (p *plain) take(line string) {
	var m struct {
		ID        int
		Subscribe *struct {
			Epoch        string
			Offset       uint64
			Recovered    bool
			Publications []told
		}
		Push *struct{ Pub *told }
	}
	if json.Unmarshal([]byte(line), &m) != nil {
		return
	}
	switch {
	case m.Subscribe != nil:
		if p.epoch != "" && !m.Subscribe.Recovered {
			p.lost.Add(1)
		}
		if !m.Subscribe.Recovered {
			p.offset = m.Subscribe.Offset
		}
		p.epoch = m.Subscribe.Epoch
		for _, t := range m.Subscribe.Publications {
			p.publication(t)
		}
		p.online.Store(true)
	case m.Push != nil && m.Push.Pub != nil:
		p.publication(*m.Push.Pub)
	}
}

func (p *plain) publication(t told) {
	if p.offset != 0 && t.Offset != p.offset+1 {
		p.gaps.Add(1)
	}
	p.offset = t.Offset
	p.heard.Store(t.number())
}

// Two gateways are drained in turn under 2,000 connections: all come to the other one, no faster than its limit of handshakes, and miss nothing.
func TestDrainOfMany(t *testing.T) {
	if os.Getenv("LOADLINE_SLOW") == "" {
		t.Skip("takes a minute: set LOADLINE_SLOW")
	}
	const clients, handshakes, drain = 2000, 300, 10 * time.Second
	where := inRedis(t)
	var upgrades [120]atomic.Int64 // in each second
	began := time.Now()
	var current atomic.Pointer[gateway]
	start := func() *gateway {
		g, err := realtime.Open(context.Background(), quiet(where, func(c *realtime.Config) {
			c.Drain, c.Handshakes, c.MaxConnectionsPerUser = drain, handshakes, -1
		}))
		if err != nil {
			t.Fatal(err)
		}
		handler := g.Handler()
		return serve(t, g, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			handler.ServeHTTP(&counted{ResponseWriter: w, upgraded: func() { upgrades[min(119, int(time.Since(began).Seconds()))].Add(1) }}, r)
		}))
	}
	first := start()
	current.Store(first)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	defer func() { cancel(); running.Wait() }()
	all := make([]*plain, clients)
	for i := range all {
		all[i] = &plain{url: func() string { return current.Load().URL }}
		running.Go(func() { all[i].run(ctx, "article:a") })
	}
	online := func() (n int) {
		for _, p := range all {
			if p.online.Load() {
				n++
			}
		}
		return n
	}
	wait := func(what string, is func() bool) {
		t.Helper()
		for limit := time.Now().Add(time.Minute); !is(); time.Sleep(50 * time.Millisecond) {
			if time.Now().After(limit) {
				t.Fatalf("%s: %d of %d are connected", what, online(), clients)
			}
		}
	}
	wait("at first", func() bool { return online() == clients })

	number := int64(0)
	for range 2 {
		next, before := start(), current.Load()
		drained := make(chan struct{})
		current.Store(next) // as a load balancer does when readiness ends
		go func() { before.stop(); close(drained) }()
		for done := false; !done; {
			number++
			if err := next.Publish(ctx, realtime.Publication{Channel: realtime.Channel{Namespace: "article", Name: "a"}, Data: number}); err != nil {
				t.Fatal(err)
			}
			select {
			case <-drained:
				done = true
			case <-time.After(250 * time.Millisecond):
			}
		}
		wait("after a drain", func() bool { return online() == clients })
	}
	wait("all have heard the last one", func() bool {
		for _, p := range all {
			if p.heard.Load() != number {
				return false
			}
		}
		return true
	})
	for _, p := range all {
		if p.gaps.Load() > 0 || p.lost.Load() > 0 {
			t.Fatalf("a client has missed something: %d gaps, %d times told that it is lost", p.gaps.Load(), p.lost.Load())
		}
	}
	most := int64(0)
	for i := range upgrades {
		most = max(most, upgrades[i].Load())
	}
	t.Logf("%d clients, %d publications; %d handshakes in the worst second", clients, number, most)
	if most > 2*handshakes+20 { // a burst of one second, and the rate
		t.Errorf("%d handshakes in a second, and the limit is %d with a burst of as many", most, handshakes)
	}
}

// counted notes when a connection is taken over.
type counted struct {
	http.ResponseWriter
	upgraded func()
}

func (c *counted) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c.upgraded()
	return http.NewResponseController(c.ResponseWriter).Hijack()
}

// With clients that come and go, by all transports, nothing grows: goroutines, memory, keys in Redis. LOADLINE_SOAK is for how long.
func TestSoak(t *testing.T) {
	soak := time.Duration(0)
	switch text := os.Getenv("LOADLINE_SOAK"); {
	case text != "":
		var err error
		if soak, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
	case os.Getenv("LOADLINE_SLOW") != "":
		soak = 2 * time.Minute
	default:
		t.Skip("takes two minutes: set LOADLINE_SLOW, or LOADLINE_SOAK to a duration")
	}
	redis := stacktest.StartRedis(t)
	g := open(t, quiet(func(c *realtime.Config) {
		c.Redis, c.Handshakes, c.MaxConnectionsPerUser, c.Late = []string{"redis://" + redis.Address}, -1, -1, 5*time.Second
		c.Namespaces["article"] = realtime.Namespace{Subscribe: realtime.Anyone, History: 10, HistoryAge: 5 * time.Second, Presence: true, JoinLeave: true}
	}))
	client, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{redis.Address}, DisableCache: true})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	type size struct {
		goroutines int
		heap       uint64
		keys       int64 // in Redis
	}
	look := func() (s size) {
		time.Sleep(3 * time.Second) // for what ends
		http.DefaultClient.CloseIdleConnections()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		keys, err := client.Do(t.Context(), client.B().Dbsize().Build()).AsInt64()
		if err != nil {
			t.Fatal(err)
		}
		return size{runtime.NumGoroutine(), m.HeapAlloc, keys}
	}
	churn := func(d time.Duration) {
		ctx, cancel := context.WithTimeout(context.Background(), d)
		defer cancel()
		var running sync.WaitGroup
		for n := range 50 {
			running.Go(func() {
				for ctx.Err() == nil {
					stay, leave := context.WithTimeout(ctx, time.Duration(50+rand.IntN(500))*time.Millisecond)
					p := &plain{url: func() string { return g.URL }}
					p.once(stay, fmt.Sprint("article:", n%10))
					leave()
				}
			})
		}
		for n := range 10 {
			running.Go(func() {
				for ctx.Err() == nil {
					g.poll(t, as(fmt.Sprint("user", n), ""), fmt.Sprintf(`{"channels":{"article:%d":{"epoch":"x"}},"wait":0.2}`, n))
				}
			})
		}
		running.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				c := realtime.Channel{Namespace: "article", Name: fmt.Sprint(i % 10)}
				if err := g.Publish(ctx, realtime.Publication{Channel: c, Data: i, ID: fmt.Sprint(i)}); err != nil && ctx.Err() == nil {
					t.Error(err)
				}
				time.Sleep(5 * time.Millisecond)
			}
		})
		running.Wait()
	}
	churn(soak / 4)
	before := look()
	churn(soak - soak/4)
	after := look()
	t.Logf("after %v: %+v; after %v: %+v", soak/4, before, soak, after)
	if after.goroutines > before.goroutines+20 {
		t.Errorf("%d goroutines, and there were %d", after.goroutines, before.goroutines)
	}
	if after.heap > before.heap+before.heap/2+4<<20 {
		t.Errorf("%d bytes, and there were %d", after.heap, before.heap)
	}
	if after.keys > 2*before.keys+100 {
		t.Errorf("Redis has %d keys, and there were %d", after.keys, before.keys)
	}
}
