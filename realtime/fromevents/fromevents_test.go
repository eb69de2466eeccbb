package fromevents_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	client "github.com/centrifugal/centrifuge-go"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/loadlinehq/loadline/causal"
	"github.com/loadlinehq/loadline/events"
	"github.com/loadlinehq/loadline/events/natsjs"
	"github.com/loadlinehq/loadline/internal/stack"
	"github.com/loadlinehq/loadline/internal/stack/stacktest"
	"github.com/loadlinehq/loadline/realtime"
	"github.com/loadlinehq/loadline/realtime/fromevents"
	"github.com/loadlinehq/loadline/tenancy"
)

func TestMain(m *testing.M) {
	if stack.ServeNATS() {
		return
	}
	m.Run()
}

type comment struct {
	Article string `json:"article"`
	Number  int    `json:"number"`
}

var posted = events.Define("comment.posted", "v1", events.KeyedBy(func(c comment) string { return c.Article }))

// pod is a gateway with a member of the group.
type pod struct {
	*realtime.Gateway
	*httptest.Server
}

// failing publishes and then says that it has not, now and then: the event is delivered again.
type failing struct {
	fromevents.Publisher
	n atomic.Int64
}

func (f *failing) Publish(ctx context.Context, p realtime.Publication) error {
	err := f.Publisher.Publish(ctx, p)
	if err == nil && f.n.Add(1)%7 == 0 {
		return errors.New("the answer is lost")
	}
	return err
}

func tell(ctx context.Context, e events.Event[comment]) ([]realtime.Publication, error) {
	if e.Payload.Article == "stray" {
		return []realtime.Publication{{Channel: realtime.Channel{Tenant: "other", Namespace: "article", Name: "x"}}}, nil
	}
	return []realtime.Publication{{Channel: realtime.ChannelOf(ctx, "article", e.Payload.Article), Data: e.Payload.Number}}, nil
}

func openPod(t *testing.T, set *stacktest.Set, redis string, keys causal.Keys) *pod {
	t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	g, err := realtime.Open(t.Context(), realtime.Config{
		Redis: []string{redis}, Prefix: set.KeyPrefix + "rt", Authenticate: func(*http.Request) (realtime.Identity, error) { return realtime.Identity{Tenant: "acme"}, nil }, Keys: keys, Logger: quiet, Late: time.Minute, Check: 2 * time.Second,
		Namespaces: map[string]realtime.Namespace{"article": {Subscribe: realtime.Anyone, History: 1000, HistoryAge: time.Minute}},
	})
	if err != nil {
		t.Fatal(err)
	}
	driver, err := natsjs.Open(t.Context(), natsjs.Config{
		URL: set.NATSURL, Stream: set.StreamPrefix + "EVENTS", DeadLetters: set.StreamPrefix + "DLQ", Advisories: set.StreamPrefix + "ADVISORIES",
		SubjectPrefix: set.SubjectPrefix, MaxBytes: 64 << 20, DeadLetterMaxBytes: 16 << 20, Logger: quiet,
	})
	if err != nil {
		t.Fatal(err)
	}
	consumer, err := events.NewConsumer(driver, events.ConsumerConfig{Group: "realtime", Logger: quiet, RetryDelay: func(int) time.Duration { return 20 * time.Millisecond }})
	if err != nil {
		t.Fatal(err)
	}
	fromevents.Handle(consumer, &failing{Publisher: g}, posted, tell)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := consumer.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	server := httptest.NewServer(g.Handler())
	t.Cleanup(func() {
		cancel()
		running.Wait()
		_ = g.Close()
		_ = driver.Close()
		server.Close()
	})
	return &pod{g, server}
}

// listener is one at a pod.
type listener struct {
	mu    sync.Mutex
	heard []string
	tags  map[string]string
	lost  bool
}

func (l *listener) toldLost() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lost
}

func (p *pod) listen(t *testing.T, channel string) *listener {
	t.Helper()
	c := client.NewJsonClient("ws"+strings.TrimPrefix(p.URL, "http")+"/websocket", client.Config{MinReconnectDelay: time.Millisecond, MaxReconnectDelay: 100 * time.Millisecond})
	t.Cleanup(c.Close)
	s, err := c.NewSubscription(channel)
	if err != nil {
		t.Fatal(err)
	}
	l := &listener{}
	ready := make(chan struct{})
	s.OnSubscribed(func(e client.SubscribedEvent) {
		l.mu.Lock()
		l.lost = l.lost || e.WasRecovering && !e.Recovered
		l.mu.Unlock()
		select {
		case <-ready:
		default:
			close(ready)
		}
	})
	s.OnPublication(func(e client.PublicationEvent) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.heard, l.tags = append(l.heard, string(e.Data)), e.Tags
	})
	if err := errors.Join(s.Subscribe(), c.Connect()); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ready:
	case <-time.After(20 * time.Second):
		t.Fatal("it is not subscribed")
	}
	return l
}

func (l *listener) all() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.heard, " ")
}

func (l *listener) until(t *testing.T, want string) {
	t.Helper()
	for limit := time.Now().Add(30 * time.Second); l.all() != want; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("heard %s, want %s", l.all(), want)
		}
	}
}

