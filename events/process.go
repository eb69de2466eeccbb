package events

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/loadlinehq/loadline/causal"
	"github.com/loadlinehq/loadline/tenancy"
)

// traceParentAge is how old an event may be to be handled in its writer's trace. A replay
// days later has its own, with a link: a guess at what a trace's reader expects.
const traceParentAge = time.Hour

// process handles one delivery and settles it.
func (c *Consumer) process(ctx context.Context, d Delivery) {
	began := time.Now()
	var m Message
	err := c.untilAvailable(ctx, []Delivery{d}, func() (err error) {
		if m, err = c.understand(ctx, d); err != nil {
			return err
		}
		return c.call(ctx, &m, d.Attempt())
	})
	c.settle(ctx, d, &m, err, time.Since(began))
}

// understand decodes a delivery, and refuses one that no attempt can help.
func (c *Consumer) understand(ctx context.Context, d Delivery) (Message, error) {
	m, err := Decode(d.Raw())
	if err != nil {
		return m, &deadError{ReasonUndecodable, err}
	}
	if c.handlers[m.Type] == nil {
		// While a new version of the program is brought out, another member may have one.
		return m, fmt.Errorf("events: %s has no handler here", m.Type)
	}
	if n := d.Attempt(); n > c.c.MaxDeliveries {
		return m, &deadError{ReasonFailed, fmt.Errorf("events: it was delivered %d times and never settled: its handler may end the process", n-1)}
	}
	return m, c.caused(ctx, &m)
}

// alive gives signs of life for deliveries.
type alive struct {
	c          *Consumer
	ctx        context.Context
	cancel     context.CancelFunc
	deliveries []Delivery

	// progress is the time that waits renew themselves by: nil for a handler.
	progress *atomic.Int64

	mu    sync.Mutex
	until time.Time
	timer *time.Timer
}

// keepAlive gives signs of life for deliveries until stop is called, or the time that a
// handler has is over; again gives it that time anew. It has no goroutine: nearly all handlers have ended
// before the first sign.
func (c *Consumer) keepAlive(ctx context.Context, deliveries ...Delivery) *alive {
	a := &alive{c: c, deliveries: deliveries}
	a.start(ctx)
	return a
}

// keepWaiting is keepAlive for what waits for handlers to end: for as long as one of those that this
// consumer has begun lately can still have time.
func (c *Consumer) keepWaiting(ctx context.Context, d Delivery) *alive {
	a := &alive{c: c, deliveries: []Delivery{d}, progress: &c.progress}
	a.start(ctx)
	return a
}

func (a *alive) start(ctx context.Context) {
	a.ctx, a.cancel = context.WithCancel(ctx)
	a.again()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.timer = time.AfterFunc(a.c.c.AckWait/3, a.beat)
}

func (a *alive) again() {
	now := time.Now()
	if a.progress == nil {
		a.c.progress.Store(now.UnixNano())
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.until = now.Add(a.c.c.HandlerTimeout)
}

func (a *alive) beat() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.progress != nil {
		a.until = time.Unix(0, a.progress.Load()).Add(a.c.c.HandlerTimeout)
	}
	for _, d := range a.deliveries {
		if a.ctx.Err() != nil {
			return
		}
		if !time.Now().Before(a.until) {
			break // until it is called again
		}
		if err := d.Extend(a.ctx); err != nil && a.ctx.Err() == nil {
			a.c.c.Logger.WarnContext(a.ctx, "events: a handler that runs long could not say so; its event may be given to another", "type", d.Raw().Type, "id", d.Raw().ID, "error", err)
		}
	}
	a.timer.Reset(a.c.c.AckWait / 3)
}

// stop waits for a sign that is under way.
func (a *alive) stop() {
	a.cancel()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.timer.Stop()
}

