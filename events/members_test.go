package events_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/loadlinehq/loadline/events"
)

// recorder is a driver that notes its subscriptions, and delivers one message to the first.
type recorder struct {
	mu        sync.Mutex
	names     []string
	deliver   *memberDelivery
	delivered sync.Once
}

func (r *recorder) Publish(context.Context, []events.Raw) []error {
	return []error{errors.ErrUnsupported}
}

func (r *recorder) Capabilities() events.Capabilities {
	return events.Capabilities{Ordered: true, DelayedRetry: true, PerMessageAck: true}
}

func (r *recorder) Subscribe(ctx context.Context, s events.Subscription, deliver func(events.Delivery)) error {
	r.mu.Lock()
	r.names = append(r.names, s.Name)
	r.mu.Unlock()
	if r.deliver != nil {
		r.delivered.Do(func() { deliver(r.deliver) })
	}
	<-ctx.Done()
	return nil
}

type memberDelivery struct {
	raw     events.Raw
	settled chan string
}

func (d *memberDelivery) Raw() events.Raw           { return d.raw }
func (d *memberDelivery) Attempt() int              { return 1 }
func (d *memberDelivery) Ack(context.Context) error { d.settled <- "ack"; return nil }
func (d *memberDelivery) Retry(context.Context, time.Duration) error {
	d.settled <- "retry"
	return nil
}
func (d *memberDelivery) Extend(context.Context) error { return nil }
func (d *memberDelivery) Dead(_ context.Context, letter events.DeadLetter) error {
	d.settled <- string(letter.Reason)
	return nil
}

func consume(t *testing.T, driver events.Driver, group string, register func(*events.Consumer)) (stop func()) {
	t.Helper()
	c, err := events.NewConsumer(driver, events.ConsumerConfig{Group: group})
	if err != nil {
		t.Fatal(err)
	}
	register(c)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	return func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

func nothing[T any](context.Context, events.Event[T]) error { return nil }

// A group with a name like that of another's partition got that partition's events.
func TestSubscriptionsOfGroupsAreApart(t *testing.T) {
	t.Parallel()
	keyed := events.Define("keyed", events.V1, events.KeyedBy(func(s string) string { return s }))
	plain := events.Define[string]("plain", events.V1)
	var r recorder
	stop := consume(t, &r, "group", func(c *events.Consumer) {
		events.Handle(c, keyed, nothing)
		events.HandleBatch(c, plain, events.BatchConfig{}, func(context.Context, []events.Event[string]) error { return nil })
	})
	for limit := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		r.mu.Lock()
		n := len(r.names)
		r.mu.Unlock()
		if n == events.Partitions+2 || time.Now().After(limit) {
			break
		}
	}
	stop()
	if len(r.names) != events.Partitions+2 {
		t.Fatalf("got subscriptions %q", r.names)
	}
	for _, name := range r.names {
		// A group's name alone is what its events without keys come by.
		if name != "group" && name == strings.ToLower(name) {
			t.Errorf("a group can have the name of the subscription %s", name)
		}
	}
}

// While a new version was brought out, an old member killed the new version's events.
func TestEventWithoutHandlerIsTriedAgain(t *testing.T) {
	t.Parallel()
	old, added := events.Define[string]("old", events.V1), events.Define[string]("added", events.V1)
	m, err := added.New("x")
	if err != nil {
		t.Fatal(err)
	}
	raw, err := events.Encode(&m, "/test")
	if err != nil {
		t.Fatal(err)
	}
	d := &memberDelivery{raw, make(chan string, 1)}
	stop := consume(t, &recorder{deliver: d}, "group", func(c *events.Consumer) { events.Handle(c, old, nothing) })
	defer stop()
	if got := <-d.settled; got != "retry" {
		t.Errorf("it was settled by %s", got)
	}
}
