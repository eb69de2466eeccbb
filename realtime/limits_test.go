package realtime_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	client "github.com/centrifugal/centrifuge-go"
	"github.com/gorilla/websocket"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/loadlinehq/loadline/causal"
	"github.com/loadlinehq/loadline/realtime"
)

// Who does not read is cut off when MaxQueueBytes wait for him, and the others are not; and the metrics say what has happened.
func TestSlowClient(t *testing.T) {
	t.Parallel()
	reader := metric.NewManualReader()
	g := open(t, quiet(func(c *realtime.Config) { c.MeterProvider = metric.NewMeterProvider(metric.WithReader(reader)) }))
	conn, response, err := websocket.DefaultDialer.DialContext(t.Context(), "ws"+strings.TrimPrefix(g.URL, "http")+"/rt/websocket", as("slow", ""))
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	defer conn.Close()
	if err := conn.WriteMessage(websocket.TextMessage, []byte(`{"id":1,"connect":{}}`+"\n"+`{"id":2,"subscribe":{"channel":"plain:a"}}`)); err != nil {
		t.Fatal(err)
	}
	quick := listen(t, g.connect(t, as("ann", "")), "plain:a")
	until(t, "both listen", func() bool { return collect(t, reader)["subscriptions"] == 2 })
	text := strings.Repeat("x", 30_000)
	published := 0
	until(t, "the slow one is cut off", func() bool {
		g.publish(t, "plain:a", text) // no faster than who reads does
		published++
		return collect(t, reader)["disconnects 3008"] == 1
	})
	until(t, "the other has all", func() bool { quick.mu.Lock(); defer quick.mu.Unlock(); return len(quick.heard) == published })
	until(t, "the slow one has gone", func() bool { return collect(t, reader)["connections websocket"] == 1 })
	_, _ = g.upgrade(t, http.Header{})
	found := collect(t, reader)
	for name, want := range map[string]int64{
		"connections websocket": 1, "subscriptions": 1, "channels": 1, "handshakes accepted": 2, "handshakes unauthenticated": 1, "publications plain published": int64(published),
	} {
		if found[name] != want {
			t.Errorf("%s is %d, want %d: %v", name, found[name], want, found)
		}
	}
	if found["messages"] < int64(published) {
		t.Errorf("%d messages, and %d publications: %v", found["messages"], published, found)
	}
}

// The metrics say how many clients there may be, who was refused by the token that he shows after the handshake, which polls have lost something, how
// old what is published is, and that the gateway drains.
func TestMetrics(t *testing.T) {
	t.Parallel()
	reader := metric.NewManualReader()
	g := open(t, quiet(func(c *realtime.Config) {
		c.MeterProvider = metric.NewMeterProvider(metric.WithReader(reader))
		c.MaxConnections, c.DrainDelay = 7, time.Second
		c.Token = func(_ context.Context, token string) (realtime.Identity, error) {
			if token == "away" {
				return realtime.Identity{}, errors.New("the database is away")
			}
			return realtime.Identity{}, realtime.ErrUnauthenticated
		}
	}))
	for token, outcome := range map[string]string{"forged": "unauthenticated", "away": "failed"} {
		c := client.NewJsonClient("ws"+strings.TrimPrefix(g.URL, "http")+"/rt/websocket", client.Config{Token: token, MinReconnectDelay: time.Hour, MaxReconnectDelay: time.Hour})
		t.Cleanup(c.Close)
		if err := c.Connect(); err != nil {
			t.Fatal(err)
		}
		until(t, "it is refused", func() bool { return collect(t, reader)["handshakes "+outcome] == 1 })
	}
	g.poll(t, as("ann", ""), `{"channels":{"article:a":{"offset":9,"epoch":"gone"}},"wait":0.01}`)
	for _, age := range []time.Duration{3 * time.Second, -time.Minute} { // clocks differ
		p := realtime.Publication{Channel: realtime.Channel{Namespace: "article", Name: "a"}, ID: age.String(), Data: 1, At: time.Now().Add(-age)}
		for range 2 { // the second time it is none
			if err := g.Publish(t.Context(), p); err != nil {
				t.Fatal(err)
			}
		}
	}
	g.publish(t, "article:a", 2) // it does not say when it happened
	found := collect(t, reader)
	for name, want := range map[string]int64{"connection.limit": 7, "draining": 0, "handshakes accepted": 0, "recoveries lost": 1, "publications article duplicate": 2} {
		if found[name] != want {
			t.Errorf("%s is %d, want %d: %v", name, found[name], want, found)
		}
	}
	var all metricdata.ResourceMetrics
	if err := reader.Collect(t.Context(), &all); err != nil {
		t.Fatal(err)
	}
	var delays metricdata.HistogramDataPoint[float64]
	for _, m := range all.ScopeMetrics[0].Metrics {
		if h, ok := m.Data.(metricdata.Histogram[float64]); ok && m.Name == "loadline.realtime.publication.delay" {
			delays = h.DataPoints[0]
		}
	}
	if of, _ := delays.Attributes.Value("channel.namespace"); delays.Count != 2 || delays.Sum < 3 || delays.Sum > 30 || of.AsString() != "article" {
		t.Errorf("%+v", delays)
	}
	go g.stop()
	until(t, "it says that it drains", func() bool { return collect(t, reader)["draining"] == 1 })
}

