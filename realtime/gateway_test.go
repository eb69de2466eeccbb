package realtime_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	client "github.com/centrifugal/centrifuge-go"

	"github.com/loadlinehq/loadline/causal"
	"github.com/loadlinehq/loadline/realtime"
)

// everywhere runs a test on channels in memory and in Redis.
func everywhere(t *testing.T, test func(t *testing.T, where func(*realtime.Config))) {
	t.Run("memory", func(t *testing.T) { t.Parallel(); test(t, func(*realtime.Config) {}) })
	t.Run("redis", func(t *testing.T) { t.Parallel(); test(t, inRedis(t)) })
}

// What is published at one gateway is heard at the other, in order; and who was away is brought what he has missed.
func TestTwoGateways(t *testing.T) {
	t.Parallel()
	where := inRedis(t)
	one, two := open(t, quiet(where)), open(t, quiet(where))
	l := listen(t, two.connect(t, as("ann", "")), "article:a")
	for i := range 20 {
		one.publish(t, "article:a", i)
	}
	want := "0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19"
	until(t, "all is heard", func() bool { return l.all() == want })

	away := &plain{url: func() string { return two.URL }}
	away.visit(t, "article:a")()
	one.publish(t, "article:a", 20)
	one.publish(t, "article:a", 21)
	leave := away.visit(t, "article:a")
	one.publish(t, "article:a", 22)
	until(t, "it has what it missed", func() bool { return away.heard.Load() == 22 })
	if leave(); away.lost.Load() != 0 || away.gaps.Load() != 0 || away.offset != 23 {
		t.Errorf("%d lost, %d gaps, at %d", away.lost.Load(), away.gaps.Load(), away.offset)
	}
}

// Who is not allowed hears the same, whatever there is.
func TestPermissions(t *testing.T) {
	t.Parallel()
	everywhere(t, func(t *testing.T, where func(*realtime.Config)) {
		g := open(t, quiet(where, func(c *realtime.Config) {
			c.Namespaces["broken"] = realtime.Namespace{Subscribe: func(context.Context, realtime.Identity, realtime.Channel) error { return realtime.ErrForbidden }}
			c.Namespaces["closed"] = realtime.Namespace{}
		}))
		acme := listen(t, g.connect(t, as("ann", "acme")), "acme/article:a")
		ann := g.connect(t, as("ann", ""))
		own := listen(t, ann, "user:ann")
		seen := make(map[string][]string)
		for _, channel := range []string{
			"acme/article:a", "other/article:a", "user:bob", "user:nobody", "closed:a", "none:a", "noname", "article:", ":a", "/article:a", "a/b/article:a", "broken:x", "acme/user:ann", "article:a b",
		} {
			l := listen(t, ann, channel)
			if !l.isDenied() {
				t.Errorf("%s is open", channel)
				continue
			}
			seen[l.denied.Error()] = append(seen[l.denied.Error()], channel)
			_, err1 := ann.Presence(t.Context(), channel)
			_, err2 := ann.PresenceStats(t.Context(), channel)
			_, err3 := ann.History(t.Context(), channel, client.WithHistoryLimit(10))
			_, err4 := ann.Publish(t.Context(), channel, []byte("1"))
			for i, err := range []error{err1, err2, err3, err4} {
				var refused *client.Error
				if !errors.As(err, &refused) || refused.Code != 103 {
					t.Errorf("%s: question %d is answered %v", channel, i, err)
				}
			}
		}
		if len(seen) != 1 {
			t.Errorf("refusals differ: %v", seen)
		}
		// What one listens to oneself may be asked.
		mine := listen(t, ann, "article:a")
		if mine.isDenied() || own.isDenied() || acme.isDenied() {
			t.Errorf("%v %v %v", mine.denied, own.denied, acme.denied)
		}
		until(t, "presence is there", func() bool {
			p, err := ann.Presence(t.Context(), "article:a")
			return err == nil && len(p.Clients) == 1
		})
		if _, err := ann.Publish(t.Context(), "article:a", []byte("1")); err == nil {
			t.Error("a client publishes where it may not")
		}
		g.publish(t, "article:a", "plain")
		g.publish(t, "acme/article:a", "acme's")
		g.publish(t, "user:ann", "ann's")
		until(t, "each hears its own", func() bool {
			return acme.all() == `"acme's"` && mine.all() == `"plain"` && own.all() == `"ann's"`
		})
	})
}

