package realtime_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	client "github.com/centrifugal/centrifuge-go"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.uber.org/goleak"

	"github.com/loadlinehq/loadline/internal/stack"
	"github.com/loadlinehq/loadline/internal/stack/stacktest"
	"github.com/loadlinehq/loadline/realtime"
)

func TestMain(m *testing.M) {
	if stack.ServeNATS() {
		return
	}
	// Those of a node of centrifuge that has ended: a cache of its metrics, and a second of patience.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/maypok86/otter/v2.periodicCleanUp[...]"),
		goleak.IgnoreAnyFunction("github.com/centrifugal/centrifuge/internal/dissolve.(*Dissolver).runWorker"),
		goleak.IgnoreAnyFunction("github.com/centrifugal/centrifuge-go.(*Client).sendAsync.func1")) // and of its client
}

// known has the user and tenant that a request names, and nobody else.
func known(r *http.Request) (realtime.Identity, error) {
	who := realtime.Identity{User: r.Header.Get("X-User"), Tenant: r.Header.Get("X-Tenant")}
	if who.User == "" {
		return who, realtime.ErrUnauthenticated
	}
	return who, nil
}

// gateway is one with its server.
type gateway struct {
	*realtime.Gateway
	*httptest.Server
	stop func() // drains
}

func quiet(change ...func(*realtime.Config)) realtime.Config {
	c := realtime.Config{
		Authenticate: known, Logger: slog.New(slog.DiscardHandler), DrainDelay: -1, Drain: 100 * time.Millisecond,
		Namespaces: map[string]realtime.Namespace{
			"article": {Subscribe: realtime.Anyone, History: 100, HistoryAge: time.Minute, Presence: true},
			"user":    {Subscribe: realtime.Own, History: 10, HistoryAge: time.Minute},
			"chat":    {Subscribe: realtime.Known, Publish: realtime.Known, History: 10, HistoryAge: time.Minute},
			"state":   {Subscribe: realtime.Anyone, History: 1, HistoryAge: time.Minute, State: true},
			"plain":   {Subscribe: realtime.Anyone},
		},
	}
	for _, f := range change {
		f(&c)
	}
	return c
}

// inRedis has channels in the test's Redis.
func inRedis(t testing.TB) func(*realtime.Config) {
	set := stacktest.New(t)
	return func(c *realtime.Config) { c.Redis, c.Prefix = []string{set.RedisURL}, set.KeyPrefix+"rt" }
}

func open(t testing.TB, c realtime.Config) *gateway {
	t.Helper()
	g, err := realtime.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return serve(t, g, g.Handler())
}

// serve runs a gateway, and ends it in order.
func serve(t testing.TB, g *realtime.Gateway, handler http.Handler) *gateway {
	t.Helper()
	mux := http.NewServeMux()
	mux.Handle("/rt/", http.StripPrefix("/rt", handler))
	server := httptest.NewServer(mux)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- g.Run(ctx) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		stop()
		server.Close()
	})
	return &gateway{g, server, stop}
}

func (g *gateway) publish(t testing.TB, channel string, data any) {
	t.Helper()
	c, err := realtime.ParseChannel(channel)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Publish(t.Context(), realtime.Publication{Channel: c, Data: data}); err != nil {
		t.Fatal(err)
	}
}

func as(user, tenant string) http.Header {
	h := http.Header{"X-User": {user}}
	if tenant != "" {
		h.Set("X-Tenant", tenant)
	}
	return h
}

// connect is a client by WebSocket.
func (g *gateway) connect(t testing.TB, header http.Header, connecting ...func(client.ConnectingEvent)) *client.Client {
	t.Helper()
	c := client.NewJsonClient("ws"+strings.TrimPrefix(g.URL, "http")+"/rt/websocket", client.Config{Header: header, MinReconnectDelay: time.Millisecond, MaxReconnectDelay: 50 * time.Millisecond})
	t.Cleanup(c.Close)
	for _, f := range connecting {
		c.OnConnecting(f)
	}
	if err := c.Connect(); err != nil {
		t.Fatal(err)
	}
	return c
}

// listener is what a client has heard of a channel.
type listener struct {
	*client.Subscription

	mu      sync.Mutex
	heard   []string
	denied  error
	lost    int // how often what was missed was not brought
	tags    map[string]string
	settled chan struct{}
}

// collect is what the metrics are now, by name and attributes.
func collect(t testing.TB, reader *metric.ManualReader) map[string]int64 {
	t.Helper()
	var all metricdata.ResourceMetrics
	if err := reader.Collect(t.Context(), &all); err != nil {
		t.Fatal(err)
	}
	found := make(map[string]int64)
	for _, s := range all.ScopeMetrics {
		for _, m := range s.Metrics {
			var points []metricdata.DataPoint[int64]
			switch data := m.Data.(type) {
			case metricdata.Sum[int64]:
				points = data.DataPoints
			case metricdata.Gauge[int64]:
				points = data.DataPoints
			}
			for _, p := range points {
				name := strings.TrimPrefix(m.Name, "loadline.realtime.")
				for _, a := range p.Attributes.ToSlice() {
					name += " " + a.Value.AsString()
				}
				found[name] = p.Value
			}
		}
	}
	return found
}

func listen(t testing.TB, c *client.Client, channel string) *listener {
	t.Helper()
	s, err := c.NewSubscription(channel)
	if err != nil {
		t.Fatal(err)
	}
	l := &listener{Subscription: s, settled: make(chan struct{})}
	settled := sync.OnceFunc(func() { close(l.settled) })
	s.OnPublication(func(e client.PublicationEvent) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.heard, l.tags = append(l.heard, string(e.Data)), e.Tags
	})
	s.OnSubscribed(func(e client.SubscribedEvent) {
		l.mu.Lock()
		if e.WasRecovering && !e.Recovered {
			l.lost++
		}
		l.mu.Unlock()
		settled()
	})
	s.OnUnsubscribed(func(e client.UnsubscribedEvent) {
		l.mu.Lock()
		l.denied = &client.Error{Code: e.Code, Message: e.Reason}
		l.mu.Unlock()
		settled()
	})
	if err := s.Subscribe(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-l.settled:
	case <-time.After(20 * time.Second):
		t.Fatalf("%s is neither subscribed to nor denied", channel)
	}
	return l
}

func (l *listener) all() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.heard, " ")
}

func (l *listener) isDenied() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.denied != nil
}

func until(t testing.TB, what string, is func() bool) {
	t.Helper()
	for limit := time.Now().Add(20 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("it does not come that %s", what)
		}
	}
}

// answer is of a poll.
type answer struct {
	Status   int
	Channels map[string]struct {
		Offset       uint64
		Epoch        string
		Recovered    bool
		Token        string
		Publications []struct {
			Data   json.RawMessage
			Offset uint64
			Tags   map[string]string
		}
	}
	Denied, Later []string
	Title         string
}

func (g *gateway) poll(t testing.TB, header http.Header, body string) (a answer) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, g.URL+"/rt/poll", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header = header.Clone()
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if err := json.NewDecoder(response.Body).Decode(&a); err != nil {
		t.Fatalf("%s: %v", response.Status, err)
	}
	a.Status = response.StatusCode
	return a
}

func (a answer) data(channel string) string {
	var all []string
	for _, p := range a.Channels[channel].Publications {
		all = append(all, string(p.Data))
	}
	return strings.Join(all, " ")
}
