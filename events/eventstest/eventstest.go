package eventstest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/loadlinehq/loadline/events"
)

// Broker is a real broker under test.
type Broker struct {
	// Open returns a driver on an empty broker, or on a part of one that nobody else uses,
	// and its dead letters. It closes it when the test ends.
	Open func(t *testing.T) Opened
	// Stop and Start end the broker and bring it back with what it had stored; Pause and
	// Resume stop all its threads. Nil: the cases that need them are skipped.
	Stop, Start, Pause, Resume func(t *testing.T)
}

// Opened is a driver with a look at its dead letters.
type Opened struct {
	events.Driver
	DeadLetters func(t *testing.T) []DeadLetter
	// Lag is how many messages a subscription has not settled.
	Lag func(t *testing.T, subscription string) int64
}

// DeadLetter is one that the broker keeps.
type DeadLetter struct {
	Raw    events.Raw
	Reason events.Reason
	Error  string
}

// number is what most cases send.
type number struct {
	N   int    `json:"n"`
	Key string `json:"key,omitempty"`
}

var (
	plain = events.Define[number]("eventstest.plain", events.V1)
	keyed = events.Define("eventstest.keyed", events.V1, events.KeyedBy(func(n number) string { return n.Key }))
)

// Run runs all cases, side by side where they can be.
func Run(t *testing.T, b Broker) {
	for name, test := range map[string]func(*testing.T, Opened){
		"bytes":           testBytes,
		"groups":          testGroups,
		"members":         testMembers,
		"earlier events":  testEarlier,
		"retry":           testRetry,
		"dead letter":     testDead,
		"poison":          testPoison,
		"long handler":    testLong,
		"silent member":   testSilent,
		"crash":           testCrash,
		"order":           testOrder,
		"graceful stop":   testStop,
		"duplicate":       testDuplicate,
		"unknown version": testUnknownVersion,
		"lag":             testLag,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, b.Open(t))
		})
	}
}

// member is a consumer that runs until the test ends, or stop is called.
func member(t *testing.T, o Opened, change func(*events.ConsumerConfig), register func(*events.Consumer)) (stop func()) {
	t.Helper()
	c := events.ConsumerConfig{
		Logger: slog.New(slog.DiscardHandler), AckWait: 2 * time.Second,
		RetryDelay: func(int) time.Duration { return 50 * time.Millisecond },
	}
	if change != nil {
		change(&c)
	}
	consumer, err := events.NewConsumer(o, c)
	if err != nil {
		t.Fatal(err)
	}
	register(consumer)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- consumer.Run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			select {
			case err := <-ended:
				if err != nil {
					t.Errorf("consumer: %v", err)
				}
			case <-time.After(30 * time.Second):
				t.Error("the consumer does not end")
			}
		})
	}
	t.Cleanup(stop)
	return stop
}

func messages(t testing.TB, typ events.Type[number], numbers ...number) []events.Message {
	t.Helper()
	var all []events.Message
	for _, n := range numbers {
		m, err := typ.New(n)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, m)
	}
	return all
}

func publish(t testing.TB, d events.Driver, all ...events.Message) {
	t.Helper()
	p, err := events.NewPublisher(d, events.PublisherConfig{Source: "/eventstest", Timeout: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Publish(t.Context(), all...); err != nil {
		t.Fatal(err)
	}
}

// seen collects what handlers got.
type seen struct {
	mu  sync.Mutex
	all []number
}

func (s *seen) add(n number) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, n)
}

func (s *seen) numbers() (all []int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range s.all {
		all = append(all, n.N)
	}
	return all
}

func (s *seen) len() int { return len(s.numbers()) }

func upTo(n int) []number {
	all := make([]number, n)
	for i := range all {
		all[i].N = i
	}
	return all
}

func within(t testing.TB, limit time.Duration, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", limit, what)
		}
	}
}