// Clients publish where they may, and what breaks others' messages is refused.
func TestClientsPublish(t *testing.T) {
	t.Parallel()
	g := open(t, quiet())
	ann := g.connect(t, as("ann", ""))
	l := listen(t, g.connect(t, as("bob", "")), "chat:room")
	if _, err := ann.Publish(t.Context(), "chat:room", []byte(`{"text":"hello"}`)); err != nil {
		t.Fatal(err)
	}
	binary := client.NewProtobufClient("ws"+strings.TrimPrefix(g.URL, "http")+"/rt/websocket", client.Config{Header: as("eve", "")})
	t.Cleanup(binary.Close)
	if err := binary.Connect(); err != nil {
		t.Fatal(err)
	}
	if _, err := binary.Publish(t.Context(), "chat:room", []byte("no \n JSON")); err == nil {
		t.Error("what is no JSON is taken")
	}
	post := func(header http.Header, body string) int {
		r, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, g.URL+"/rt/publish", strings.NewReader(body))
		r.Header = header
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		return response.StatusCode
	}
	for body, want := range map[string]int{
		`{"channel":"chat:room","data":{"text":"by a poll"}}`: 204, `{"channel":"user:bob","data":1}`: 403, `{"channel":"other/chat:room","data":1}`: 403, `{"channel":"chat:room"`: 400,
	} {
		if got := post(as("ann", ""), body); got != want {
			t.Errorf("%s: %d, want %d", body, got, want)
		}
	}
	if got := post(http.Header{}, `{"channel":"chat:room","data":1}`); got != 401 {
		t.Errorf("a stranger: %d", got)
	}
	until(t, "both are heard", func() bool { return l.all() == `{"text":"hello"} {"text":"by a poll"}` })
}

