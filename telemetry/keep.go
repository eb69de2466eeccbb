package telemetry

import (
	"container/list"
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
	maxSpans  = 256 // of a trace, and as many more when it is known to be kept
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
	next []sdk.SpanProcessor
	slow time.Duration
	// Each so many a second: those whose root has failed, those that have failed below, and those that were slow, which may be all.
	ofRoot, below, ofSlow *rate.Limiter

	outcomes [outcomes]atomic.Int64

	mu      sync.Mutex
	traces  map[trace.TraceID]*held
	open    list.List // of those that are not decided, the oldest first
	decided list.List // of those that are, and have spans that go on
	spans   int       // that are held back
}

// held is a trace that is not sampled.
type held struct {
	id                       trace.TraceID
	began                    time.Time
	going                    int // spans that have begun and not ended
	spans                    []sdk.ReadOnlySpan
	rootFailed, failed, slow bool
	why                      int // it is kept, if it is decided; ordinary or tooMany: it is not
	more                     int // spans that have been passed on since
	in                       *list.List
	at                       *list.Element
}

func newKeeper(next []sdk.SpanProcessor, slow time.Duration, keep int) *keeper {
	limit := func() *rate.Limiter { return rate.NewLimiter(rate.Limit(keep), max(1, keep)) }
	return &keeper{next: next, slow: slow, ofRoot: limit(), below: limit(), ofSlow: limit(), traces: make(map[trace.TraceID]*held)}
}

// OnStart implements [sdk.SpanProcessor].
func (k *keeper) OnStart(parent context.Context, s sdk.ReadWriteSpan) {
	for _, p := range k.next {
		p.OnStart(parent, s)
	}
	root := isLocalRoot(s)
	if s.SpanContext().IsSampled() {
		if root {
			k.outcomes[sampled].Add(1)
		}
		return
	}
	k.mu.Lock()
	release := k.ageLocked()
	h := k.traces[s.SpanContext().TraceID()]
	if h == nil && root { // what has no root here was not admitted, or is over
		h = k.admitLocked(s.SpanContext().TraceID())
	}
	if h != nil {
		h.going++
	}
	k.mu.Unlock()
	k.pass(release)
}

// OnEnd implements [sdk.SpanProcessor].
func (k *keeper) OnEnd(s sdk.ReadOnlySpan) {
	if s.SpanContext().IsSampled() {
		for _, p := range k.next {
			p.OnEnd(s)
		}
		return
	}
	k.mu.Lock()
	release := k.ageLocked()
	if h := k.traces[s.SpanContext().TraceID()]; h != nil {
		release = append(release, k.endLocked(h, s)...)
	}
	k.mu.Unlock()
	k.pass(release)
}

// admitLocked returns nil where there is no room.
func (k *keeper) admitLocked(id trace.TraceID) *held {
	if len(k.traces) >= maxTraces {
		oldest := k.decided.Front()
		if oldest == nil {
			k.outcomes[tooMany].Add(1)
			return nil
		}
		k.removeLocked(oldest.Value.(*held))
	}
	h := &held{id: id, began: time.Now()}
	k.traces[id] = h
	h.moveTo(&k.open)
	return h
}

// endLocked returns what is to be passed on.
func (k *keeper) endLocked(h *held, s sdk.ReadOnlySpan) (release []sdk.ReadOnlySpan) {
	h.going--
	root := isLocalRoot(s)
	if h.in == &k.open {
		if s.Status().Code == codes.Error {
			h.failed, h.rootFailed = true, h.rootFailed || root
		}
		h.slow = h.slow || root && k.slow >= 0 && s.EndTime().Sub(s.StartTime()) >= k.slow
		room := maxSpans
		if root {
			room++ // it says what all the others were for
		}
		if len(h.spans) < room && k.spans < maxHeld {
			h.spans = append(h.spans, s)
			k.spans++
		}
		if root && (h.failed || h.slow) || h.going == 0 {
			release = k.decideLocked(h)
		}
	} else if h.why < ordinary && h.more < maxSpans {
		h.more++
		release = []sdk.ReadOnlySpan{kept{s, h.why}}
	}
	if h.going == 0 {
		k.removeLocked(h)
	}
	return release
}

// ageLocked decides what has gone on for too long to be held back.
func (k *keeper) ageLocked() (release []sdk.ReadOnlySpan) {
	for e := k.open.Front(); e != nil && time.Since(e.Value.(*held).began) >= maxAge; e = k.open.Front() {
		h := e.Value.(*held)
		h.slow = k.slow >= 0
		release = append(release, k.decideLocked(h)...)
	}
	return release
}

// decideLocked returns what is to be passed on.
func (k *keeper) decideLocked(h *held) (release []sdk.ReadOnlySpan) {
	h.why = ordinary
	switch {
	case h.rootFailed && k.ofRoot.Allow(), h.failed && k.below.Allow():
		h.why = failed
	case h.slow && k.ofSlow.Allow():
		h.why = slow
	case h.failed || h.slow:
		h.why = tooMany
	}
	k.outcomes[h.why].Add(1)
	if h.why < ordinary {
		for _, s := range h.spans {
			release = append(release, kept{s, h.why})
		}
	}
	k.spans -= len(h.spans)
	h.spans = nil
	h.moveTo(&k.decided)
	return release
}

func (h *held) moveTo(l *list.List) {
	if h.in != nil {
		h.in.Remove(h.at)
	}
	h.in, h.at = l, l.PushBack(h)
}

func (k *keeper) removeLocked(h *held) {
	h.in.Remove(h.at)
	delete(k.traces, h.id)
}

func (k *keeper) pass(spans []sdk.ReadOnlySpan) {
	for _, s := range spans {
		for _, p := range k.next {
			p.OnEnd(s)
		}
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

// Shutdown implements [sdk.SpanProcessor]. What is held back is decided by what is known of it.
func (k *keeper) Shutdown(ctx context.Context) error {
	k.mu.Lock()
	var release []sdk.ReadOnlySpan
	for e := k.open.Front(); e != nil; e = k.open.Front() {
		h := e.Value.(*held)
		h.slow = k.slow >= 0 && time.Since(h.began) >= k.slow
		release = append(release, k.decideLocked(h)...)
	}
	k.mu.Unlock()
	k.pass(release)
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

// kept is a span that was not sampled, and is exported as if it were. Its local root says why, so that who counts by what is
// sampled can leave it out.
type kept struct {
	sdk.ReadOnlySpan
	why int
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
	return append(a[:len(a):len(a)], attribute.String("loadline.kept", outcomeNames[s.why]))
}
