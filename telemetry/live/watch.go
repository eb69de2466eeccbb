package live

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"
)

const (
	every = time.Second
	// patience is what an instance gets to answer.
	patience = 900 * time.Millisecond
	// seconds are what rates and percentiles are over.
	seconds = 10
	// linger is how long instances are looked at when nobody watches any more, for who looks away and back.
	linger = time.Minute
	// points of history are ten minutes, in seconds.
	points     = 600
	maxTraces  = 60 // shown
	maxWatcher = 32
)

// point is a moment of the history.
type point struct {
	At        int64   `json:"at"` // in seconds since 1970
	Rate      float64 `json:"rate"`
	Failed    float64 `json:"failed"` // a second
	P50       float64 `json:"p50"`
	P95       float64 `json:"p95"`
	P99       float64 `json:"p99"`
	Instances int     `json:"instances"`
}

// watcher looks at instances while somebody watches.
type watcher struct {
	c Config

	mu      sync.Mutex
	sources []Source // of the last look
	view    *View    // the last; nil: there is none that is fresh
	history []point
	news    chan struct{} // closed with the next view
	watch   int
	left    time.Time // when the last one has
	running bool
	closed  bool
	ctx     context.Context // of run, which outlives who has begun it
	end     context.CancelFunc
	ended   sync.WaitGroup
	samples map[Source][]*sample // the oldest first
	// answered are those that have, of the last look's.
	answered map[Source]bool
}

var (
	errClosed = errors.New("the page has been closed")
	errCrowd  = fmt.Errorf("%d watch already", maxWatcher)
)

// enter begins to look, if nobody has watched so far.
func (w *watcher) enter() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.closed:
		return errClosed
	case w.watch >= maxWatcher:
		return errCrowd
	}
	w.watch++
	if !w.running {
		w.running, w.view, w.history = true, nil, nil
		w.ended.Go(w.run)
	}
	return nil
}

func (w *watcher) leave() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.watch--
	w.left = time.Now()
}

// latest returns the last view, and what is closed with the next.
func (w *watcher) latest() (*View, <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.view, w.news
}

func (w *watcher) past() []point {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.history)
}

func (w *watcher) run() {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	w.samples, w.answered = make(map[Source][]*sample), make(map[Source]bool)
	for {
		w.show(w.look())
		select {
		case <-w.ctx.Done():
			return
		case <-ticker.C:
		}
		w.mu.Lock()
		if w.watch == 0 && time.Since(w.left) > linger {
			w.running = false
			w.mu.Unlock()
			return
		}
		w.mu.Unlock()
	}
}

func (w *watcher) show(v *View) {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := point{At: v.Time.Unix(), Rate: v.Now.Rate, Failed: v.Now.Rate * v.Now.Failed, P50: v.Now.P50, P95: v.Now.P95, P99: v.Now.P99, Instances: v.Alive}
	// Without a window there are no rates; and the clock may go back, which a chart cannot.
	if n := len(w.history); v.Window > 0 && (n == 0 || w.history[n-1].At < p.At) {
		w.history = append(w.history, p)
	}
	w.history = slices.DeleteFunc(w.history, func(old point) bool { return p.At-old.At > points })
	w.view = v
	close(w.news)
	w.news = make(chan struct{})
}

