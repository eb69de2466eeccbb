package realtime_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	client "github.com/centrifugal/centrifuge-go"

	"github.com/loadlinehq/loadline/realtime"
)

// upgrade asks for a WebSocket, and returns the status.
func (g *gateway) upgrade(t testing.TB, header http.Header) (int, http.Header) {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(g.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	r, _ := http.NewRequest(http.MethodGet, g.URL+"/rt/websocket", nil)
	for name, values := range header {
		r.Header[name] = values
	}
	for name, value := range map[string]string{"Connection": "Upgrade", "Upgrade": "websocket", "Sec-Websocket-Version": "13", "Sec-Websocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="} {
		r.Header.Set(name, value)
	}
	if err := r.Write(conn); err != nil {
		t.Fatal(err)
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), r)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, response.Header
}

// Pages of other sites do not connect, by any transport, though a browser sends them with the user's cookies.
func TestOrigins(t *testing.T) {
	t.Parallel()
	g := open(t, quiet(func(c *realtime.Config) { c.Origins = []string{"https://app.example.com"} }))
	host := strings.TrimPrefix(g.URL, "http://")
	for _, c := range []struct {
		name, header, value string
		ok                  bool
	}{
		{"the same", "Origin", "http://" + host, true},
		{"none", "X-None", "", true},
		{"one that is allowed", "Origin", "https://app.example.com", true},
		{"another", "Origin", "https://evil.example", false},
		{"a sandbox", "Origin", "null", false},
		{"one like it", "Origin", "https://app.example.com.evil.example", false},
		{"another port", "Origin", "http://127.0.0.1:1", false},
		{"an image", "Sec-Fetch-Site", "cross-site", false},
		{"a neighbour", "Sec-Fetch-Site", "same-site", false},
	} {
		h := as("ann", "")
		h.Set(c.header, c.value)
		status, _ := g.upgrade(t, h)
		poll := g.poll(t, h, `{"channels":{"article:a":{}}}`)
		r, _ := http.NewRequest(http.MethodGet, g.URL+"/rt/sse", nil)
		r.Header = h
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		if c.ok != (status == 101) || c.ok != (poll.Status == 200) || c.ok != (response.StatusCode == 400) {
			t.Errorf("%s: %d, %d, %d", c.name, status, poll.Status, response.StatusCode)
		}
	}
	r, _ := http.NewRequest(http.MethodOptions, g.URL+"/rt/poll", nil)
	r.Header.Set("Origin", "https://app.example.com")
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	if response.StatusCode != 204 || response.Header.Get("Access-Control-Allow-Origin") != "https://app.example.com" {
		t.Errorf("a preflight: %d %v", response.StatusCode, response.Header)
	}
}

// Who may not connect, or finds no room, is told by HTTP, and when to come back.
func TestRefused(t *testing.T) {
	t.Parallel()
	var away atomic.Bool
	g := open(t, quiet(func(c *realtime.Config) {
		c.MaxConnections, c.MaxConnectionsPerUser = 3, 2
		c.Authenticate = func(r *http.Request) (realtime.Identity, error) {
			if away.Load() {
				return realtime.Identity{}, errors.New("the database is away")
			}
			return known(r)
		}
	}))
	if status, _ := g.upgrade(t, http.Header{}); status != 401 {
		t.Errorf("a stranger: %d", status)
	}
	away.Store(true)
	if status, h := g.upgrade(t, as("ann", "")); status != 503 || h.Get("Retry-After") == "" {
		t.Errorf("nobody knows: %d %v", status, h)
	}
	away.Store(false)
	one, two := g.connect(t, as("ann", "")), g.connect(t, as("ann", ""))
	until(t, "both are there", func() bool { return one.State() == client.StateConnected && two.State() == client.StateConnected })
	third := g.connect(t, as("ann", ""))
	until(t, "a user's third is refused", func() bool { return third.State() == client.StateDisconnected })
	bob := g.connect(t, as("bob", ""))
	until(t, "another's is not", func() bool { return bob.State() == client.StateConnected })
	if status, h := g.upgrade(t, as("eve", "")); status != 503 || h.Get("Retry-After") == "" {
		t.Errorf("the gateway is full: %d %v", status, h)
	}
}

// After a burst clients come at the rate that is set.
func TestHandshakes(t *testing.T) {
	t.Parallel()
	g := open(t, quiet(func(c *realtime.Config) { c.Handshakes = 20 }))
	taken, refused := 0, 0
	began := time.Now()
	for time.Since(began) < 2*time.Second {
		if status, _ := g.upgrade(t, as(fmt.Sprint(taken), "")); status == 101 {
			taken++
		} else {
			refused++
		}
	}
	seconds := time.Since(began).Seconds()
	if most := 20 + 20*seconds + 1; float64(taken) > most || taken < 20 {
		t.Errorf("%d in %v s, and %.0f are allowed; %d refused", taken, seconds, most, refused)
	}
}