// raws gets messages without a consumer's help.
func raws(t *testing.T, d events.Driver, s events.Subscription, n int) (all []events.Raw) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	err := d.Subscribe(ctx, s, func(got events.Delivery) {
		all = append(all, got.Raw())
		if err := got.Ack(ctx); err != nil {
			t.Error(err)
		}
		if len(all) == n {
			cancel()
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func subscription(name string, typ string, partition int) events.Subscription {
	return events.Subscription{
		Name: name, Filters: []events.Filter{{Type: typ, Partition: partition}}, MaxInFlight: 100, Prefetch: 10,
		AckWait: time.Second, MaxDeliveries: 10,
	}
}

// What arrives is what was sent, to the byte.
func testBytes(t *testing.T, o Opened) {
	binary := make([]byte, 256)
	for i := range binary {
		binary[i] = byte(i)
	}
	header := map[string]string{"ce-id": "x", "Idempotency-Key": "k", "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "ce-subject": "%C3%A4 b"}
	sent := []events.Raw{
		{Body: []byte{}},
		{Body: binary},
		{Body: []byte("ünïcode 评论 🚀"), Header: header},
		{Body: []byte(strings.Repeat("x", events.MaxPayload))},
	}
	for i := range sent {
		sent[i].ID, sent[i].Type, sent[i].Partition = fmt.Sprint("bytes-", i), "eventstest.bytes", -1
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for i, err := range o.Publish(ctx, sent) {
		if err != nil {
			t.Fatalf("message %d: %v", i, err)
		}
	}
	got := raws(t, o, subscription("bytes", "eventstest.bytes", -1), len(sent))
	slices.SortFunc(got, func(a, b events.Raw) int { return strings.Compare(a.ID, b.ID) })
	for i, raw := range got {
		if string(raw.Body) != string(sent[i].Body) || raw.Type != sent[i].Type || raw.Partition != -1 || raw.ID != sent[i].ID {
			t.Errorf("message %d came back as %s %s %d, %d bytes", i, raw.ID, raw.Type, raw.Partition, len(raw.Body))
		}
		if !maps.Equal(raw.Header, sent[i].Header) && len(sent[i].Header)+len(raw.Header) > 0 {
			t.Errorf("message %d has the header %v, sent %v", i, raw.Header, sent[i].Header)
		}
	}
}

// Each group gets each event.
func testGroups(t *testing.T, o Opened) {
	var a, b seen
	for group, to := range map[string]*seen{"a": &a, "b": &b} {
		member(t, o, func(c *events.ConsumerConfig) { c.Group = group }, func(c *events.Consumer) {
			events.Handle(c, plain, func(_ context.Context, e events.Event[number]) error { to.add(e.Payload); return nil })
		})
	}
	publish(t, o, messages(t, plain, upTo(50)...)...)
	within(t, 20*time.Second, "both groups have all", func() bool { return a.len() == 50 && b.len() == 50 })
}

// Members share a group's events, and who comes and goes loses none.
func testMembers(t *testing.T, o Opened) {
	var mu sync.Mutex
	got := make(map[int]int)
	by := make(map[int]int)
	start := func(m int) func() {
		return member(t, o, nil, func(c *events.Consumer) {
			events.Handle(c, plain, func(_ context.Context, e events.Event[number]) error {
				time.Sleep(2 * time.Millisecond)
				mu.Lock()
				defer mu.Unlock()
				got[e.Payload.N]++
				by[m]++
				return nil
			})
		})
	}
	stop := start(1)
	start(2)
	for i := range 5 {
		publish(t, o, messages(t, plain, upTo(500)[i*100:(i+1)*100]...)...)
		if i == 2 {
			stop()
			start(3)
		}
	}
	within(t, 30*time.Second, "all are handled", func() bool { mu.Lock(); defer mu.Unlock(); return len(got) == 500 })
	mu.Lock()
	defer mu.Unlock()
	if by[1] == 0 || by[2] == 0 {
		t.Errorf("members have handled %v", by)
	}
	twice := 0
	for _, n := range got {
		twice += n - 1
	}
	if twice > 20 { // what was in flight while one left
		t.Errorf("%d were handled twice", twice)
	}
}

// A group that comes later gets what was before.
func testEarlier(t *testing.T, o Opened) {
	publish(t, o, messages(t, plain, upTo(10)...)...)
	var got seen
	member(t, o, nil, func(c *events.Consumer) {
		events.Handle(c, plain, func(_ context.Context, e events.Event[number]) error { got.add(e.Payload); return nil })
	})
	within(t, 20*time.Second, "earlier events arrive", func() bool { return got.len() == 10 })
}

// A retry comes not before its time, and not long after, as the next attempt.
func testRetry(t *testing.T, o Opened) {
	const delay = 700 * time.Millisecond
	var mu sync.Mutex
	var at []time.Time
	var attempts []int
	member(t, o, nil, func(c *events.Consumer) {
		events.Handle(c, plain, func(_ context.Context, e events.Event[number]) error {
			mu.Lock()
			defer mu.Unlock()
			at, attempts = append(at, time.Now()), append(attempts, e.Attempt)
			if len(at) < 3 {
				return events.RetryAfter(errors.New("later"), delay)
			}
			return nil
		})
	})
	publish(t, o, messages(t, plain, number{N: 1})...)
	within(t, 20*time.Second, "it is tried three times", func() bool { mu.Lock(); defer mu.Unlock(); return len(at) == 3 })
	if !slices.Equal(attempts, []int{1, 2, 3}) {
		t.Errorf("attempts %v", attempts)
	}
	for i := range 2 {
		if d := at[i+1].Sub(at[i]); d < delay || d > delay+2*time.Second {
			t.Errorf("again after %v, asked for %v", d, delay)
		}
	}
}

// The last failure makes one dead letter, with the event as it was.
func testDead(t *testing.T, o Opened) {
	var tries seen
	member(t, o, nil, func(c *events.Consumer) {
		events.Handle(c, plain, func(_ context.Context, e events.Event[number]) error {
			tries.add(e.Payload)
			if e.Attempt%2 == 0 {
				panic("even")
			}
			return errors.New("line one\nline ünö")
		})
	})
	m := messages(t, plain, number{N: 1})[0]
	m.Tenant = "acme"
	publish(t, o, m)
	within(t, 30*time.Second, "it is a dead letter", func() bool { return len(o.DeadLetters(t)) > 0 })
	time.Sleep(300 * time.Millisecond)
	letters := o.DeadLetters(t)
	if len(letters) != 1 || tries.len() != events.DefaultMaxDeliveries {
		t.Fatalf("%d letters after %d attempts", len(letters), tries.len())
	}
	back, err := events.Decode(events.Raw{Header: letters[0].Raw.Header, Body: letters[0].Raw.Body})
	if err != nil || back.ID != m.ID || back.Tenant != "acme" || letters[0].Reason != events.ReasonFailed || !strings.Contains(letters[0].Error, "line one line") {
		t.Errorf("%+v, %v: %+v", back, err, letters[0])
	}
}

// A poisoned event keeps none of the others.
func testPoison(t *testing.T, o Opened) {
	var good seen
	member(t, o, nil, func(c *events.Consumer) {
		events.Handle(c, plain, func(_ context.Context, e events.Event[number]) error {
			if e.Payload.N == 500 {
				return errors.New("poison")
			}
			good.add(e.Payload)
			return nil
		})
	})
	publish(t, o, messages(t, plain, upTo(1000)...)...)
	within(t, 30*time.Second, "all others are handled", func() bool { return good.len() == 999 })
	within(t, 30*time.Second, "the poison is a dead letter", func() bool { return len(o.DeadLetters(t)) == 1 })
}

// A handler that takes longer than AckWait says that it lives, and keeps its event.
func testLong(t *testing.T, o Opened) {
	var calls seen
	member(t, o, func(c *events.ConsumerConfig) { c.AckWait = 600 * time.Millisecond }, func(c *events.Consumer) {
		events.Handle(c, plain, func(_ context.Context, e events.Event[number]) error {
			calls.add(e.Payload)
			time.Sleep(2500 * time.Millisecond)
			return nil
		})
	})
	publish(t, o, messages(t, plain, number{N: 1})...)
	time.Sleep(4 * time.Second)
	if n := calls.len(); n != 1 {
		t.Errorf("it was delivered %d times", n)
	}
}

// A member that says nothing loses its event to another attempt.
func testSilent(t *testing.T, o Opened) {
	publish(t, o, messages(t, plain, number{N: 1})...)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var attempts []int
	err := o.Subscribe(ctx, subscription("silent", plain.Name(), -1), func(d events.Delivery) {
		attempts = append(attempts, d.Attempt())
		if len(attempts) == 2 {
			if err := d.Ack(ctx); err != nil {
				t.Error(err)
			}
			cancel()
		}
	})
	if err != nil || !slices.Equal(attempts, []int{1, 2}) {
		t.Errorf("attempts %v, %v", attempts, err)
	}
}

// What a member had that is gone another gets.
func testCrash(t *testing.T, o Opened) {
	publish(t, o, messages(t, plain, upTo(5)...)...)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	had := 0
	err := o.Subscribe(ctx, subscription("crash", plain.Name(), -1), func(events.Delivery) { // and dies
		if had++; had == 5 {
			cancel()
		}
	})
	cancel()
	if err != nil || had != 5 {
		t.Fatalf("%d, %v", had, err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	got := make(map[string]int)
	err = o.Subscribe(ctx, subscription("crash", plain.Name(), -1), func(d events.Delivery) {
		got[d.Raw().ID] = d.Attempt()
		if err := d.Ack(ctx); err != nil {
			t.Error(err)
		}
		if len(got) == 5 {
			cancel()
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	for id, attempt := range got {
		if attempt != 2 {
			t.Errorf("%s is attempt %d", id, attempt)
		}
	}
}

// Each key's events come in order, through failures and members that come and go.
func testOrder(t *testing.T, o Opened) {
	var mu sync.Mutex
	last := make(map[string]int)
	done, inversions := 0, 0
	start := func() func() {
		return member(t, o, nil, func(c *events.Consumer) {
			events.Handle(c, keyed, func(_ context.Context, e events.Event[number]) error {
				mu.Lock()
				defer mu.Unlock()
				if (e.Payload.N*7+len(e.Key))%11 == 0 && e.Attempt == 1 {
					return errors.New("every eleventh")
				}
				switch have := last[e.Key]; {
				case e.Payload.N == have+1:
					last[e.Key] = e.Payload.N
					done++
				case e.Payload.N > have+1:
					inversions++
				} // less: a repeat
				return nil
			})
		})
	}
	stop := start()
	start()
	const keys, each = 8, 20
	for n := range each {
		var all []number
		for k := range keys {
			all = append(all, number{N: n + 1, Key: fmt.Sprint("key-", k)})
		}
		publish(t, o, messages(t, keyed, all...)...)
		if n == each/2 {
			stop()
			start()
		}
	}
	within(t, 60*time.Second, "all are handled", func() bool { mu.Lock(); defer mu.Unlock(); return done == keys*each })
	if inversions > 0 {
		t.Errorf("%d inversions", inversions)
	}
}

// A consumer that is asked to end does, and leaves nothing behind that others could not
// get at once.
func testStop(t *testing.T, o Opened) {
	var first, second seen
	stop := member(t, o, func(c *events.ConsumerConfig) { c.Concurrency, c.AckWait = 2, time.Minute }, func(c *events.Consumer) {
		events.Handle(c, plain, func(_ context.Context, e events.Event[number]) error {
			time.Sleep(100 * time.Millisecond)
			first.add(e.Payload)
			return nil
		})
	})
	publish(t, o, messages(t, plain, upTo(40)...)...)
	within(t, 20*time.Second, "the first member is at work", func() bool { return first.len() >= 2 })
	began := time.Now()
	stop()
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it took %v to end", took)
	}
	member(t, o, func(c *events.ConsumerConfig) { c.AckWait = time.Minute }, func(c *events.Consumer) {
		events.Handle(c, plain, func(_ context.Context, e events.Event[number]) error { second.add(e.Payload); return nil })
	})
	within(t, 20*time.Second, "another member has the rest, long before AckWait", func() bool { return first.len()+second.len() >= 40 })
}

// A message that is sent twice, or is twice in one publication, keeps no other.
func testDuplicate(t *testing.T, o Opened) {
	all := messages(t, plain, upTo(3)...)
	publish(t, o, all[0])
	publish(t, o, all[0], all[1], all[1], all[2])
	var mu sync.Mutex
	ids := make(map[string]int)
	member(t, o, nil, func(c *events.Consumer) {
		events.Handle(c, plain, func(_ context.Context, e events.Event[number]) error {
			mu.Lock()
			defer mu.Unlock()
			ids[e.ID]++
			return nil
		})
	})
	within(t, 20*time.Second, "all three are handled", func() bool { mu.Lock(); defer mu.Unlock(); return len(ids) == 3 })
	time.Sleep(300 * time.Millisecond)
	mu.Lock()
	defer mu.Unlock()
	if o.Capabilities().BrokerDedupe && (ids[all[0].ID] != 1 || ids[all[1].ID] != 1) {
		t.Errorf("a broker that finds duplicates has delivered %v", ids)
	}
}

func testUnknownVersion(t *testing.T, o Opened) {
	m := messages(t, plain, number{N: 1})[0]
	m.Version = "v9"
	publish(t, o, m)
	member(t, o, nil, func(c *events.Consumer) {
		events.Handle(c, plain, func(context.Context, events.Event[number]) error { t.Error("handled"); return nil })
	})
	within(t, 20*time.Second, "it is a dead letter", func() bool { return len(o.DeadLetters(t)) == 1 })
	if got := o.DeadLetters(t)[0]; got.Reason != events.ReasonUnknownVersion || !json.Valid(got.Raw.Body) {
		t.Errorf("%+v", got)
	}
}

// The lag is the truth, once all is quiet.
func testLag(t *testing.T, o Opened) {
	var got seen
	release := make(chan struct{})
	member(t, o, func(c *events.ConsumerConfig) { c.Group = "laggards" }, func(c *events.Consumer) {
		events.Handle(c, plain, func(_ context.Context, e events.Event[number]) error {
			if e.Payload.N >= 10 {
				<-release
			}
			got.add(e.Payload)
			return nil
		})
	})
	publish(t, o, messages(t, plain, upTo(17)...)...)
	within(t, 20*time.Second, "ten are handled", func() bool { return got.len() == 10 })
	within(t, 10*time.Second, "seven are not settled", func() bool { return o.Lag(t, "laggards") == 7 })
	close(release)
	within(t, 20*time.Second, "none is left", func() bool { return got.len() == 17 && o.Lag(t, "laggards") == 0 })
}
