package live

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// Bounds of a [Recorder].
const (
	keptTraces  = 50 // that have failed, and as many that were slow
	openTraces  = 200
	spansOf     = 100  // a trace
	attributeOf = 2048 // bytes
	keptLines   = 2000
	lineOf      = 1024 // bytes
)

// Recorder keeps the latest traces that have failed or were slow, and what was logged in them. It gets spans as
// telemetry.Config.SpanProcessors do, and lines by [Recorder.LogHandler]. It may be used by several goroutines.
type Recorder struct {
	slow time.Duration

	mu     sync.Mutex
	open   []*recorded // whose local root has not ended, the oldest first
	failed []*recorded // the oldest first
	slowly []*recorded
	lines  []line // a ring
	next   int    // in it
}

type recorded struct {
	Trace
	id     trace.TraceID
	spans  []sdk.ReadOnlySpan // until it is kept
	rooted bool
	kept   bool
}

// line is a record that is made a text when somebody looks, which most often nobody does.
type line struct {
	of     trace.TraceID
	record slog.Record
	by     *logHandler
}

// NewRecorder keeps as slow what takes so long; give it what telemetry.Config.Slow has. Negative: nothing is, for that reason.
func NewRecorder(slow time.Duration) *Recorder { return &Recorder{slow: slow} }

// OnStart implements [sdk.SpanProcessor].
func (r *Recorder) OnStart(context.Context, sdk.ReadWriteSpan) {}

// Shutdown implements [sdk.SpanProcessor].
func (r *Recorder) Shutdown(context.Context) error { return nil }

// ForceFlush implements [sdk.SpanProcessor].
func (r *Recorder) ForceFlush(context.Context) error { return nil }

// OnEnd implements [sdk.SpanProcessor].
func (r *Recorder) OnEnd(s sdk.ReadOnlySpan) {
	r.mu.Lock()
	defer r.mu.Unlock()
	id := s.SpanContext().TraceID()
	for _, kept := range [...][]*recorded{r.failed, r.slowly} {
		for i := len(kept) - 1; i >= 0; i-- {
			if kept[i].id == id { // what has ended after its root, or another root of it
				kept[i].add(s)
				return
			}
		}
	}
	at := slices.IndexFunc(r.open, func(t *recorded) bool { return t.id == id })
	if at < 0 {
		if len(r.open) >= openTraces {
			r.open = slices.Delete(r.open, 0, 1)
		}
		r.open, at = append(r.open, &recorded{id: id}), len(r.open)
	}
	t := r.open[at]
	t.add(s)
	if parent := s.Parent(); parent.IsValid() && !parent.IsRemote() {
		return
	}
	r.open = slices.Delete(r.open, at, at+1)
	took := s.EndTime().Sub(s.StartTime())
	t.Trace.ID, t.Name, t.Began, t.Took, t.Slow = id.String(), s.Name(), s.StartTime(), milliseconds(took), r.slow >= 0 && took >= r.slow
	switch {
	case t.Failed:
		r.failed = keep(r.failed, t)
	case t.Slow:
		r.slowly = keep(r.slowly, t)
	default:
		return
	}
	t.kept = true
	for _, s := range t.spans {
		t.Spans = append(t.Spans, spanOf(s, t.Began)) // cut, and without what the SDK keeps beside
	}
	t.spans = nil
}

// add takes the first root however many there are already: it says what all the others were for. There may be more of them, of each event that is handled.
func (t *recorded) add(s sdk.ReadOnlySpan) {
	if s.Status().Code == codes.Error {
		t.Failed = true
		if t.Error == "" { // what has failed further in says more
			t.Error = s.Status().Description
		}
	}
	first := !t.rooted && (!s.Parent().IsValid() || s.Parent().IsRemote())
	t.rooted = t.rooted || first
	switch {
	case max(len(t.spans), len(t.Spans)) >= spansOf && !first:
		t.More++
	case t.kept:
		t.Spans = append(t.Spans, spanOf(s, t.Began))
	default:
		t.spans = append(t.spans, s)
	}
}

func keep(all []*recorded, t *recorded) []*recorded {
	if len(all) >= keptTraces {
		all = slices.Delete(all, 0, 1)
	}
	return append(all, t)
}

// Traces are the latest, the newest first, without their spans and lines.
func (r *Recorder) Traces() []Trace {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]Trace, 0, len(r.failed)+len(r.slowly))
	for _, t := range slices.Concat(r.failed, r.slowly) {
		short := t.Trace
		short.Spans = nil
		all = append(all, short)
	}
	slices.SortFunc(all, newestFirst)
	return all
}

func newestFirst(a, b Trace) int { return b.Began.Compare(a.Began) }

// Trace is one of them, with its spans and lines.
func (r *Recorder) Trace(id string) (Trace, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, t := range slices.Concat(r.failed, r.slowly) {
		if t.Trace.ID != id {
			continue
		}
		whole := t.Trace
		whole.Spans = slices.Clone(t.Spans)
		slices.SortStableFunc(whole.Spans, func(a, b Span) int { return int(1000 * (a.After - b.After)) })
		for i := range r.lines {
			if l := &r.lines[(r.next+i)%len(r.lines)]; l.of == t.id {
				whole.Lines = append(whole.Lines, l.shown())
			}
		}
		return whole, true
	}
	return Trace{}, false
}