// One id is one publication; what is late is no news; an older state is dropped; the token is there.
func TestPublications(t *testing.T) {
	t.Parallel()
	everywhere(t, func(t *testing.T, where func(*realtime.Config)) {
		keys, err := causal.NewKeys([]byte(strings.Repeat("k", 32)))
		if err != nil {
			t.Fatal(err)
		}
		g := open(t, quiet(where, func(c *realtime.Config) { c.Keys = keys }))
		c := g.connect(t, as("ann", ""))
		l, state := listen(t, c, "article:a"), listen(t, c, "state:s")
		token := causal.NewToken(causal.Mark{System: 7, Timeline: 1, LSN: 99})
		ctx := causal.WithSession(t.Context(), causal.NewSession(token))
		article, s := realtime.Channel{Namespace: "article", Name: "a"}, realtime.Channel{Namespace: "state", Name: "s"}
		for _, p := range []realtime.Publication{
			{Channel: article, Data: 1, ID: "x"},
			{Channel: article, Data: 1, ID: "x"},
			{Channel: article, Data: 2, ID: "y", At: time.Now()},
			{Channel: article, Data: 3, At: time.Now().Add(-time.Hour)},
			{Channel: s, Data: 5, Version: 5, Epoch: "e"},
			{Channel: s, Data: 4, Version: 4, Epoch: "e"},
			{Channel: s, Data: 6, Version: 6, Epoch: "e"},
		} {
			if err := g.Publish(ctx, p); err != nil {
				t.Fatal(err)
			}
		}
		until(t, "all is heard", func() bool { return l.all() == "1 2 null" && state.all() == "5 6" })
		if l.tags[realtime.TagLate] != "1" {
			t.Errorf("tags are %v", l.tags)
		}
		if seen, err := keys.Verify(l.tags[realtime.TagToken]); err != nil || !seen.Equal(token) {
			t.Errorf("the token is %v, %v", seen, err)
		}
		// Who comes later has the latest state.
		if late := listen(t, g.connect(t, as("bob", "")), "state:s"); late.all() != "6" {
			until(t, "the state is there", func() bool { return late.all() == "6" })
		}
		for name, p := range map[string]realtime.Publication{
			"no namespace": {Channel: realtime.Channel{Namespace: "none", Name: "a"}}, "no name": {Channel: realtime.Channel{Namespace: "article"}},
			"no JSON": {Channel: article, Data: func() {}}, "too long": {Channel: article, Data: strings.Repeat("x", 70_000)}, "a version without state": {Channel: article, Version: 1},
		} {
			if err := g.Publish(t.Context(), p); !errors.Is(err, realtime.ErrPublication) && !errors.Is(err, realtime.ErrChannel) {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

// A client that comes back is brought more than a connection may leave unread.
func TestMuchIsRecovered(t *testing.T) {
	t.Parallel()
	everywhere(t, func(t *testing.T, where func(*realtime.Config)) {
		g := open(t, quiet(where))
		p := &plain{url: func() string { return g.URL }}
		p.visit(t, "article:a")()
		text := strings.Repeat("x", 10_000)
		for i := range 100 {
			g.publish(t, "article:a", fmt.Sprint(i+1, text))
		}
		leave := p.visit(t, "article:a")
		until(t, "it has a megabyte", func() bool { return p.heard.Load() == 100 })
		time.Sleep(200 * time.Millisecond)
		if !leave() || p.lost.Load() != 0 || p.gaps.Load() != 0 || p.offset != 100 {
			t.Errorf("%d lost, %d gaps, at %d, or it was cut off", p.lost.Load(), p.gaps.Load(), p.offset)
		}
	})
}

// A drain sends clients away at an even pace; they come to the other gateway, and miss nothing.
func TestDrain(t *testing.T) {
	t.Parallel()
	where := inRedis(t)
	const drain, clients = 2 * time.Second, 40
	one := open(t, quiet(where, func(c *realtime.Config) { c.Drain = drain }))
	two := open(t, quiet(where))
	front := newFront(t, one.URL, two.URL)
	gone := make(chan time.Time, 10*clients)
	var all []*listener
	for i := range clients {
		c := (&gateway{Server: front}).connect(t, as(fmt.Sprint("user", i), ""), func(e client.ConnectingEvent) {
			if e.Code != 0 { // not by itself
				gone <- time.Now()
			}
		})
		all = append(all, listen(t, c, "article:a"))
	}
	began := time.Now()
	stopped := make(chan struct{})
	go func() { one.stop(); close(stopped) }()
	published := 0
	for done := false; !done; published++ {
		two.publish(t, "article:a", published)
		select {
		case <-stopped:
			done = true
		case <-time.After(20 * time.Millisecond):
		}
	}
	if took := time.Since(began); took < drain*3/4 || took > drain+10*time.Second {
		t.Errorf("it took %v", took)
	}
	var want []string
	for i := range published {
		want = append(want, fmt.Sprint(i))
	}
	for _, l := range all {
		until(t, "all is heard", func() bool { return l.all() == strings.Join(want, " ") })
	}
	close(gone)
	quarters := make([]int, 4)
	n := 0
	for at := range gone {
		quarters[min(3, max(0, int(4*at.Sub(began)/drain)))]++
		n++
	}
	if n != clients {
		t.Errorf("%d of %d were sent away", n, clients)
	}
	for i, q := range quarters {
		if q < clients/10 || q > clients/2 {
			t.Errorf("in quarter %d of the time %d of %d were sent away: %v", i, q, clients, quarters)
			break
		}
	}
}

// Nobody is waited for who has gone.
func TestDrainOfOne(t *testing.T) {
	t.Parallel()
	g := open(t, quiet(func(c *realtime.Config) { c.Drain = time.Minute }))
	g.connect(t, as("ann", ""))
	began := time.Now()
	g.stop()
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("it took %v", took)
	}
}

// What is shown of a user to those who may see who is there is not shown to others with what he publishes.
func TestInfoOfPublishers(t *testing.T) {
	t.Parallel()
	g := open(t, quiet(func(c *realtime.Config) {
		c.Authenticate = func(r *http.Request) (realtime.Identity, error) {
			who, err := known(r)
			who.Info = []byte(`{"mail":"ann@example.com"}`)
			return who, err
		}
		c.Namespaces["seen"] = realtime.Namespace{Subscribe: realtime.Known, Publish: realtime.Known, Presence: true}
	}))
	ann := g.connect(t, as("ann", ""))
	for channel, want := range map[string]string{"chat:a": "", "seen:a": `{"mail":"ann@example.com"}`} {
		heard := make(chan *client.ClientInfo, 1)
		s, err := g.connect(t, as("bob", "")).NewSubscription(channel)
		if err != nil {
			t.Fatal(err)
		}
		s.OnPublication(func(e client.PublicationEvent) {
			select {
			case heard <- e.Info:
			default:
			}
		})
		if err := s.Subscribe(); err != nil {
			t.Fatal(err)
		}
		var info *client.ClientInfo
		until(t, "it is heard", func() bool { // what is published before somebody listens is not
			if _, err := ann.Publish(t.Context(), channel, []byte(`1`)); err != nil {
				t.Fatal(err)
			}
			select {
			case info = <-heard:
				return true
			case <-time.After(50 * time.Millisecond):
				return false
			}
		})
		if info == nil || info.User != "ann" || string(info.ConnInfo) != want {
			t.Errorf("%s: %+v", channel, info)
		}
	}
}

// Two gateways of one process that share nothing have channels of the same name, and neither is given what the other keeps.
func TestGatewaysApart(t *testing.T) {
	t.Parallel()
	one, two := open(t, quiet(inRedis(t))), open(t, quiet(inRedis(t)))
	one.publish(t, "state:same", "one")
	two.publish(t, "state:same", "two")
	wrong := make(chan string, 1000)
	var asking sync.WaitGroup
	for n := range 8 {
		g, want := one, `"one"`
		if n%2 == 1 {
			g, want = two, `"two"`
		}
		asking.Go(func() {
			for i := range 50 {
				if got := g.poll(t, as(fmt.Sprint(n, "-", i), ""), `{"channels":{"state:same":{}}}`).data("state:same"); got != want {
					wrong <- got
				}
			}
		})
	}
	asking.Wait()
	if len(wrong) > 0 {
		t.Errorf("%d answers are another gateway's: %s", len(wrong), <-wrong)
	}
}

// Who has logged out hears nothing any more, at any gateway.
func TestDisconnect(t *testing.T) {
	t.Parallel()
	where := inRedis(t)
	one, two := open(t, quiet(where)), open(t, quiet(where))
	c := two.connect(t, as("ann", "acme"))
	other := listen(t, two.connect(t, as("ann", "")), "article:a")
	listen(t, c, "acme/article:a")
	removed := listen(t, c, "acme/article:b")
	if err := one.Unsubscribe(t.Context(), "ann", realtime.Channel{Tenant: "acme", Namespace: "article", Name: "b"}); err != nil {
		t.Fatal(err)
	}
	until(t, "it does not listen any more", removed.isDenied)
	polled := make(chan answer, 1)
	where2 := two.poll(t, as("ann", "acme"), `{"channels":{"acme/article:a":{}}}`).Channels["acme/article:a"]
	go func() {
		polled <- two.poll(t, as("ann", "acme"), fmt.Sprintf(`{"channels":{"acme/article:a":{"offset":%d,"epoch":%q}}}`, where2.Offset, where2.Epoch))
	}()
	time.Sleep(300 * time.Millisecond)
	if err := one.Disconnect(t.Context(), "acme", "ann"); err != nil {
		t.Fatal(err)
	}
	if a := <-polled; a.Status != http.StatusUnauthorized {
		t.Errorf("a poll goes on: %+v", a)
	}
	until(t, "it is disconnected for good", func() bool { return c.State() == client.StateDisconnected })
	one.publish(t, "article:a", 1)
	until(t, "the other tenant's ann hears", func() bool { return other.all() == "1" })
}
