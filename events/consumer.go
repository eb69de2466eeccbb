package events

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"
)

// Defaults of [ConsumerConfig].
const (
	DefaultGroup       = "api-workers"
	DefaultConcurrency = 16
	// DefaultMaxInFlight is JetStream's own.
	DefaultMaxInFlight = 1000
	// DefaultMaxDeliveries and DefaultAckWait are the design's.
	DefaultMaxDeliveries = 5
	DefaultAckWait       = 30 * time.Second
	// DefaultHandlerTimeout is a guess: who needs longer says so.
	DefaultHandlerTimeout = 5 * time.Minute
	DefaultDrainTimeout   = 10 * time.Second

	// The delays of retries: 0.5, 2, 8, 32 s, each up to a half longer or shorter, so that
	// what failed together does not come back together.
	retryBase   = 500 * time.Millisecond
	retryFactor = 4
	retryMax    = 2 * time.Minute

	settleTimeout = 5 * time.Second
	// fuse is how many deliveries the broker allows more than we do: for processes that die
	// before they can say that it is enough.
	fuse = 5
)

// ConsumerConfig has a usable zero value.
type ConsumerConfig struct {
	// Group is who shares the work: each group gets each event, and one of its members
	// handles it. Default api-workers.
	Group string
	// StartAt is where a group that is new begins: with the events that the broker has stored from
	// then on, by its clock; time.Now() for those to come. A group that is there already goes on where it
	// is, whatever this says, so it can stay in the configuration; one that somebody has deleted is
	// new. A type with keys, or in batches, that is added to a group begins here too. Not in the
	// future. Default: with the oldest event that the broker has.
	StartAt time.Time
	// Concurrency bounds how many events without a key this process handles at once, and
	// Keyed types have their 16 partitions beside that. Default 16.
	Concurrency int
	// MaxInFlight bounds the events without a key that all members together have got and
	// not settled, those that wait for a retry among them. Default 1000. When it is small,
	// a flood of failures holds up the others.
	MaxInFlight int
	// MaxDeliveries is after how many failures an event goes to the dead letters. Default 5.
	MaxDeliveries int
	// RetryDelay is how long to wait after failure number n, from 1. Default 0.5, 2, 8, 32 s,
	// jittered.
	RetryDelay func(failure int) time.Duration
	// AckWait is after how long without a sign of life a member is taken for dead, and its
	// event given to another. Signs are given for handlers that run long. Default 30 s.
	AckWait time.Duration
	// HandlerTimeout ends a handler's context. Default 5 min.
	HandlerTimeout time.Duration
	// DrainTimeout is how long handlers may go on when the consumer is asked to end. Then
	// their contexts end as well. Default 10 s.
	DrainTimeout time.Duration
	// Cause is asked before a handler, if it is set, whether what the event tells of still is:
	// outbox.Cause knows. Events for which it, or the handler, says [ErrCauseLost] go to the dead
	// letters; another error counts as one of the handler's. A failover between this question and
	// the handler's transaction goes unnoticed: with an inbox, give it to inbox.Config instead.
	Cause func(ctx context.Context, m *Message) error
	// Version of the program, for the dead letters: which deploy has failed.
	Version string

	Logger         *slog.Logger         // default slog.Default()
	MeterProvider  metric.MeterProvider // default: the global one
	TracerProvider trace.TracerProvider // default: the global one
}