// look asks all instances at once.
func (w *watcher) look() *View {
	ctx, cancel := context.WithTimeout(w.ctx, patience)
	defer cancel()
	sources := w.c.Sources()
	type answer struct {
		sample *sample
		traces []Trace
		err    error
	}
	answers := make([]answer, len(sources))
	var asked sync.WaitGroup
	for i, source := range sources {
		asked.Go(func() {
			families, err := source.Metrics(ctx)
			if err != nil {
				answers[i].err = err
				return
			}
			answers[i].sample = sampleOf(time.Now(), families)
			answers[i].traces, _ = source.Traces(ctx) // it has metrics; traces come with the next look
		})
	}
	asked.Wait()

	v := &View{Time: time.Now().UTC(), Instances: []Instance{}, Traces: []Trace{}}
	samples := make(map[Source][]*sample, len(sources))
	var all window
	for i, source := range sources {
		a, instance := &answers[i], Instance{Name: source.Name()}
		known := slices.DeleteFunc(w.samples[source], func(s *sample) bool { return time.Since(s.at) > (seconds+1)*time.Second })
		if a.err != nil {
			instance.Problem, instance.lost = a.err.Error(), w.answered[source]
			v.Instances = append(v.Instances, instance)
			if len(known) > 0 { // it may be back with the next look
				samples[source] = known
				v.Alive++
			}
			continue
		}
		v.Alive++
		w.answered[source] = true
		if len(known) > 0 && !known[len(known)-1].sameProcess(a.sample) {
			known = nil
		}
		known = append(known, a.sample)
		samples[source] = known
		p := pair{now: a.sample}
		if len(known) > 1 {
			p.old = known[0]
			v.Window = max(v.Window, p.now.at.Sub(p.old.at).Seconds())
		}
		all = append(all, p)
		for _, s := range a.sample.series["target_info"] {
			instance.Service, instance.Version = s.labels.get("service_name"), s.labels.get("service_version")
		}
		v.Instances = append(v.Instances, instance)
		for _, t := range a.traces {
			t.Instance = instance.Name
			v.Traces = append(v.Traces, t)
		}
	}
	w.samples = samples
	maps.DeleteFunc(w.answered, func(s Source, _ bool) bool { return !slices.Contains(sources, s) })
	w.mu.Lock()
	w.sources = sources
	w.mu.Unlock()
	slices.SortFunc(v.Traces, newestFirst)
	v.Traces = v.Traces[:min(len(v.Traces), maxTraces)]

	v.Now, v.Routes = all.requests()
	v.Servers, v.Caches, v.Outbox, v.Groups, v.Deploys, v.Realtime = all.servers(), all.caches(), all.outbox(), all.groups(), all.deploys(), all.realtime()
	var load map[string]float64
	if w.c.Stack != nil {
		v.Stack, load = w.c.Stack()
	}
	v.Path = all.path(v, load)
	v.Tightest = tightest(v)
	return v
}

// trace asks the instance that has it; all, where none is named.
func (w *watcher) trace(ctx context.Context, instance, id string) (Trace, error) {
	found := make([]Trace, 0, 1)
	err := w.all(ctx, instance, func(ctx context.Context, source Source) ([]Trace, error) {
		t, err := source.Trace(ctx, id)
		return []Trace{t}, err
	}, func(t Trace) { found = append(found, t) })
	if len(found) > 0 {
		return found[0], nil
	}
	return Trace{}, err
}

// traces are the latest of all instances that answer.
func (w *watcher) traces(ctx context.Context) []Trace {
	all := []Trace{}
	_ = w.all(ctx, "", func(ctx context.Context, source Source) ([]Trace, error) { return source.Traces(ctx) }, func(t Trace) { all = append(all, t) })
	return all
}

// all asks sources at once, and returns ErrNoTrace only if all that do not have it have said so.
func (w *watcher) all(ctx context.Context, instance string, ask func(context.Context, Source) ([]Trace, error), got func(Trace)) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	w.mu.Lock()
	sources := w.sources
	w.mu.Unlock()
	if sources == nil {
		sources = w.c.Sources()
	}
	var mu sync.Mutex
	var asked sync.WaitGroup
	err := ErrNoTrace
	for _, source := range sources {
		if instance != "" && source.Name() != instance {
			continue
		}
		asked.Go(func() {
			traces, e := ask(ctx, source)
			mu.Lock()
			defer mu.Unlock()
			if e != nil {
				if !errors.Is(e, ErrNoTrace) {
					err = e
				}
				return
			}
			for _, t := range traces {
				t.Instance = source.Name()
				got(t)
			}
		})
	}
	asked.Wait()
	return err
}