// A connection that sends too much ends.
func TestCommands(t *testing.T) {
	t.Parallel()
	g := open(t, quiet(func(c *realtime.Config) { c.Commands, c.MaxChannels = 5, 4 }))
	cut := make(chan uint32, 100)
	c := g.connect(t, as("ann", ""), func(e client.ConnectingEvent) {
		if e.Code != 0 && len(cut) < cap(cut) {
			cut <- e.Code
		}
	})
	for range 100 {
		_, _ = c.Publish(t.Context(), "chat:a", []byte("1"))
		select {
		case code := <-cut:
			if code != 3013 {
				t.Errorf("the code is %d", code)
			}
			return
		default:
		}
	}
	t.Error("a hundred commands at once are taken")
}

// Sessions are asked again before they end, and who has none any more is cut off; who shows tokens shows newer ones.
func TestExpiry(t *testing.T) {
	t.Parallel()
	var asked, ended, unknown atomic.Int64
	g := open(t, quiet(func(c *realtime.Config) {
		c.Authenticate = func(r *http.Request) (realtime.Identity, error) {
			who, err := known(r)
			if r.Header.Get("Cookie") == "" {
				return who, err
			}
			asked.Add(1)
			if ended.Load() > 0 {
				return who, realtime.ErrUnauthenticated
			}
			if asked.Load() == 2 { // the first time that it is asked again
				unknown.Add(1)
				return who, errors.New("the database is away")
			}
			who = realtime.Identity{User: strings.TrimPrefix(r.Header.Get("Cookie"), "user="), Expires: time.Now().Add(2 * time.Second)}
			return who, nil
		}
		c.Token = func(_ context.Context, token string) (realtime.Identity, error) {
			switch {
			case token == "old":
				return realtime.Identity{}, realtime.ErrExpired
			case !strings.HasPrefix(token, "user="):
				return realtime.Identity{}, realtime.ErrUnauthenticated
			}
			return realtime.Identity{User: strings.TrimPrefix(token, "user="), Expires: time.Now().Add(2 * time.Second)}, nil
		}
	}))
	session := g.connect(t, http.Header{"Cookie": {"user=ann"}})
	l := listen(t, session, "user:ann")
	until(t, "the session is asked again", func() bool { return asked.Load() >= 2 })
	if unknown.Load() != 1 || session.State() != client.StateConnected {
		t.Errorf("while nobody can be asked, who was known is %v", session.State())
	}
	g.publish(t, "user:ann", 1)
	until(t, "it goes on", func() bool { return l.all() == "1" })
	second := g.connect(t, http.Header{"Cookie": {"user=ann"}})
	until(t, "it is asked again", func() bool { return asked.Load() >= 4 })
	ended.Store(1)
	until(t, "it is cut off", func() bool { return second.State() != client.StateConnected })

	var given atomic.Int64
	given.Store(-1)
	token := client.NewJsonClient("ws"+strings.TrimPrefix(g.URL, "http")+"/rt/websocket", client.Config{
		Token: "old", MinReconnectDelay: time.Millisecond,
		GetToken: func(client.ConnectionTokenEvent) (string, error) { given.Add(1); return "user=bob", nil },
	})
	t.Cleanup(token.Close)
	if err := token.Connect(); err != nil {
		t.Fatal(err)
	}
	heard := listen(t, token, "user:bob")
	until(t, "newer tokens are shown", func() bool { return given.Load() >= 2 })
	g.publish(t, "user:bob", 2)
	until(t, "it goes on", func() bool { return heard.all() == "2" })

	forged := client.NewJsonClient("ws"+strings.TrimPrefix(g.URL, "http")+"/rt/websocket", client.Config{Token: "forged"})
	t.Cleanup(forged.Close)
	_ = forged.Connect()
	until(t, "who has a wrong token ends", func() bool { return forged.State() == client.StateDisconnected })
	if a := g.poll(t, http.Header{}, `{"token":"old","channels":{"user:bob":{}}}`); a.Status != 401 || a.Title != "token expired" {
		t.Errorf("%+v", a)
	}
	if a := g.poll(t, http.Header{}, `{"token":"user=bob","channels":{"user:bob":{}}}`); a.Status != 200 || len(a.Channels) != 1 {
		t.Errorf("%+v", a)
	}
}

// A session that has expired may be followed by another; one that there is not need not be shown again.
func TestExpiredSession(t *testing.T) {
	t.Parallel()
	for says, want := range map[error]string{realtime.ErrExpired: "token expired", realtime.ErrUnauthenticated: "not authenticated"} {
		g := open(t, quiet(func(c *realtime.Config) {
			c.Authenticate = func(*http.Request) (realtime.Identity, error) { return realtime.Identity{}, says }
		}))
		if a := g.poll(t, http.Header{}, `{"channels":{"article:a":{}}}`); a.Status != 401 || a.Title != want {
			t.Errorf("%v: %+v", says, a)
		}
	}
}

