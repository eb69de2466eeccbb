package telemetry

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/time/rate"
)

// Bounds of what is held back. A span is some 2 kB.
const (
	maxTraces = 2000
	maxSpans  = 256 // of a trace
	maxHeld   = 20_000
	// maxAge is from when on a trace is slow that goes on, and is not held back any longer.
	maxAge = 10 * time.Second
)

// What became of a trace.
const (
	sampled  = iota // decided when it began
	failed          // kept: a span of it has
	slow            // kept: its local root was
	ordinary        // dropped
	tooMany         // dropped: more have failed or were slow than are kept, or go on at one time
	outcomes
)

var outcomeNames = [outcomes]string{"sampled", "failed", "slow", "ordinary", "too_many"}

// keeper passes on what is sampled, and of the other traces those that have failed or were slow. It decides when the local root of
// a trace ends: the span whose parent is in another process, or nowhere.
type keeper struct {
	next  []sdk.SpanProcessor
	slow  time.Duration
	limit *rate.Limiter

	outcomes [outcomes]atomic.Int64

	mu     sync.Mutex
	traces map[trace.TraceID]*held
	first  *held // the oldest
	last   *held
	spans  int // that are held back
}

// held is a trace that is not sampled.
type held struct {
	id           trace.TraceID
	began        time.Time
	open         int // spans that have begun and not ended
	spans        []sdk.ReadOnlySpan
	failed, slow bool
	decided      bool
	kept         bool
	older, newer *held
}

func newKeeper(next []sdk.SpanProcessor, slow time.Duration, keep int) *keeper {
	return &keeper{next: next, slow: slow, limit: rate.NewLimiter(rate.Limit(keep), max(1, keep)), traces: make(map[trace.TraceID]*held)}
}

// OnStart implements [sdk.SpanProcessor].
func (k *keeper) OnStart(parent context.Context, s sdk.ReadWriteSpan) {
	if s.SpanContext().IsSampled() {
		if isLocalRoot(s) {
			k.outcomes[sampled].Add(1)
		}
		for _, p := range k.next {
			p.OnStart(parent, s)
		}
		return
	}
	id := s.SpanContext().TraceID()
	k.mu.Lock()
	h := k.traces[id]
	if h == nil {
		if len(k.traces) >= maxTraces {
			k.removeLocked(k.first)
		}
		h = &held{id: id, began: time.Now(), older: k.last}
		if k.last != nil {
			k.last.newer = h
		} else {
			k.first = h
		}
		k.last, k.traces[id] = h, h
	}
	h.open++
	k.mu.Unlock()
}

// OnEnd implements [sdk.SpanProcessor].
func (k *keeper) OnEnd(s sdk.ReadOnlySpan) {
	if s.SpanContext().IsSampled() {
		k.pass(s)
		return
	}
	k.mu.Lock()
	h := k.traces[s.SpanContext().TraceID()]
	if h == nil {
		k.mu.Unlock()
		return
	}
	h.open--
	root := isLocalRoot(s)
	h.failed = h.failed || s.Status().Code == codes.Error
	h.slow = h.slow || k.slow >= 0 && (root && s.EndTime().Sub(s.StartTime()) >= k.slow || time.Since(h.began) >= maxAge)
	var release []sdk.ReadOnlySpan
	switch {
	case h.decided && h.kept:
		release = []sdk.ReadOnlySpan{s}
	case h.decided:
	default:
		if len(h.spans) < maxSpans && k.spans < maxHeld || root {
			h.spans = append(h.spans, s)
			k.spans++
		}
		if (root || time.Since(h.began) >= maxAge) && (h.failed || h.slow) || h.open == 0 {
			release = k.decideLocked(h)
		}
	}
	why := h.why()
	if h.open == 0 {
		k.removeLocked(h)
	}
	k.mu.Unlock()
	for _, s := range release {
		k.pass(kept{s, why})
	}
}

// decideLocked returns what is to be passed on.
func (k *keeper) decideLocked(h *held) (release []sdk.ReadOnlySpan) {
	h.decided = true
	why := ordinary
	if h.failed || h.slow {
		why = tooMany
		if k.limit.Allow() {
			h.kept, release = true, h.spans
			if why = slow; h.failed {
				why = failed
			}
		}
	}
	k.outcomes[why].Add(1)
	k.spans -= len(h.spans)
	h.spans = nil
	return release
}

func (k *keeper) removeLocked(h *held) {
	if !h.decided {
		k.outcomes[tooMany].Add(1)
	}
	k.spans -= len(h.spans)
	delete(k.traces, h.id)
	if h.older != nil {
		h.older.newer = h.newer
	} else {
		k.first = h.newer
	}
	if h.newer != nil {
		h.newer.older = h.older
	} else {
		k.last = h.older
	}
}

func (k *keeper) pass(s sdk.ReadOnlySpan) {
	for _, p := range k.next {
		p.OnEnd(s)
	}
}

// ForceFlush implements [sdk.SpanProcessor].
func (k *keeper) ForceFlush(ctx context.Context) error {
	var errs []error
	for _, p := range k.next {
		errs = append(errs, p.ForceFlush(ctx))
	}
	return errors.Join(errs...)
}

// Shutdown implements [sdk.SpanProcessor].
func (k *keeper) Shutdown(ctx context.Context) error {
	var errs []error
	for _, p := range k.next {
		errs = append(errs, p.Shutdown(ctx))
	}
	return errors.Join(errs...)
}

func isLocalRoot(s sdk.ReadOnlySpan) bool {
	parent := s.Parent()
	return !parent.IsValid() || parent.IsRemote()
}

func (h *held) why() string {
	if h.failed {
		return outcomeNames[failed]
	}
	return outcomeNames[slow]
}

// kept is a span that was not sampled, and is exported as if it were. Its local root says why, so that who counts by what is
// sampled can leave it out.
type kept struct {
	sdk.ReadOnlySpan
	why string
}

// SpanContext has the flag that processors and exporters look for.
func (s kept) SpanContext() trace.SpanContext {
	c := s.ReadOnlySpan.SpanContext()
	return c.WithTraceFlags(c.TraceFlags().WithSampled(true))
}

// Attributes have the reason.
func (s kept) Attributes() []attribute.KeyValue {
	a := s.ReadOnlySpan.Attributes()
	if !isLocalRoot(s.ReadOnlySpan) {
		return a
	}
	return append(a[:len(a):len(a)], attribute.String("loadline.kept", s.why))
}