// kept is what a channel's history has, by who was in it at the start of a new epoch.
func kept(t *testing.T, p *pod, channel string) string {
	t.Helper()
	c := client.NewJsonClient("ws"+strings.TrimPrefix(p.URL, "http")+"/websocket", client.Config{})
	defer c.Close()
	s, err := c.NewSubscription(channel)
	if err == nil {
		err = errors.Join(c.Connect(), s.Subscribe())
	}
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	h, err := s.History(ctx, client.WithHistoryLimit(100))
	if err != nil {
		return err.Error()
	}
	var all []string
	for _, p := range h.Publications {
		all = append(all, string(p.Data))
	}
	return strings.Join(all, " ")
}

// deadLetters returns how many there are.
func deadLetters(t *testing.T, set *stacktest.Set) func() int {
	t.Helper()
	conn, err := nats.Connect(set.NATSURL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	return func() int {
		stream, err := js.Stream(t.Context(), set.StreamPrefix+"DLQ")
		if err != nil {
			t.Fatal(err)
		}
		return int(stream.CachedInfo().State.Msgs)
	}
}

func publish(t *testing.T, set *stacktest.Set, messages ...events.Message) {
	t.Helper()
	driver, err := natsjs.Open(t.Context(), natsjs.Config{
		URL: set.NATSURL, Stream: set.StreamPrefix + "EVENTS", DeadLetters: set.StreamPrefix + "DLQ", Advisories: set.StreamPrefix + "ADVISORIES",
		SubjectPrefix: set.SubjectPrefix, MaxBytes: 64 << 20, DeadLetterMaxBytes: 16 << 20, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer driver.Close()
	publisher, err := events.NewPublisher(driver, events.PublisherConfig{})
	if err != nil {
		t.Fatal(err)
	}
	if err := publisher.Publish(t.Context(), messages...); err != nil {
		t.Fatal(err)
	}
}

func event(t *testing.T, ctx context.Context, article string, n int) events.Message {
	t.Helper()
	m, err := posted.New(comment{article, n})
	if err != nil {
		t.Fatal(err)
	}
	return m.From(ctx)
}

// Two gateways of a group tell each event once, in the order of its key, with its writer's token, though a seventh of them is delivered twice; one
// that is late is no news; one that is of another tenant than its channel is told to nobody. While Redis is away events wait.
func TestFromEvents(t *testing.T) {
	t.Parallel()
	set := stacktest.New(t)
	redis := stacktest.StartRedis(t)
	keys, err := causal.NewKeys([]byte(strings.Repeat("k", 32)))
	if err != nil {
		t.Fatal(err)
	}
	one, two := openPod(t, set, "redis://"+redis.Address, keys), openPod(t, set, "redis://"+redis.Address, keys)
	tenant, err := tenancy.With(t.Context(), "acme")
	if err != nil {
		t.Fatal(err)
	}
	const each = 60
	articles := []string{"a", "b", "c", "d"}
	var listeners []*listener
	for i, article := range articles {
		listeners = append(listeners, []*pod{one, two}[i%2].listen(t, "acme/article:"+article))
	}
	token := causal.NewToken(causal.Mark{System: 7, Timeline: 1, LSN: 99})
	ctx := causal.WithSession(tenant, causal.NewSession(token))
	var all []events.Message
	var want []string
	for n := range each {
		want = append(want, fmt.Sprint(n))
		for _, article := range articles {
			all = append(all, event(t, ctx, article, n))
		}
	}
	publish(t, set, all...)
	for _, l := range listeners {
		l.until(t, strings.Join(want, " "))
	}
	if seen, err := keys.Verify(listeners[0].tags[realtime.TagToken]); err != nil || !seen.Equal(token) {
		t.Errorf("the token is %v, %v", seen, err)
	}

	late := event(t, ctx, "a", 1000)
	late.Time = time.Now().Add(-time.Hour)
	stray := two.listen(t, "acme/article:x")
	publish(t, set, event(t, ctx, "stray", 0), late)
	listeners[0].until(t, strings.Join(append(want, "null"), " "))
	if listeners[0].tags[realtime.TagLate] == "" {
		t.Errorf("tags are %v", listeners[0].tags)
	}

	dead := deadLetters(t, set)
	for limit := time.Now().Add(20 * time.Second); dead() != 1; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("there are %d dead letters, and one event was of another tenant", dead())
		}
	}
	if heard := stray.all(); heard != "" {
		t.Errorf("it was told: %s", heard)
	}

	redis.Kill()
	publish(t, set, event(t, ctx, "b", 2000))
	time.Sleep(500 * time.Millisecond)
	redis.Start()
	// Who comes after it hears of what has waited; who was there hears, or is told to read anew, for Redis is empty.
	for limit := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if kept(t, two, "acme/article:b") == "2000" {
			break
		}
		if time.Now().After(limit) {
			t.Fatalf("what has waited was not told: %q", kept(t, two, "acme/article:b"))
		}
	}
	for limit := time.Now().Add(30 * time.Second); !strings.HasSuffix(listeners[1].all(), "2000") && !listeners[1].toldLost(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("after Redis was away: %s", listeners[1].all())
		}
	}
}
