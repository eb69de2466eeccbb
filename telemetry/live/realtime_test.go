package live

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	client "github.com/centrifugal/centrifuge-go"
	"github.com/gorilla/websocket"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/loadlinehq/loadline/realtime"
	"github.com/loadlinehq/loadline/telemetry"
)

// gateway is one with its server, and with its series as Prometheus is shown them.
type gateway struct {
	*realtime.Gateway
	*httptest.Server
	metrics prometheus.Gatherer
	drain   func() // begins it
}

func openGateway(t testing.TB, of telemetry.Histograms, change func(*realtime.Config)) *gateway {
	t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	tele, err := telemetry.New(t.Context(), telemetry.Config{Service: "shop", Histograms: of, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	c := realtime.Config{
		Authenticate: func(r *http.Request) (realtime.Identity, error) {
			if user := r.Header.Get("X-User"); user != "" {
				return realtime.Identity{User: user}, nil
			}
			return realtime.Identity{}, realtime.ErrUnauthenticated
		},
		Namespaces: map[string]realtime.Namespace{
			"article": {Subscribe: realtime.Anyone, History: 100, HistoryAge: time.Minute},
			"bulk":    {Subscribe: realtime.Anyone},
		},
		Logger: quiet, MeterProvider: tele.Meters, DrainDelay: 2 * time.Second, Drain: 100 * time.Millisecond, MaxConnectionsPerUser: -1,
	}
	change(&c)
	g, err := realtime.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(g.Handler())
	ctx, drain := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := g.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		drain()
		running.Wait()
		server.Close()
		if err := tele.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return &gateway{g, server, tele.Gatherer(), drain}
}

// says is what it says some seconds after start.
func (g *gateway) says(t testing.TB, after float64) *sample {
	t.Helper()
	families, err := g.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	return sampleOf(start.Add(second(after)), families)
}

// now is what the page would show of it, had all that it has done been done in ten seconds.
func (g *gateway) now(t testing.TB) *Realtime {
	return window{{&sample{at: start}, g.says(t, 10)}}.realtime()
}

func (g *gateway) socket() string {
	return "ws" + strings.TrimPrefix(g.URL, "http") + "/websocket"
}

// listen is a client that listens.
func (g *gateway) listen(t testing.TB, channel string) *client.Client {
	t.Helper()
	c := client.NewJsonClient(g.socket(), client.Config{Header: http.Header{"X-User": {"ann"}}, MinReconnectDelay: time.Hour, MaxReconnectDelay: time.Hour})
	t.Cleanup(c.Close)
	s, err := c.NewSubscription(channel)
	if err == nil {
		err = errors.Join(s.Subscribe(), c.Connect())
	}
	if err != nil {
		t.Fatal(err)
	}
	until(t, "it listens", func() bool { return s.State() == client.SubStateSubscribed })
	return c
}

func (g *gateway) publish(t testing.TB, namespace, id string, at time.Time, data any) {
	t.Helper()
	err := g.Publish(context.Background(), realtime.Publication{Channel: realtime.Channel{Namespace: namespace, Name: "a"}, ID: id, At: at, Data: data})
	if err != nil {
		t.Fatal(err)
	}
}

// ask is a request whose answer does not matter.
func (g *gateway) ask(t testing.TB, method, path, user, body string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, g.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-User", user)
	response, err := g.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
}

func until(t testing.TB, what string, is func() bool) {
	t.Helper()
	for limit := time.Now().Add(20 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("it does not come that %s", what)
		}
	}
}

// What two gateways do is shown as one: their clients, what is published, and what goes wrong with either.
func TestRealtime(t *testing.T) {
	t.Parallel()
	one := openGateway(t, telemetry.Exponential, func(c *realtime.Config) { c.MaxConnections = 2 })
	two := openGateway(t, telemetry.Exponential, func(*realtime.Config) {})
	before := window{{nil, one.says(t, 0)}, {nil, two.says(t, 0)}}

	ann := one.listen(t, "article:a")
	one.listen(t, "article:a")
	one.ask(t, http.MethodGet, "/websocket", "bob", "") // it is full
	two.ask(t, http.MethodGet, "/websocket", "", "")    // nobody
	two.ask(t, http.MethodPost, "/poll", "eve", `{"channels":{"article:a":{"offset":7,"epoch":"gone"}},"wait":0.01}`)
	if err := ann.Disconnect(); err != nil {
		t.Fatal(err)
	}
	until(t, "she is away", func() bool { return one.now(t).Connections == 1 })
	for i := range 4 {
		one.publish(t, "article", fmt.Sprint(i), time.Now().Add(-2*time.Second), i)
		one.publish(t, "article", fmt.Sprint(i), time.Now().Add(-2*time.Second), i) // again
		two.publish(t, "article", fmt.Sprint(i), time.Now().Add(-2*time.Second), i)
	}
	if err := ann.Connect(); err != nil {
		t.Fatal(err)
	}
	until(t, "she is brought it", func() bool { return one.now(t).Recovered > 0 })
	two.publish(t, "bulk", "", time.Now().Add(-time.Hour), 1) // no news any more
	slow, response, err := websocket.DefaultDialer.DialContext(t.Context(), two.socket(), http.Header{"X-User": {"slow"}})
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	defer slow.Close()
	if err := slow.WriteMessage(websocket.TextMessage, []byte(`{"id":1,"connect":{}}`+"\n"+`{"id":2,"subscribe":{"channel":"bulk:a"}}`)); err != nil {
		t.Fatal(err)
	}
	until(t, "it listens", func() bool { return two.now(t).Subscriptions == 1 })
	bulk, text := 0, strings.Repeat("x", 60_000)
	until(t, "it is cut off", func() bool {
		two.publish(t, "bulk", "", time.Time{}, text)
		bulk++
		return two.now(t).Slow > 0
	})
	two.listen(t, "article:a")
	until(t, "the slow one has gone", func() bool { return two.now(t).Connections == 1 })
	two.drain()
	until(t, "it is not ready", func() bool { return !two.Ready() })

	after := window{{before[0].now, one.says(t, 10)}, {before[1].now, two.says(t, 10)}}
	r := after.realtime()
	if r == nil || len(r.Namespaces) != 2 {
		t.Fatalf("%+v", r)
	}
	for what, of := range map[string][2]float64{
		"gateways": {float64(r.Gateways), 2}, "that drain": {float64(r.Draining), 1},
		"connections": {r.Connections, 3}, "limit": {r.Limit, 2 + realtime.DefaultMaxConnections}, "subscriptions": {r.Subscriptions, 3}, "channels": {r.Channels, 2},
		"accepted": {r.Accepted, 0.5}, "recovered": {r.Recovered, 0.1}, "lost": {r.Lost, 0.1}, "too slow": {r.Slow, 0.1},
		"published": {r.Published, 0.8 + 0.1*float64(bulk+1)},
		"article":   {r.Namespaces[0].Published, 0.8}, "article, again": {r.Namespaces[0].Dropped, 0.4}, "article, late": {r.Namespaces[0].Late, 0},
		"bulk": {r.Namespaces[1].Published, 0.1 * float64(bulk)}, "bulk, late": {r.Namespaces[1].Late, 0.1}, "bulk, failed": {r.Namespaces[1].Failed, 0},
	} {
		if d := of[0] - of[1]; d > 1e-9 || d < -1e-9 {
			t.Errorf("%s: %v, want %v", what, of[0], of[1])
		}
	}
	if p95 := r.Namespaces[0].DelayP95; p95 < 1.9 || p95 > 5 { // a bucket's width, and what the machine adds
		t.Errorf("%v s behind", p95)
	}
	if p95 := r.Namespaces[1].DelayP95; p95 < 3000 || p95 > 4000 { // of those alone that say when
		t.Errorf("%v s behind", p95)
	}
	if want := []Refused{{"full", 0.1}, {"unauthenticated", 0.1}}; !slices.Equal(r.Refused, want) {
		t.Errorf("%+v", r.Refused)
	}
	if want := (Transport{"websocket", 3}); len(r.Transports) != 4 || r.Transports[0] != want || r.Transports[1].Connections != 0 {
		t.Errorf("%+v", r.Transports)
	}
	if r.Messages < 0.4 {
		t.Errorf("%v messages a second", r.Messages)
	}
	first := before.realtime() // it has not done anything, and there are no rates
	if first.Published != 0 || first.Gateways != 2 || len(first.Namespaces) != 0 {
		t.Errorf("%+v", first)
	}
}

// A gateway that has started again has counted from nothing; and where one has no limit, all have none.
func TestRealtimeRestarts(t *testing.T) {
	t.Parallel()
	old := openGateway(t, telemetry.Classic, func(*realtime.Config) {})
	for i := range 50 {
		old.publish(t, "article", "", time.Now().Add(-time.Minute), i)
	}
	next := openGateway(t, telemetry.Classic, func(c *realtime.Config) { c.MaxConnections = -1 })
	for i := range 5 {
		next.publish(t, "article", "", time.Now().Add(-time.Second), i)
	}
	r := window{{old.says(t, 0), next.says(t, 10)}, {nil, old.says(t, 10)}}.realtime()
	if r.Gateways != 2 || r.Limit != 0 || len(r.Namespaces) != 1 || r.Published != 0.5 || r.Namespaces[0].DelayP95 < 0.9 || r.Namespaces[0].DelayP95 > 5 {
		t.Errorf("%+v", r)
	}
}

// The page has the section where there is a gateway, in what it prints as well, and nowhere else.
func TestRealtimeShown(t *testing.T) {
	t.Parallel()
	g := openGateway(t, telemetry.Exponential, func(*realtime.Config) {})
	g.listen(t, "article:a")
	for name, source := range map[string]Source{"gateway": Local(g.metrics, nil), "none": Local(prometheus.NewRegistry(), nil)} {
		p := pageOf(t, source)
		w := httptest.NewRecorder()
		p.ServeHTTP(w, httptest.NewRequest(http.MethodGet, Path+"/view", nil))
		var shown struct {
			Realtime *struct {
				Connections float64
				Refused     []any
			}
		}
		if err := json.Unmarshal(w.Body.Bytes(), &shown); err != nil {
			t.Fatal(err)
		}
		if is := shown.Realtime != nil; is != (name == "gateway") {
			t.Errorf("%s: %s", name, w.Body)
		} else if is && (shown.Realtime.Connections != 1 || shown.Realtime.Refused == nil) {
			t.Errorf("%+v", shown.Realtime)
		}
	}
}