// call runs the handler of a message, with what its context must have. A panic is an
// error.
func (c *Consumer) call(ctx context.Context, m *Message, attempt int) (err error) {
	ctx, cancel := context.WithTimeout(m.context(ctx), c.c.HandlerTimeout)
	defer cancel()
	ctx, span := c.span(ctx, m)
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("events: the handler panicked: %v\n%s", v, debug.Stack())
		}
		if err != nil {
			span.SetStatus(codes.Error, err.Error())
		}
		span.End()
	}()
	return c.handlers[m.Type].one(ctx, m, attempt)
}

// context has the message's tenant, and what its writer had seen.
func (m *Message) context(ctx context.Context) context.Context {
	ctx = causal.WithSession(ctx, causal.NewSession(m.Token))
	if m.Tenant != "" {
		if with, err := tenancy.With(ctx, m.Tenant); err == nil { // it was checked
			ctx = with
		}
	}
	return ctx
}

func (m *Message) traced() trace.SpanContext {
	carrier := propagation.MapCarrier{"traceparent": m.TraceParent, "tracestate": m.TraceState}
	return trace.SpanContextFromContext(propagation.TraceContext{}.Extract(context.Background(), carrier))
}

func (c *Consumer) span(ctx context.Context, m *Message) (context.Context, trace.Span) {
	options := []trace.SpanStartOption{trace.WithSpanKind(trace.SpanKindConsumer), trace.WithAttributes(
		attribute.String("messaging.operation.type", "process"), attribute.String("messaging.destination.name", m.Type),
		attribute.String("messaging.message.id", m.ID), attribute.String("messaging.consumer.group.name", c.c.Group))}
	if writer := m.traced(); writer.IsValid() {
		if time.Since(m.Time) < traceParentAge {
			ctx = trace.ContextWithRemoteSpanContext(ctx, writer)
		} else {
			options = append(options, trace.WithNewRoot(), trace.WithLinks(trace.Link{SpanContext: writer}))
		}
	}
	return c.tracer.Start(ctx, "process "+m.Type, options...)
}

// settle says what becomes of a delivery. What cannot be said is delivered again.
func (c *Consumer) settle(ctx context.Context, d Delivery, m *Message, err error, took time.Duration) {
	ended := ctx.Err() != nil // it was not the handler's fault
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
	defer cancel()
	log := func(level slog.Level, message string, more ...any) {
		c.c.Logger.Log(ctx, level, message, append([]any{"type", d.Raw().Type, "id", d.Raw().ID, "group", c.c.Group, "attempt", d.Attempt()}, more...)...)
	}
	outcome := outcomeDone
	var settled error
	dead, isDead := errors.AsType[*deadError](err)
	if errors.Is(err, ErrCauseLost) {
		dead, isDead = &deadError{ReasonLostCause, err}, true
	}
	switch {
	case err == nil:
		settled = d.Ack(ctx)
	case ended, isUnavailable(err): // while the consumer ends
		outcome = outcomeRetried
		settled = d.Retry(ctx, 0)
	case isDead, d.Attempt() >= c.c.MaxDeliveries:
		outcome = outcomeDead
		reason := ReasonFailed
		if isDead {
			reason = dead.reason
		}
		log(slog.LevelError, "events: to the dead letters", "reason", string(reason), "error", err)
		settled = d.Dead(ctx, DeadLetter{Reason: reason, Error: err.Error(), Attempts: d.Attempt(), Group: c.c.Group, Handler: c.c.Version, Time: time.Now()})
	default:
		outcome = outcomeRetried
		delay := c.c.RetryDelay(d.Attempt())
		if asked, ok := errors.AsType[*retryError](err); ok {
			delay = asked.after
		}
		log(slog.LevelWarn, "events: a handler failed; it is tried again", "after", delay, "error", err)
		settled = d.Retry(ctx, delay)
	}
	if settled != nil {
		log(slog.LevelWarn, "events: what became of an event could not be said; it will be delivered again", "outcome", outcome, "error", settled)
	}
	c.attributesOf(d.Raw().Type).handled(ctx, &c.metrics, outcome, took, m.Time)
}
