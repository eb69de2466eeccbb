package events

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// Event is an event as a handler gets it.
type Event[T any] struct {
	Message
	// Payload is the value, brought to the handler's version.
	Payload T
	// Attempt counts the deliveries to this group, from 1. A broker may count too many, not
	// too few.
	Attempt int
}

// Handle gives each event of a type to f. Its context carries the session with what the
// writer had seen, the tenant, and the trace; it ends after HandlerTimeout, and when the
// consumer has been asked to end and DrainTimeout is over. An error, or a panic, is tried
// again; see [Permanent] and [RetryAfter]. F may be called by several goroutines, for events
// of a key one after the other.
func Handle[T any](c *Consumer, t Type[T], f func(ctx context.Context, e Event[T]) error) {
	c.register(&handler{name: t.name, keyed: t.Keyed(), one: func(ctx context.Context, m *Message, attempt int) error {
		payload, err := t.decode(m)
		if err != nil {
			return err
		}
		return f(ctx, Event[T]{*m, payload, attempt})
	}})
}

// BatchConfig bounds the batches of [HandleBatch].
type BatchConfig struct {
	// Size is the most events in a batch. Default 50, where one transaction for all was
	// eleven times as fast as one for each.
	Size int
	// Wait is how long the first waits for others. Default 50 ms.
	Wait time.Duration
	// Concurrency is how many batches this process handles at once. Default 4: while one
	// waits for its commit, others use the processor. Batches that change the same rows
	// should do so in the same order, here as in several processes.
	Concurrency int
}

const (
	DefaultBatchSize        = 50
	DefaultBatchWait        = 50 * time.Millisecond
	DefaultBatchConcurrency = 4
	// MaxBatchSize is JetStream's for what may be in flight.
	MaxBatchSize = 1000
)

// HandleBatch gives events of a type without keys to f, several at once: one transaction
// for all of them. When f fails, it gets them one by one, so that the one that fails does
// not keep the others. The context is as for [Handle], without a tenant: each event has its
// own, and the session has seen what the writers of all of them had.
func HandleBatch[T any](c *Consumer, t Type[T], b BatchConfig, f func(ctx context.Context, events []Event[T]) error) {
	def(&b.Size, DefaultBatchSize)
	def(&b.Wait, DefaultBatchWait)
	def(&b.Concurrency, DefaultBatchConcurrency)
	if t.Keyed() {
		c.errs = append(c.errs, fmt.Errorf("events: %s is keyed: in each partition one event is handled at a time, so there are no batches", t.name))
		return
	}
	if b.Size < 1 || b.Size > MaxBatchSize || b.Wait < 0 || b.Concurrency < 1 {
		c.errs = append(c.errs, fmt.Errorf("events: %s: BatchConfig.Size is %d, not between 1 and %d, or Wait (%v) or Concurrency (%d) less than nothing", t.name, b.Size, MaxBatchSize, b.Wait, b.Concurrency))
		return
	}
	if b.Wait > c.c.AckWait/3 {
		c.errs = append(c.errs, fmt.Errorf("events: %s: BatchConfig.Wait is %v, more than a third of ConsumerConfig.AckWait (%v): what waits for others would be given to another member", t.name, b.Wait, c.c.AckWait))
		return
	}
	all := func(ctx context.Context, ms []*Message, attempts []int) error {
		events := make([]Event[T], len(ms))
		for i, m := range ms {
			payload, err := t.decode(m)
			if err != nil {
				return err
			}
			events[i] = Event[T]{*m, payload, attempts[i]}
		}
		return f(ctx, events)
	}
	c.register(&handler{
		name: t.name, batch: &batch{BatchConfig: b, all: all},
		one: func(ctx context.Context, m *Message, attempt int) error {
			return all(ctx, []*Message{m}, []int{attempt})
		},
	})
}

type batch struct {
	BatchConfig
	all func(ctx context.Context, ms []*Message, attempts []int) error
}

// batchRunner collects deliveries and handles them together.
type batchRunner struct {
	c        *Consumer
	h        *handler
	incoming chan Delivery
	closed   chan struct{}
	once     sync.Once
}

