package contract_test

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/loadlinehq/loadline/internal/stack/stacktest"
	"github.com/loadlinehq/loadline/realtime"
)

const modulePage = `<!doctype html><meta charset="utf-8"><title>module</title><link rel="icon" href="data:,"><script type="module">
import {names, run} from '/realtime.test.js';
window.results = {};
window.names = names;
for (const name of names) results[name] = await run(name, '/rt/realtime.js');
window.done = true;
</script>`

// The browser's module by itself: what gateways say seldom, and what comes in the wrong moment.
func TestModule(t *testing.T) {
	if os.Getenv("LOADLINE_SLOW") == "" {
		t.Skip("takes a browser: set LOADLINE_SLOW")
	}
	server, _ := servedGateways(t, 1, "", func(mux *http.ServeMux) {
		mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, modulePage) })
		mux.HandleFunc("/realtime.test.js", func(w http.ResponseWriter, r *http.Request) {
			http.ServeFile(w, r, "../../../realtime/js/realtime.test.js")
		})
	})
	b := openBrowser(t, server[0].URL)
	b.waits(t, "all cases have run", `window.done === true`)
	names := run[[]string](t, b, `window.names`)
	if len(names) < 15 {
		t.Errorf("%d cases", len(names))
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			if wrong := run[string](t, b, `window.results[`+jsString(name)+`]`); wrong != "" {
				t.Error(wrong)
			}
		})
	}
}

const centrifugePage = `<!doctype html><meta charset="utf-8"><title>centrifuge</title><link rel="icon" href="data:,"><script src="/centrifuge.js"></script><script>
window.clients = {};
for (const [transport, path] of [['websocket', 'websocket'], ['http_stream', 'stream'], ['sse', 'sse']]) {
  const at = (scheme, path) => scheme + '//' + location.host + '/rt/' + path;
  const endpoint = at(transport === 'websocket' ? 'ws:' : 'http:', path);
  const c = clients[transport] = {heard: [], recovered: 0, denied: 0, connects: 0};
  const client = new Centrifuge([{transport, endpoint}], {emulationEndpoint: at('http:', 'emulation'), minReconnectDelay: 50, maxReconnectDelay: 300});
  client.on('connected', () => c.connects++);
  const sub = client.newSubscription('article:a');
  sub.on('publication', ({data}) => c.heard.push(data));
  sub.on('subscribed', ({recovered}) => { if (recovered) c.recovered++; });
  sub.subscribe();
  const foreign = client.newSubscription('user:somebody');
  foreign.on('unsubscribed', () => c.denied++);
  foreign.subscribe();
  client.connect();
}
</script>`

// The client library of centrifuge works as it is, through the death of a gateway.
func TestCentrifugeJS(t *testing.T) {
	if os.Getenv("LOADLINE_SLOW") == "" {
		t.Skip("takes a browser: set LOADLINE_SLOW")
	}
	redis := stacktest.StartRedis(t)
	servers, gateways := servedGateways(t, 2, "redis://"+redis.Address, func(mux *http.ServeMux) {
		mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, centrifugePage) })
		mux.HandleFunc("/centrifuge.js", func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, "testdata/centrifuge-5.8.0.js") })
	})
	front := newFront(t, servers[0].Listener.Addr().String())
	b := openBrowser(t, "http://"+front.listener.Addr().String()+"/", "Failed to load resource", "WebSocket connection to")
	publish := func(numbers ...int) {
		t.Helper()
		for _, n := range numbers {
			if err := gateways[1].Publish(t.Context(), realtime.Publication{Channel: realtime.Channel{Namespace: "article", Name: "a"}, Data: n}); err != nil {
				t.Fatal(err)
			}
		}
	}
	transports := []string{"websocket", "http_stream", "sse"}
	for _, name := range transports {
		b.waits(t, name+" is connected, and denied what is another's", `clients[`+jsString(name)+`].connects === 1 && clients[`+jsString(name)+`].denied === 1`)
	}
	time.Sleep(200 * time.Millisecond) // a subscription is another command
	publish(1, 2)
	for _, name := range transports {
		b.waits(t, name+" hears", `clients[`+jsString(name)+`].heard.length === 2`)
	}
	front.cut(servers[1].Listener.Addr().String())
	publish(3, 4)
	for _, name := range transports {
		b.waits(t, name+" is brought what it missed", `clients[`+jsString(name)+`].connects === 2 && clients[`+jsString(name)+`].heard.length >= 4`)
		if heard := run[[]int](t, b, `clients[`+jsString(name)+`].heard`); !slices.Equal(heard, []int{1, 2, 3, 4}) {
			t.Errorf("%s: %v", name, heard)
		}
	}
}

// servedGateways are of anybody, by one Redis or each for itself, with more beside /rt/.
func servedGateways(t *testing.T, n int, redis string, more func(*http.ServeMux)) (servers []*httptest.Server, gateways []*realtime.Gateway) {
	t.Helper()
	c := realtime.Config{
		Authenticate: realtime.Anonymous, Logger: slog.New(slog.DiscardHandler),
		Namespaces: map[string]realtime.Namespace{
			"article": {Subscribe: realtime.Anyone, History: 100, HistoryAge: time.Minute}, "user": {Subscribe: realtime.Own, History: 1, HistoryAge: time.Minute},
		},
	}
	if redis != "" {
		c.Redis = []string{redis}
	}
	for range n {
		g, err := realtime.Open(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		mux := http.NewServeMux()
		mux.Handle("/rt/", http.StripPrefix("/rt", g.Handler()))
		more(mux)
		server := httptest.NewServer(mux)
		t.Cleanup(func() { _ = g.Close(); server.CloseClientConnections(); server.Close() })
		servers, gateways = append(servers, server), append(gateways, g)
	}
	return servers, gateways
}

// waits until an expression is true.
func (b *browser) waits(t *testing.T, what, expression string) {
	t.Helper()
	for limit := time.Now().Add(time.Minute); time.Now().Before(limit); time.Sleep(50 * time.Millisecond) {
		if run[bool](t, b, expression) {
			return
		}
	}
	t.Fatalf("it does not come that %s", what)
}
