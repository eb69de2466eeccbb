package contract_test

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/loadlinehq/loadline/causal"
	"github.com/loadlinehq/loadline/internal/stack/stacktest"
	"github.com/loadlinehq/loadline/realtime"
)

const realtimePage = `<!doctype html><meta charset="utf-8"><title>realtime</title><link rel="icon" href="data:,"><script type="module">
import {Realtime} from '/rt/realtime.js';
window.clients = {};
window.open_ = (name, transports) => {
  const c = clients[name] = {heard: [], refreshed: [], denied: 0, errors: [], states: [], took: 0};
  const began = performance.now();
  c.rt = new Realtime('/rt', {transports, minDelay: 50, maxDelay: 500, wait: 5, onError: (e) => c.errors.push(String(e)),
    onState: (state) => { c.states.push(state); if (state === 'connected' && !c.took) c.took = performance.now() - began; }});
  c.rt.subscribe('article:a', {onPublication: (d) => c.heard.push(d), refresh: (why, headers) => c.refreshed.push(why + (headers['Causal-Token'] ? '+token' : ''))});
  c.rt.subscribe('user:somebody', {onDenied: () => c.denied++});
};
window.look = (name) => { const c = clients[name]; return JSON.stringify({...c, rt: undefined, stats: c.rt.stats, state: c.rt.state}); };
window.ready = true;
</script>`

// seen is what a client in the browser has seen.
type seen struct {
	Heard     []int
	Refreshed []string
	Denied    int
	Errors    []string
	State     string
	Took      float64
	Stats     struct {
		Transport                                             string
		Reconnects, Recovered, Lost, Publications, Duplicates int
	}
}

func (b *browser) look(t *testing.T, name string) (s seen) {
	t.Helper()
	if err := json.Unmarshal([]byte(run[string](t, b, `look(`+jsString(name)+`)`)), &s); err != nil {
		t.Fatal(err)
	}
	return s
}

func (b *browser) until(t *testing.T, name, what string, is func(seen) bool) seen {
	t.Helper()
	var s seen
	for limit := time.Now().Add(time.Minute); time.Now().Before(limit); time.Sleep(50 * time.Millisecond) {
		if s = b.look(t, name); is(s) {
			return s
		}
	}
	t.Fatalf("%s: it does not come that %s: %+v", name, what, s)
	return s
}