func newBatchRunner(c *Consumer, h *handler) *batchRunner {
	return &batchRunner{c: c, h: h, incoming: make(chan Delivery), closed: make(chan struct{})}
}

// add may still be called, or be waiting, when the subscription has failed.
func (b *batchRunner) add(ctx context.Context, d Delivery) {
	if !hand(ctx, b.c, b.incoming, d, b.closed, d) {
		b.c.giveBack(ctx, d)
	}
}

// close ends run after what has been added.
func (b *batchRunner) close() { b.once.Do(func() { close(b.closed) }) }

// run collects one batch at a time, so that few events are not spread over many, and when
// there is a place for it: what is collected has no other way to wait for one alive.
func (b *batchRunner) run(ctx context.Context) {
	places := make(chan struct{}, b.h.batch.Concurrency)
	var handling sync.WaitGroup
	defer handling.Wait()
	for {
		places <- struct{}{}
		deliveries := b.collect()
		if len(deliveries) == 0 {
			return
		}
		handling.Go(func() {
			defer func() { <-places }()
			b.handle(ctx, deliveries)
		})
	}
}

// collect returns nothing when there is nothing more.
func (b *batchRunner) collect() (deliveries []Delivery) {
	var full <-chan time.Time
	for len(deliveries) < b.h.batch.Size {
		select {
		case d := <-b.incoming:
			if deliveries = append(deliveries, d); full == nil {
				timer := time.NewTimer(b.h.batch.Wait)
				defer timer.Stop()
				full = timer.C
			}
		case <-full:
			return deliveries
		case <-b.closed:
			return deliveries
		}
	}
	return deliveries
}

func (b *batchRunner) handle(ctx context.Context, deliveries []Delivery) {
	began := time.Now()
	var good []Delivery
	var messages []*Message
	var attempts []int
	for i, d := range deliveries {
		var m Message
		err := b.c.untilAvailable(ctx, slices.Concat(good, deliveries[i:]), func() (err error) {
			m, err = b.c.understand(ctx, d)
			return err
		})
		if err != nil {
			b.c.settle(ctx, d, &m, err, time.Since(began))
			continue
		}
		good, messages, attempts = append(good, d), append(messages, &m), append(attempts, d.Attempt())
	}
	if len(good) == 0 {
		return
	}
	err := b.c.untilAvailable(ctx, good, func() error { return b.call(ctx, messages, attempts) })
	for i, d := range good {
		each := err
		if err != nil && len(good) > 1 && !isUnavailable(err) { // one by one
			each = b.c.untilAvailable(ctx, good[i:], func() error { return b.c.call(ctx, messages[i], attempts[i]) })
		}
		b.c.settle(ctx, d, messages[i], each, time.Since(began))
	}
}

func (b *batchRunner) call(ctx context.Context, messages []*Message, attempts []int) (err error) {
	seen := Message{}
	var links []trace.Link
	for _, m := range messages {
		seen.Token = seen.Token.Merge(m.Token)
		if writer := m.traced(); writer.IsValid() && len(links) < 32 {
			links = append(links, trace.Link{SpanContext: writer})
		}
	}
	ctx, cancel := context.WithTimeout(seen.context(ctx), b.c.c.HandlerTimeout)
	defer cancel()
	ctx, span := b.c.tracer.Start(ctx, "process "+b.h.name, trace.WithSpanKind(trace.SpanKindConsumer), trace.WithLinks(links...),
		trace.WithAttributes(attribute.Int("messaging.batch.message_count", len(messages)), attribute.String("messaging.consumer.group.name", b.c.c.Group)))
	defer func() {
		if v := recover(); v != nil {
			err = errors.Join(err, fmt.Errorf("events: the handler panicked: %v\n%s", v, debug.Stack()))
		}
		if err != nil {
			span.SetStatus(codes.Error, err.Error())
		}
		span.End()
	}()
	return b.h.batch.all(ctx, messages, attempts)
}