// Trace is a trace, or what there is of it here.
type Trace struct {
	ID    string    `json:"id"`
	Name  string    `json:"name"`
	Began time.Time `json:"began"`
	// Took is how long its root took, in milliseconds.
	Took   float64 `json:"took"`
	Failed bool    `json:"failed,omitempty"`
	Slow   bool    `json:"slow,omitempty"`
	Error  string  `json:"error,omitempty"`
	// Instance is where it is kept.
	Instance string `json:"instance,omitempty"`
	Spans    []Span `json:"spans,omitempty"`
	// More spans were not kept.
	More  int    `json:"more,omitempty"`
	Lines []Line `json:"lines,omitempty"`
}

// Span is a span; times are in milliseconds, After since the trace began.
type Span struct {
	ID         string            `json:"id"`
	Parent     string            `json:"parent,omitempty"`
	Name       string            `json:"name"`
	After      float64           `json:"after"`
	Took       float64           `json:"took"`
	Failed     bool              `json:"failed,omitempty"`
	Error      string            `json:"error,omitempty"`
	Attributes map[string]string `json:"attributes,omitempty"`
}

// Line is what was logged.
type Line struct {
	At    time.Time `json:"at"`
	Level string    `json:"level"`
	Text  string    `json:"text"`
}

func spanOf(s sdk.ReadOnlySpan, began time.Time) Span {
	span := Span{
		ID: s.SpanContext().SpanID().String(), Name: s.Name(), After: milliseconds(s.StartTime().Sub(began)), Took: milliseconds(s.EndTime().Sub(s.StartTime())),
		Failed: s.Status().Code == codes.Error, Error: s.Status().Description, Attributes: make(map[string]string),
	}
	if s.Parent().IsValid() {
		span.Parent = s.Parent().SpanID().String()
	}
	for _, a := range s.Attributes() {
		span.Attributes[string(a.Key)] = short(a.Value, attributeOf)
	}
	return span
}

func short(v attribute.Value, most int) string {
	text := v.String()
	if len(text) > most {
		text = text[:most] + " …"
	}
	return text
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// LogHandler keeps what is logged with the context of a span, and passes all on.
func (r *Recorder) LogHandler(next slog.Handler) slog.Handler {
	c := &capture{}
	text := slog.NewTextHandler(&c.text, &slog.HandlerOptions{Level: slog.LevelDebug - 100, ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && (a.Key == slog.TimeKey || a.Key == slog.LevelKey || a.Key == "trace_id" || a.Key == "span_id") {
			return slog.Attr{} // said otherwise
		}
		return a
	}})
	return &logHandler{next: next, text: text, capture: c, recorder: r}
}

// capture takes one line after the other.
type capture struct {
	mu   sync.Mutex
	text bytes.Buffer
}

type logHandler struct {
	next, text slog.Handler
	capture    *capture
	recorder   *Recorder
}

// Enabled implements [slog.Handler].
func (h *logHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.next.Enabled(ctx, level)
}

// Handle implements [slog.Handler].
func (h *logHandler) Handle(ctx context.Context, record slog.Record) error {
	if span := trace.SpanContextFromContext(ctx); span.IsValid() {
		h.recorder.keepLine(line{span.TraceID(), plain(record), h})
	}
	return h.next.Handle(ctx, record)
}

// plain is a record that nobody can change any more, of no more than fits into a line. What values are is asked here, where no lock is held: they may log
// themselves.
func plain(r slog.Record) slog.Record {
	if isPlain(r) {
		return r.Clone()
	}
	out := slog.NewRecord(r.Time, r.Level, cut(r.Message), 0)
	r.Attrs(func(a slog.Attr) bool {
		out.AddAttrs(plainAttr(a))
		return true
	})
	return out
}

// isPlain: it is so already, as most are.
func isPlain(r slog.Record) bool {
	size := len(r.Message)
	r.Attrs(func(a slog.Attr) bool {
		switch a.Value.Kind() {
		case slog.KindString:
			size += len(a.Value.String())
		case slog.KindAny, slog.KindLogValuer, slog.KindGroup:
			size = lineOf + 1
		}
		return size <= lineOf
	})
	return size <= lineOf
}

func plainAttr(a slog.Attr) slog.Attr {
	switch v := a.Value.Resolve(); v.Kind() {
	case slog.KindString:
		return slog.String(a.Key, cut(v.String()))
	case slog.KindAny:
		return slog.String(a.Key, cut(fmt.Sprint(v.Any())))
	case slog.KindGroup:
		var inner []slog.Attr
		for _, of := range v.Group() {
			inner = append(inner, plainAttr(of))
		}
		return slog.Attr{Key: a.Key, Value: slog.GroupValue(inner...)}
	default:
		return slog.Attr{Key: a.Key, Value: v}
	}
}

func cut(text string) string { return text[:min(len(text), lineOf)] }

// shown is made under a lock, in which nothing but slog is called.
func (l *line) shown() Line {
	c := l.by.capture
	c.mu.Lock()
	defer c.mu.Unlock()
	c.text.Reset()
	_ = l.by.text.Handle(context.Background(), l.record) // a buffer does not fail
	return Line{l.record.Time, l.record.Level.String(), cut(string(bytes.TrimSpace(c.text.Bytes())))}
}

// WithAttrs implements [slog.Handler].
func (h *logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &logHandler{h.next.WithAttrs(attrs), h.text.WithAttrs(attrs), h.capture, h.recorder}
}

// WithGroup implements [slog.Handler].
func (h *logHandler) WithGroup(name string) slog.Handler {
	return &logHandler{h.next.WithGroup(name), h.text.WithGroup(name), h.capture, h.recorder}
}

func (r *Recorder) keepLine(l line) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.lines) < keptLines {
		r.lines = append(r.lines, l)
		return
	}
	r.lines[r.next] = l
	r.next = (r.next + 1) % keptLines
}