// The browser's module, by each of its transports: publications come once and in order through the death of a gateway, what cannot be brought is
// read anew, and a WebSocket that a proxy swallows is given up within five seconds.
func TestRealtimeInBrowser(t *testing.T) {
	if os.Getenv("LOADLINE_SLOW") == "" {
		t.Skip("takes a minute, and a browser: set LOADLINE_SLOW")
	}
	redis := stacktest.StartRedis(t)
	keys, err := causal.NewKeys([]byte(strings.Repeat("k", 32)))
	if err != nil {
		t.Fatal(err)
	}
	var blocked atomic.Bool
	var gateways []*realtime.Gateway
	var servers []*httptest.Server
	for range 2 {
		g, err := realtime.Open(t.Context(), realtime.Config{
			Redis: []string{"redis://" + redis.Address}, Authenticate: realtime.Anonymous, Keys: keys, Check: 2 * time.Second, Logger: slog.New(slog.DiscardHandler),
			Namespaces: map[string]realtime.Namespace{
				"article": {Subscribe: realtime.Anyone, History: 100, HistoryAge: time.Minute}, "user": {Subscribe: realtime.Own, History: 1, HistoryAge: time.Minute},
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		handler := g.Handler()
		mux := http.NewServeMux()
		mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, realtimePage) })
		mux.Handle("/rt/", http.StripPrefix("/rt", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if blocked.Load() && r.URL.Path == "/websocket" {
				<-r.Context().Done() // as by a proxy that does not know what it is
				return
			}
			handler.ServeHTTP(w, r)
		})))
		server := httptest.NewServer(mux)
		t.Cleanup(func() { _ = g.Close(); server.CloseClientConnections(); server.Close() })
		gateways, servers = append(gateways, g), append(servers, server)
	}
	front := newFront(t, servers[0].Listener.Addr().String())
	number := 0
	publish := func(g *realtime.Gateway, n int) {
		t.Helper()
		for range n {
			number++
			token := causal.NewToken(causal.Mark{System: 7, Timeline: 1, LSN: causal.LSN(number)})
			if err := g.Publish(t.Context(), realtime.Publication{Channel: realtime.Channel{Namespace: "article", Name: "a"}, Data: number, Token: token}); err != nil {
				t.Fatal(err)
			}
		}
	}
	all := func() []int {
		var n []int
		for i := range number {
			n = append(n, i+1)
		}
		return n
	}

	b := openBrowser(t, "http://"+front.listener.Addr().String()+"/", "Failed to load resource", "WebSocket connection to") // servers die here
	transports := []string{"websocket", "stream", "sse", "poll"}
	for _, name := range transports {
		run[bool](t, b, `open_(`+jsString(name)+`, [`+jsString(name)+`]), true`)
	}
	for _, name := range transports {
		b.until(t, name, "it is connected, and denied what is another's", func(s seen) bool {
			return s.State == "connected" && s.Stats.Transport == name && s.Denied == 1 && slices.Equal(s.Refreshed, []string{"first"})
		})
	}
	publish(gateways[0], 5)
	for _, name := range transports {
		b.until(t, name, "it has heard five", func(s seen) bool { return slices.Equal(s.Heard, all()) })
	}

	// The gateway dies, with messages in between.
	publish(gateways[1], 3)
	front.cut(servers[1].Listener.Addr().String())
	publish(gateways[1], 2)
	for _, name := range transports {
		s := b.until(t, name, "it has heard all", func(s seen) bool { return len(s.Heard) >= number && s.State == "connected" })
		if !slices.Equal(s.Heard, all()) || !slices.Equal(s.Refreshed, []string{"first"}) {
			t.Errorf("%s: %+v", name, s)
		}
	}

	// What is no news is read anew, with the token of what was told before.
	if err := gateways[1].Publish(t.Context(), realtime.Publication{Channel: realtime.Channel{Namespace: "article", Name: "a"}, At: time.Now().Add(-time.Hour)}); err != nil {
		t.Fatal(err)
	}
	for _, name := range transports {
		b.until(t, name, "it reads anew", func(s seen) bool { return slices.Equal(s.Refreshed, []string{"first", "late+token"}) })
	}
	// And what Redis has forgotten.
	if out, err := exec.Command("redis-cli", "-u", "redis://"+redis.Address, "FLUSHALL").CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	for _, name := range transports {
		b.until(t, name, "it is told that something is lost", func(s seen) bool { return slices.Contains(s.Refreshed, "lost+token") && s.State == "connected" })
	}
	publish(gateways[1], 1)
	for _, name := range transports {
		b.until(t, name, "it goes on", func(s seen) bool { return slices.Equal(s.Heard, all()) })
	}

	blocked.Store(true)
	run[bool](t, b, `open_('any', undefined), true`)
	if s := b.until(t, "any", "it is connected", func(s seen) bool { return s.State == "connected" }); s.Stats.Transport != "stream" || s.Took > 5000 {
		t.Errorf("without WebSockets: %s after %.0f ms", s.Stats.Transport, s.Took)
	}
	for _, name := range append(transports, "any") {
		s := b.look(t, name)
		t.Logf("%s: %d reconnects, %d recovered, %d lost, %d duplicates, connected in %.0f ms; %q", name, s.Stats.Reconnects, s.Stats.Recovered, s.Stats.Lost, s.Stats.Duplicates, s.Took, s.Errors)
	}
}

// front is a load balancer of TCP with one server at a time.
type front struct {
	listener net.Listener

	mu     sync.Mutex
	target string
	open   map[net.Conn]bool
}

func newFront(t *testing.T, target string) *front {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &front{listener: listener, target: target, open: make(map[net.Conn]bool)}
	go f.serve()
	t.Cleanup(func() {
		_ = listener.Close()
		f.cut(target)
	})
	return f
}

func (f *front) serve() {
	for {
		client, err := f.listener.Accept()
		if err != nil {
			return // it is closed
		}
		f.mu.Lock()
		server, err := net.Dial("tcp", f.target)
		if err != nil {
			f.mu.Unlock()
			_ = client.Close()
			continue
		}
		f.open[client], f.open[server] = true, true
		f.mu.Unlock()
		pass := func(to, from net.Conn) {
			_, _ = io.Copy(to, from)
			_ = to.Close()
		}
		go pass(server, client)
		go pass(client, server)
	}
}

// cut ends all connections, as a machine does that loses its power. New ones go to another server.
func (f *front) cut(to string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.target = to
	for conn := range f.open {
		_ = conn.Close()
	}
	clear(f.open)
}