func (c ConsumerConfig) withDefaults() ConsumerConfig {
	def(&c.Group, DefaultGroup)
	def(&c.Concurrency, DefaultConcurrency)
	def(&c.MaxInFlight, DefaultMaxInFlight)
	def(&c.MaxDeliveries, DefaultMaxDeliveries)
	def(&c.AckWait, DefaultAckWait)
	def(&c.HandlerTimeout, DefaultHandlerTimeout)
	def(&c.DrainTimeout, DefaultDrainTimeout)
	if c.RetryDelay == nil {
		c.RetryDelay = retryDelay
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.MeterProvider == nil {
		c.MeterProvider = otel.GetMeterProvider()
	}
	if c.TracerProvider == nil {
		c.TracerProvider = otel.GetTracerProvider()
	}
	return c
}

func def[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

func retryDelay(failure int) time.Duration {
	delay := retryBase
	for range failure - 1 {
		if delay *= retryFactor; delay > retryMax {
			delay = retryMax
			break
		}
	}
	return delay/2 + rand.N(delay)
}

// Validate reports all fields that cannot be.
func (c ConsumerConfig) Validate() error {
	d := c.withDefaults()
	var errs []error
	wrong := func(is bool, format string, args ...any) {
		if is {
			errs = append(errs, fmt.Errorf("events: ConsumerConfig."+format, args...))
		}
	}
	if err := checkName("group", d.Group); err != nil {
		errs = append(errs, fmt.Errorf("events: ConsumerConfig.Group: %w", err))
	}
	wrong(d.Concurrency < 1, "Concurrency is %d, less than 1", d.Concurrency)
	wrong(d.MaxInFlight < d.Concurrency, "MaxInFlight is %d, less than Concurrency (%d): some of it could never be used", d.MaxInFlight, d.Concurrency)
	wrong(d.MaxDeliveries < 1, "MaxDeliveries is %d, less than 1", d.MaxDeliveries)
	wrong(d.AckWait < 100*time.Millisecond, "AckWait is %v, less than 100 ms: signs of life could come too late", d.AckWait)
	wrong(d.HandlerTimeout < 0, "HandlerTimeout is %v, less than nothing", d.HandlerTimeout)
	wrong(d.DrainTimeout < 0, "DrainTimeout is %v, less than nothing", d.DrainTimeout)
	return errors.Join(errs...)
}

// Consumer is a member of a group: it gives events to handlers. Handlers are registered
// by [Handle] and [HandleBatch] before Run is called, once.
type Consumer struct {
	driver  Driver
	c       ConsumerConfig
	metrics metrics
	tracer  trace.Tracer

	handlers map[string]*handler // by type
	errs     []error             // of registrations
	ran      atomic.Bool
	progress atomic.Int64    // when a handler was called last, in nanoseconds of Unix
	ending   <-chan struct{} // closed when no more is begun
}

// handler is that of a type.
type handler struct {
	name  string
	keyed bool
	one   func(ctx context.Context, m *Message, attempt int) error
	batch *batch // nil: one by one

	attributes *attributes
}

// NewConsumer returns a consumer of the broker's events.
func NewConsumer(driver Driver, c ConsumerConfig) (*Consumer, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	c = c.withDefaults()
	if has := driver.Capabilities(); !has.DelayedRetry || !has.PerMessageAck {
		return nil, fmt.Errorf("events: the driver %s cannot retry with a delay, or settle messages one by one, which a consumer needs", has.Name)
	}
	if has := driver.Capabilities(); !c.StartAt.IsZero() && !has.Replay {
		return nil, fmt.Errorf("events: ConsumerConfig.StartAt is set, and a group of the driver %s begins with what is published after it was made", has.Name)
	}
	m, err := newMetrics(c.MeterProvider, c.Group)
	if err != nil {
		return nil, err
	}
	return &Consumer{driver: driver, c: c, metrics: m, tracer: c.TracerProvider.Tracer(scope), handlers: make(map[string]*handler)}, nil
}

func (c *Consumer) register(h *handler) {
	if _, twice := c.handlers[h.name]; twice {
		c.errs = append(c.errs, fmt.Errorf("events: %s has two handlers in one consumer: a second group, with a consumer of its own, gets each event as well", h.name))
		return
	}
	if h.keyed && !c.driver.Capabilities().Ordered {
		c.errs = append(c.errs, fmt.Errorf("events: %s is keyed, and the driver %s keeps no order", h.name, c.driver.Capabilities().Name))
		return
	}
	h.attributes = c.metrics.attributes(h.name)
	c.handlers[h.name] = h
}

// Run handles events until ctx is done, and then those that are under way to their end,
// for DrainTimeout at most. It returns nil then, and an error if a handler cannot be
// served: two for one type, or subscriptions that cannot be made.
func (c *Consumer) Run(ctx context.Context) error {
	if c.ran.Swap(true) {
		return errors.New("events: Consumer.Run has been called before")
	}
	if len(c.handlers) == 0 && len(c.errs) == 0 {
		return errors.New("events: the consumer has no handlers; see Handle")
	}
	if err := errors.Join(c.errs...); err != nil {
		return err
	}
	pulling, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	c.ending = pulling.Done()
	// Handlers may go on when no more are begun.
	handling, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(pulling, func() { time.AfterFunc(c.c.DrainTimeout, cancel) })()

	var subscribers sync.WaitGroup
	subscribe := func(s Subscription, deliver func(Delivery), end func()) {
		subscribers.Go(func() {
			defer end()
			if err := c.driver.Subscribe(pulling, s, deliver); err != nil {
				stop(err)
			}
		})
	}
	for _, p := range c.parts() {
		switch {
		case p.batch != nil:
			runner := newBatchRunner(c, p.batch)
			subscribers.Go(func() { runner.run(handling) })
			subscribe(p.Subscription, func(d Delivery) { runner.add(handling, d) }, runner.close)
		case p.inSequence:
			subscribe(p.Subscription, func(d Delivery) { c.process(handling, d) }, func() {})
		default:
			var busy sync.WaitGroup
			places := make(chan struct{}, c.c.Concurrency)
			subscribe(p.Subscription, func(d Delivery) {
				if !hand(handling, c, places, struct{}{}, pulling.Done(), d) {
					c.giveBack(handling, d) // for another member
					return
				}
				busy.Go(func() {
					defer func() { <-places }()
					c.process(handling, d)
				})
			}, busy.Wait)
		}
	}
	subscribers.Wait()
	if ctx.Err() == nil {
		return context.Cause(pulling)
	}
	return nil
}

// hand sends to a channel, with signs of life for a delivery as long as nobody takes it. It
// returns false when ended is closed before.
func hand[T any](ctx context.Context, c *Consumer, to chan<- T, value T, ended <-chan struct{}, d Delivery) bool {
	select {
	case to <- value:
		return true
	default:
	}
	alive := c.keepWaiting(ctx, d)
	defer alive.stop()
	select {
	case to <- value:
		_ = d.Extend(ctx) // who takes it begins anew; if it fails, there is a time left
		return true
	case <-ended:
		return false
	}
}

// giveBack gives a delivery to whoever asks next.
func (c *Consumer) giveBack(ctx context.Context, d Delivery) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
	defer cancel()
	if err := d.Retry(ctx, 0); err != nil {
		c.c.Logger.WarnContext(ctx, "events: an event that was not begun could not be given back; another gets it after AckWait", "type", d.Raw().Type, "id", d.Raw().ID, "error", err)
	}
}

// part is one of a group's subscriptions, and how its events are handled.
type part struct {
	Subscription
	batch      *handler // in batches
	inSequence bool     // one after the other
}

// parts are the group's subscriptions, by its handlers: one for types without keys, one for
// each partition of those with keys, and one for each type in batches. No group has upper
// case letters in its name. Events without a key come to the first although their type has
// keys: of writers in another language that have left it out, and of before the type had any.
func (c *Consumer) parts() (all []part) {
	var single, keyed, batches []string
	for name, h := range c.handlers {
		switch {
		case h.batch != nil:
			batches = append(batches, name)
		case h.keyed:
			keyed = append(keyed, name)
		default:
			single = append(single, name)
		}
	}
	if single = append(single, keyed...); len(single) > 0 {
		all = append(all, part{Subscription: c.subscription(c.c.Group, c.c.MaxInFlight, 2*c.c.Concurrency, -1, single...)})
	}
	if len(keyed) > 0 {
		for p := range Partitions {
			all = append(all, part{Subscription: c.subscription(fmt.Sprintf("%s-P%02d", c.c.Group, p), 1, 1, p, keyed...), inSequence: true})
		}
	}
	for _, name := range batches {
		h := c.handlers[name]
		all = append(all, part{Subscription: c.subscription(c.c.Group+"-BATCH-"+name, max(c.c.MaxInFlight, h.batch.Size*(h.batch.Concurrency+1)), 2*h.batch.Size, -1, name), batch: h})
	}
	return all
}

func (c *Consumer) subscription(name string, inFlight, prefetch, partition int, types ...string) Subscription {
	s := Subscription{Name: name, StartAt: c.c.StartAt, MaxInFlight: inFlight, Prefetch: prefetch, AckWait: c.c.AckWait, MaxDeliveries: c.c.MaxDeliveries + fuse}
	slices.Sort(types)
	for _, t := range types {
		s.Filters = append(s.Filters, Filter{t, partition})
	}
	return s
}