// Who shows another's token, or has another's session by now, hears no more of what the one before was allowed.
func TestBecomesAnother(t *testing.T) {
	t.Parallel()
	var shown, asked atomic.Int64
	soon := func(user string) realtime.Identity {
		return realtime.Identity{User: user, Expires: time.Now().Add(2 * time.Second)}
	}
	g := open(t, quiet(func(c *realtime.Config) {
		c.Authenticate = func(r *http.Request) (realtime.Identity, error) {
			if r.Header.Get("Cookie") == "" {
				return realtime.Identity{}, realtime.ErrUnauthenticated
			}
			if asked.Add(1) == 1 {
				return soon("bob"), nil
			}
			return soon("eve"), nil
		}
		c.Token = func(_ context.Context, token string) (realtime.Identity, error) { return soon(token), nil }
	}))
	address := "ws" + strings.TrimPrefix(g.URL, "http") + "/rt/websocket"
	token := client.NewJsonClient(address, client.Config{
		Token: "bob", MinReconnectDelay: time.Millisecond, GetToken: func(client.ConnectionTokenEvent) (string, error) { shown.Add(1); return "eve", nil },
	})
	session := client.NewJsonClient(address, client.Config{Header: http.Header{"Cookie": {"s=1"}}, MinReconnectDelay: time.Millisecond})
	var heard []*listener
	for _, c := range []*client.Client{token, session} {
		t.Cleanup(c.Close)
		if err := c.Connect(); err != nil {
			t.Fatal(err)
		}
		heard = append(heard, listen(t, c, "user:bob"))
	}
	g.publish(t, "user:bob", 1)
	until(t, "bob is told", func() bool { return heard[0].all() == "1" && heard[1].all() == "1" })
	until(t, "both are another", func() bool { return shown.Load() >= 1 && asked.Load() >= 2 })
	time.Sleep(200 * time.Millisecond) // what is taken is answered by then
	g.publish(t, "user:bob", 2)
	time.Sleep(300 * time.Millisecond)
	if heard[0].all() != "1" || heard[1].all() != "1" {
		t.Errorf("eve by token hears %s, by session %s", heard[0].all(), heard[1].all())
	}
}

// The module is served, and small.
func TestModule(t *testing.T) {
	t.Parallel()
	g := open(t, quiet())
	response, err := http.Get(g.URL + "/rt/realtime.js")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || !strings.Contains(string(body), "export class Realtime") || !strings.HasPrefix(response.Header.Get("Content-Type"), "text/javascript") {
		t.Errorf("%v, %v, %.100s", err, response.Header, body)
	}
	r, _ := http.NewRequest(http.MethodGet, g.URL+"/rt/realtime.js", nil)
	r.Header.Set("Accept-Encoding", "gzip") // and it is not undone
	compressed, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer compressed.Body.Close()
	if body, _ = io.ReadAll(compressed.Body); len(body) < 1000 || len(body) >= 5000 || compressed.Header.Get("Content-Encoding") != "gzip" {
		t.Errorf("%d bytes, %v", len(body), compressed.Header)
	}
	r.Header.Set("If-None-Match", compressed.Header.Get("ETag"))
	again, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	if _ = again.Body.Close(); again.StatusCode != http.StatusNotModified {
		t.Errorf("what the browser has is sent again: %d", again.StatusCode)
	}
}

func TestBadConfigurations(t *testing.T) {
	t.Parallel()
	_, err := realtime.Open(t.Context(), realtime.Config{
		Namespaces: map[string]realtime.Namespace{"a b": {}, "h": {History: 10}, "s": {State: true}},
		Origins:    []string{"app.example.com"}, MaxQueueBytes: 10, Ping: time.Millisecond, Late: time.Millisecond, MaxChannels: -1,
	})
	for _, want := range []string{
		"Authenticate and Token are missing", `namespace "a b"`, `["h"] has one of History (10) and HistoryAge (0s)`, `["s"].State needs History`, `Origins[0] is "app.example.com"`, "MaxQueueBytes is 10", "Ping is 1ms",
		"Late is 1ms", "MaxChannels is -1",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not say %q: %v", want, err)
		}
	}
	if _, err := realtime.Open(t.Context(), quiet(func(c *realtime.Config) { c.Redis = []string{"redis://:secret@127.0.0.1:1"} })); err == nil || strings.Contains(err.Error(), "secret") || !strings.Contains(err.Error(), "Config.Redis[0]") {
		t.Errorf("a Redis that is away: %v", err)
	}
}
