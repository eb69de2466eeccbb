package eventstest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/loadlinehq/loadline/events"
)

// Broker is what a test gets of a broker: a share that no other test sees.
type Broker struct {
	Driver events.Driver
	// Connect returns a driver on the same share with a connection of its own, as another
	// process has it. Crash ends that connection at once and without a word.
	Connect func(t testing.TB) (driver events.Driver, crash func())
	// DeadLetters lists those of the share.
	DeadLetters func(ctx context.Context) ([]DeadLetter, error)
	// Lag is how many messages a subscription has not settled.
	Lag func(ctx context.Context, subscription string) (int64, error)
	// Small returns a driver on a share that has room for so many messages. Optional.
	Small func(t testing.TB, messages int) events.Driver
	// Control is for [RunFaults].
	Control Control
}

// Control does something to the broker. What is added is undone by its opposite.
type Control struct {
	Kill, Start   func() error // the process, as by kill -9
	Pause, Resume func() error // the process, as by SIGSTOP
	Stall, Flow   func() error // its connections: open, and nothing passes
}

// DeadLetter is one that was found, with what its headers say.
type DeadLetter struct {
	Raw          events.Raw // of the event, with its headers
	Reason       events.Reason
	Error        string
	Attempts     int
	Group        string
	Handler      string
	Subscription string
}

// patience is how long the suite waits for what must happen: much longer than it takes,
// on a machine that does other things as well.
const patience = 30 * time.Second

// subscription is one that the cases use: the times are short so that the suite is.
func subscription(name string, inFlight int, filters ...events.Filter) events.Subscription {
	return events.Subscription{Name: name, Filters: filters, MaxInFlight: inFlight, Prefetch: min(inFlight, 8), AckWait: time.Second, MaxDeliveries: 50}
}

func filter(name string) events.Filter { return events.Filter{Type: name, Partition: -1} }

// raws are messages of a type, with ids of their own.
func raws(name string, n int) []events.Raw {
	all := make([]events.Raw, n)
	for i := range all {
		all[i] = events.Raw{ID: fmt.Sprintf("%s-%d", name, i), Type: name, Partition: -1, Header: map[string]string{"N": fmt.Sprint(i)}, Body: fmt.Appendf(nil, "%d", i)}
	}
	return all
}

func publish(t testing.TB, d events.Driver, all ...events.Raw) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	errs := d.Publish(ctx, all)
	if len(errs) != len(all) {
		t.Fatalf("%d errors for %d messages", len(errs), len(all))
	}
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// encode makes messages ready to be published.
func encode(t testing.TB, all ...events.Message) []events.Raw {
	t.Helper()
	out := make([]events.Raw, len(all))
	for i := range all {
		raw, err := events.Encode(&all[i], "/eventstest")
		if err != nil {
			t.Fatal(err)
		}
		out[i] = raw
	}
	return out
}

func message[T any](t testing.TB, typ events.Type[T], payload T, options ...events.MessageOption) events.Message {
	t.Helper()
	m, err := typ.New(payload, options...)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// begin runs a subscription in the background. Stop ends it and waits for it.
func begin(t testing.TB, d events.Driver, s events.Subscription, deliver func(events.Delivery)) (stop func()) {
	t.Helper()
	return background(t, d, func(ctx context.Context) error { return d.Subscribe(ctx, s, deliver) })
}

// consume runs a consumer in the background.
func consume(t testing.TB, d events.Driver, c events.ConsumerConfig, register func(*events.Consumer)) (stop func()) {
	t.Helper()
	if c.RetryDelay == nil {
		c.RetryDelay = func(int) time.Duration { return 20 * time.Millisecond }
	}
	if c.AckWait == 0 {
		c.AckWait = 2 * time.Second
	}
	c.Logger = quiet
	consumer, err := events.NewConsumer(d, c)
	if err != nil {
		t.Fatal(err)
	}
	register(consumer)
	return background(t, d, consumer.Run)
}

// member is a driver that may crash: what uses it then may end as it likes.
type member struct {
	events.Driver
	crashed atomic.Bool
}

func connect(t testing.TB, b Broker) (m *member, crash func()) {
	t.Helper()
	d, end := b.Connect(t)
	m = &member{Driver: d}
	return m, func() {
		m.crashed.Store(true)
		end()
	}
}

func background(t testing.TB, d events.Driver, run func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			select {
			case err := <-ended:
				if m, is := d.(*member); err != nil && !(is && m.crashed.Load()) {
					t.Error(err)
				}
			case <-time.After(patience):
				t.Error("it does not end")
			}
		})
	}
	t.Cleanup(stop)
	return stop
}

// until waits for a condition.
func until(t testing.TB, what string, condition func() bool) {
	t.Helper()
	for limit := time.Now().Add(patience); !condition(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("this has not come: %s", what)
		}
	}
}

// never sees to it that a condition does not come for a while. It is for what cannot be
// waited for.
func never(t testing.TB, what string, for_ time.Duration, condition func() bool) {
	t.Helper()
	for limit := time.Now().Add(for_); time.Now().Before(limit); time.Sleep(5 * time.Millisecond) {
		if condition() {
			t.Fatalf("this may not be: %s", what)
		}
	}
}

// tally counts by name.
type tally struct {
	mu    sync.Mutex
	count map[string]int
	order []string // of the first of each
}

func (c *tally) add(name string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.count == nil {
		c.count = make(map[string]int)
	}
	if c.count[name]++; c.count[name] == 1 {
		c.order = append(c.order, name)
	}
	return c.count[name]
}

func (c *tally) of(name string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.count[name]
}

func (c *tally) different() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.order)
}

func (c *tally) all() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for _, count := range c.count {
		n += count
	}
	return n
}

func (c *tally) names() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string(nil), c.order...)
}