// What a client names makes no series.
func TestNoSeriesOfClients(t *testing.T) {
	t.Parallel()
	g := open(t, quiet(func(c *realtime.Config) { c.Commands = -1 }))
	c := g.connect(t, as("ann", ""))
	listen(t, c, "none:a")
	before := g.Series()
	for i := range 50 {
		listen(t, c, fmt.Sprintf("none%d:a", i))
		_, _ = c.Publish(t.Context(), fmt.Sprintf("other%d:%s", i, strings.Repeat("x", 300)), []byte("1"))
	}
	if after := g.Series(); after > before+10 {
		t.Errorf("%d series, and there were %d", after, before)
	}
}

func TestMaxSubscribers(t *testing.T) {
	t.Parallel()
	g := open(t, quiet(func(c *realtime.Config) {
		c.Namespaces["few"] = realtime.Namespace{Subscribe: realtime.Anyone, History: 1, HistoryAge: time.Minute, MaxSubscribers: 1}
	}))
	first := listen(t, g.connect(t, as("ann", "")), "few:a")
	second := listen(t, g.connect(t, as("bob", "")), "few:a")
	if first.isDenied() || !second.isDenied() {
		t.Errorf("%v, %v", first.denied, second.denied)
	}
	if a := g.poll(t, as("eve", ""), `{"channels":{"few:a":{}}}`); a.Status != 200 || fmt.Sprint(a.Later) != "[few:a]" || len(a.Denied) > 0 {
		t.Errorf("a poll: %+v", a)
	}
}

