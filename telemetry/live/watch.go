package live

import (
	"cmp"
	"context"
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
	// points of history are ten minutes.
	points     = 600
	maxTraces  = 60 // shown
	maxWatcher = 32
)

// point is a moment of the history.
type point struct {
	At        int64    `json:"at"` // in seconds since 1970
	Rate      float64  `json:"rate"`
	Failed    float64  `json:"failed"` // a second
	P50       float64  `json:"p50"`
	P95       float64  `json:"p95"`
	P99       float64  `json:"p99"`
	CPU       *float64 `json:"cpu,omitempty"`
	Instances int      `json:"instances"`
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
}

// enter begins to look, if nobody has watched so far. It reports false when there is no room.
func (w *watcher) enter() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed || w.watch >= maxWatcher {
		return false
	}
	w.watch++
	if !w.running {
		w.running, w.view = true, nil
		w.ended.Go(w.run)
	}
	return true
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
	w.samples = make(map[Source][]*sample)
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
	p := point{At: v.Time.Unix(), Rate: v.Now.Rate, Failed: v.Now.Rate * v.Now.Failed, P50: v.Now.P50, P95: v.Now.P95, P99: v.Now.P99, Instances: len(v.Instances)}
	for _, h := range v.Path {
		if h.ID == "app" {
			p.CPU = h.Utilisation
		}
	}
	if len(w.history) >= points {
		w.history = slices.Delete(w.history, 0, 1)
	}
	if v.Window > 0 { // there are no rates before
		w.history = append(w.history, p)
	}
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
		if a.err != nil {
			instance.Problem = a.err.Error()
			v.Instances = append(v.Instances, instance)
			continue
		}
		known := w.samples[source]
		if len(known) > 0 && !known[len(known)-1].sameProcess(a.sample) {
			known = nil
		}
		known = append(known, a.sample)
		for len(known) > seconds+1 {
			known = known[1:]
		}
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
	w.mu.Lock()
	w.sources = sources
	w.mu.Unlock()
	slices.SortFunc(v.Traces, newestFirst)
	v.Traces = v.Traces[:min(len(v.Traces), maxTraces)]

	v.Now, v.Routes = all.requests()
	v.Servers, v.Caches, v.Outbox, v.Groups, v.Deploys = all.servers(), all.caches(), all.outbox(), all.groups(), all.deploys()
	var load map[string]float64
	if w.c.Stack != nil {
		v.Stack, load = w.c.Stack()
	}
	v.Path = all.path(v, load)
	v.Tightest = tightest(v)
	return v
}

// trace asks the instance that has it; any, where none is named.
func (w *watcher) trace(ctx context.Context, instance, id string) (Trace, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	w.mu.Lock()
	sources := w.sources
	w.mu.Unlock()
	if sources == nil {
		sources = w.c.Sources()
	}
	err := ErrNoTrace
	for _, source := range sources {
		if instance != "" && source.Name() != instance {
			continue
		}
		t, e := source.Trace(ctx, id)
		if e == nil {
			t.Instance = source.Name()
			return t, nil
		}
		err = cmp.Or(e, err)
	}
	return Trace{}, err
}
