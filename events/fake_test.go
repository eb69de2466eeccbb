package events_test

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/loadlinehq/loadline/events"
)

// fake is a broker in memory, for what the consumer does by itself; events/eventstest
// holds real ones to the contract.
type fake struct {
	mu     sync.Mutex
	log    []events.Raw
	queues map[string]*queue
	dead   []letter
	can    events.Capabilities

	extensions atomic.Int64
}

type letter struct {
	raw  events.Raw
	says events.DeadLetter
}

type queue struct {
	s        events.Subscription
	pending  []*delivery
	inFlight int
	changed  chan struct{}
}

func newFake() *fake {
	return &fake{queues: make(map[string]*queue), can: events.Capabilities{Name: "fake", DelayedRetry: true, PerMessageAck: true, Ordered: true}}
}

func (f *fake) Capabilities() events.Capabilities { return f.can }

func (f *fake) Publish(_ context.Context, messages []events.Raw) []error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, raw := range messages {
		f.log = append(f.log, raw)
		for _, q := range f.queues {
			q.offer(f, raw)
		}
	}
	return make([]error, len(messages))
}

func (q *queue) offer(f *fake, raw events.Raw) {
	if slices.Contains(q.s.Filters, events.Filter{Type: raw.Type, Partition: raw.Partition}) {
		q.pending = append(q.pending, &delivery{f: f, q: q, raw: raw})
		q.wake()
	}
}

func (q *queue) wake() { close(q.changed); q.changed = make(chan struct{}) }

func (f *fake) Subscribe(ctx context.Context, s events.Subscription, deliver func(events.Delivery)) error {
	f.mu.Lock()
	q := f.queues[s.Name]
	if q == nil {
		q = &queue{s: s, changed: make(chan struct{})}
		f.queues[s.Name] = q
		for _, raw := range f.log {
			q.offer(f, raw)
		}
	}
	f.mu.Unlock()
	for {
		f.mu.Lock()
		var next *delivery
		if q.inFlight < q.s.MaxInFlight && len(q.pending) > 0 && ctx.Err() == nil {
			next, q.pending = q.pending[0], q.pending[1:]
			q.inFlight++
			next.attempt++
		}
		changed := q.changed
		f.mu.Unlock()
		if next != nil {
			deliver(next)
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

type delivery struct {
	f       *fake
	q       *queue
	raw     events.Raw
	attempt int
}

func (d *delivery) Raw() events.Raw { return d.raw }
func (d *delivery) Attempt() int    { return d.attempt }

func (d *delivery) Ack(context.Context) error {
	d.f.mu.Lock()
	defer d.f.mu.Unlock()
	d.q.inFlight--
	d.q.wake()
	return nil
}

// Retry holds the message in flight while it waits, as JetStream does.
func (d *delivery) Retry(_ context.Context, after time.Duration) error {
	time.AfterFunc(after, func() {
		d.f.mu.Lock()
		defer d.f.mu.Unlock()
		d.q.inFlight--
		d.q.pending = append([]*delivery{d}, d.q.pending...)
		d.q.wake()
	})
	return nil
}

func (d *delivery) Extend(context.Context) error {
	d.f.extensions.Add(1)
	return nil
}

func (d *delivery) Dead(ctx context.Context, says events.DeadLetter) error {
	d.f.mu.Lock()
	d.f.dead = append(d.f.dead, letter{d.raw, says})
	d.f.mu.Unlock()
	return d.Ack(ctx)
}

func (f *fake) letters() []letter {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.dead)
}

// publish publishes and fails the test if it cannot.
func (f *fake) publish(t testing.TB, messages ...events.Message) {
	t.Helper()
	p, err := events.NewPublisher(f, events.PublisherConfig{Source: "/test"})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Publish(t.Context(), messages...); err != nil {
		t.Fatal(err)
	}
}