// A permission that takes long holds up no other channel of its connection, and one that cannot be asked none of its poll.
func TestSlowPermission(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	g := open(t, quiet(func(c *realtime.Config) {
		c.Namespaces["slow"] = realtime.Namespace{Subscribe: func(ctx context.Context, _ realtime.Identity, _ realtime.Channel) error {
			select {
			case <-release:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}}
		c.Namespaces["away"] = realtime.Namespace{
			Subscribe: func(context.Context, realtime.Identity, realtime.Channel) error {
				return errors.New("the database is away")
			}, History: 1, HistoryAge: time.Minute,
		}
	}))
	c := g.connect(t, as("ann", ""))
	s, err := c.NewSubscription("slow:a")
	if err != nil {
		t.Fatal(err)
	}
	allowed := make(chan struct{})
	s.OnSubscribed(func(client.SubscribedEvent) { close(allowed) })
	if err := s.Subscribe(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if l := listen(t, c, "article:a"); l.isDenied() || time.Since(began) > 3*time.Second {
		t.Errorf("%v after %v", l.denied, time.Since(began))
	}
	close(release)
	<-allowed
	a := g.poll(t, as("ann", ""), `{"channels":{"away:a":{},"article:a":{}}}`)
	if a.Status != 200 || fmt.Sprint(a.Later) != "[away:a]" || len(a.Denied) > 0 || a.Channels["article:a"].Epoch == "" {
		t.Errorf("%+v", a)
	}
}

// Polls are limited as connections are: how many there are, and how often one may ask.
func TestPollLimits(t *testing.T) {
	t.Parallel()
	g := open(t, quiet(func(c *realtime.Config) { c.Commands, c.MaxChannels, c.MaxConnections = 1, 4, 3 }))
	here := g.poll(t, as("ann", ""), `{"channels":{"article:a":{}}}`).Channels["article:a"]
	body := fmt.Sprintf(`{"channels":{"article:a":{"offset":%d,"epoch":%q}},"wait":0.001}`, here.Offset, here.Epoch)
	var limited answer
	taken := 0
	for ; taken < 100; taken++ {
		if limited = g.poll(t, as("ann", ""), body); limited.Status != 200 {
			break
		}
	}
	if limited.Status != 429 || taken < 20 {
		t.Errorf("after %d polls: %+v", taken, limited)
	}
	if a := g.poll(t, as("bob", ""), body); a.Status != 200 {
		t.Errorf("another user: %+v", a)
	}
	// An epoch that is made up costs as much as none.
	taken = 0
	for ; taken < 100; taken++ {
		if g.poll(t, as("eve", ""), `{"channels":{"article:a":{"epoch":"x"},"article:b":{"epoch":"x"},"article:c":{"epoch":"x"}}}`).Status != 200 {
			break
		}
	}
	if taken > 15 {
		t.Errorf("%d polls with epochs that are made up", taken)
	}
	for range 3 {
		g.connect(t, as("full", ""))
	}
	until(t, "the gateway is full", func() bool { return g.poll(t, as("bob", ""), body).Status == 503 })
}

// One that goes on is brought all that it has missed, a megabyte or so at a time.
func TestPollOfMuch(t *testing.T) {
	t.Parallel()
	everywhere(t, func(t *testing.T, where func(*realtime.Config)) {
		g := open(t, quiet(where))
		here := g.poll(t, as("ann", ""), `{"channels":{"article:a":{}}}`).Channels["article:a"]
		text := strings.Repeat("x", 60_000)
		for i := range 40 {
			g.publish(t, "article:a", fmt.Sprint(i, text))
		}
		var numbers []string
		polls := 0
		for offset := here.Offset; len(numbers) < 40 && polls < 10; polls++ {
			a := g.poll(t, as("ann", ""), fmt.Sprintf(`{"channels":{"article:a":{"offset":%d,"epoch":%q}},"wait":1}`, offset, here.Epoch))
			c := a.Channels["article:a"]
			if a.Status != 200 || !c.Recovered {
				t.Fatalf("%d %v", a.Status, c.Recovered)
			}
			for _, p := range c.Publications {
				numbers = append(numbers, strings.TrimRight(strings.Trim(string(p.Data), `"`), "x"))
			}
			offset = c.Offset
		}
		for i, n := range numbers {
			if n != fmt.Sprint(i) {
				t.Fatalf("publication %d is %s", i, n)
			}
		}
		if len(numbers) != 40 || polls < 2 {
			t.Errorf("%d publications by %d polls", len(numbers), polls)
		}
	})
}

// Who begins, or has lost its place, is given the token of the latest publication: what it reads next has seen that.
func TestPollToken(t *testing.T) {
	t.Parallel()
	keys, err := causal.NewKeys([]byte(strings.Repeat("k", 32)))
	if err != nil {
		t.Fatal(err)
	}
	g := open(t, quiet(func(c *realtime.Config) { c.Keys = keys }))
	token := causal.NewToken(causal.Mark{System: 7, Timeline: 1, LSN: 99})
	if err := g.Publish(t.Context(), realtime.Publication{Channel: realtime.Channel{Namespace: "article", Name: "a"}, Data: 1, Token: token}); err != nil {
		t.Fatal(err)
	}
	for _, body := range []string{`{"channels":{"article:a":{}}}`, `{"channels":{"article:a":{"epoch":"x","offset":7}}}`} {
		if seen, err := keys.Verify(g.poll(t, as("ann", ""), body).Channels["article:a"].Token); err != nil || !seen.Equal(token) {
			t.Errorf("%s: %v, %v", body, seen, err)
		}
	}
}

// Run goes on as before for DrainDelay, when it is not ready any more.
func TestDrainDelay(t *testing.T) {
	t.Parallel()
	g := open(t, quiet(func(c *realtime.Config) { c.DrainDelay = time.Second }))
	if !g.Ready() {
		t.Error("it is not ready")
	}
	var ended atomic.Bool
	go func() { g.stop(); ended.Store(true) }()
	until(t, "it is not ready any more", func() bool { return !g.Ready() })
	if status, _ := g.upgrade(t, as("ann", "")); status != 101 || ended.Load() {
		t.Errorf("who comes before the load balancer has noticed: %d", status)
	}
	until(t, "it has ended", ended.Load)
}

// What goes one way is as strict as the others, and its other way, too.
func TestStreamPermissions(t *testing.T) {
	t.Parallel()
	g := open(t, quiet())
	commands := `{"id":1,"connect":{}}` + "\n" + `{"id":2,"subscribe":{"channel":"user:bob"}}` + "\n" + `{"id":3,"subscribe":{"channel":"user:ann"}}` + "\n" + `{"id":4,"publish":{"channel":"chat:a","data":1}}`
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	r, _ := http.NewRequestWithContext(ctx, http.MethodPost, g.URL+"/rt/stream", strings.NewReader(commands))
	r.Header = as("ann", "")
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var text strings.Builder
	more := func(want string) {
		t.Helper()
		b := make([]byte, 4096)
		for !strings.Contains(text.String(), want) {
			n, err := response.Body.Read(b)
			if text.Write(b[:n]); err != nil {
				t.Fatalf("%s is not in %s: %v", want, text.String(), err)
			}
		}
	}
	more(`"id":2,"error":{"code":103`)
	more(`"id":3,"subscribe"`)
	more(`"id":4,"publish"`)
	between := func(before string) string {
		_, rest, _ := strings.Cut(text.String(), before)
		value, _, _ := strings.Cut(rest, `"`)
		return value
	}
	emulate := func(session string) int {
		body := fmt.Sprintf(`{"session":%q,"node":%q,"data":"{\"id\":5,\"subscribe\":{\"channel\":\"other/article:a\"}}"}`, session, between(`"node":"`))
		response, err := http.Post(g.URL+"/rt/emulation", "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, response.Body)
		_ = response.Body.Close()
		return response.StatusCode
	}
	if status := emulate(between(`"session":"`)); status != http.StatusNoContent {
		t.Errorf("a command is answered %d", status)
	}
	more(`"id":5,"error":{"code":103`)
	_ = emulate("another") // nobody's: it reaches no client
	if strings.Count(text.String(), `"id":5`) != 1 {
		t.Errorf("%s", text.String())
	}

	sse, _ := http.NewRequestWithContext(ctx, http.MethodPost, g.URL+"/rt/sse", strings.NewReader(commands))
	sse.Header = as("ann", "")
	events, err := http.DefaultClient.Do(sse)
	if err != nil {
		t.Fatal(err)
	}
	defer events.Body.Close()
	text.Reset()
	response = events
	more(`"id":2,"error":{"code":103`)
	more(`"id":3,"subscribe"`)
}

// By what goes through the queue, more than that holds is not brought, and read anew: who is cut off for it would come back for the same.
func TestMuchByStream(t *testing.T) {
	t.Parallel()
	g := open(t, quiet())
	here := g.poll(t, as("ann", ""), `{"channels":{"article:a":{}}}`).Channels["article:a"]
	text := strings.Repeat("x", 10_000)
	for range 50 {
		g.publish(t, "article:a", text)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	// said is what a client hears that was at an offset, and publishes, up to both answers.
	said := func(path string, offset int) string {
		body := fmt.Sprintf(`{"id":1,"connect":{}}`+"\n"+`{"id":2,"subscribe":{"channel":"article:a","recover":true,"offset":%d,"epoch":%q}}`+"\n"+`{"id":3,"publish":{"channel":"chat:a","data":1}}`, offset, here.Epoch)
		r, _ := http.NewRequestWithContext(ctx, http.MethodPost, g.URL+path, strings.NewReader(body))
		r.Header = as("ann", "")
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		var heard strings.Builder
		for b := make([]byte, 64<<10); !strings.Contains(heard.String(), `"id":3`) || !strings.Contains(heard.String(), `"id":2`); {
			n, err := response.Body.Read(b)
			if heard.Write(b[:n]); err != nil {
				t.Fatalf("%s: %v after %d bytes", path, err, heard.Len())
			}
		}
		return heard.String()
	}
	for _, path := range []string{"/rt/stream", "/rt/sse"} {
		if heard := said(path, 0); strings.Contains(heard, "recovered") || !strings.Contains(heard, `"offset":50`) {
			t.Errorf("%s: %.500s", path, heard)
		}
		// It goes by what was missed, and not by what there is.
		if heard := said(path, 49); !strings.Contains(heard, `"recovered":true`) || strings.Count(heard, text) != 1 {
			t.Errorf("%s: %.500s", path, heard)
		}
	}
}

// A body that does not come keeps no connection.
func TestSlowBody(t *testing.T) {
	if testing.Short() {
		t.Skip("takes ten seconds")
	}
	t.Parallel()
	g := open(t, quiet())
	body, w := io.Pipe()
	defer w.Close()
	r, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, g.URL+"/rt/stream", body)
	r.Header = as("ann", "")
	began := time.Now()
	go func() { _, _ = io.WriteString(w, `{"id":1,`) }()
	response, err := http.DefaultClient.Do(r)
	if err == nil {
		_ = response.Body.Close()
		if response.StatusCode != http.StatusBadRequest {
			t.Errorf("%d", response.StatusCode)
		}
	}
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("it took %v", took)
	}
}
