package cachetest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/loadlinehq/loadline/causal"
)

// Application is what is attacked: keys from 0 on, that each have a row with a version.
type Application struct {
	// Processes is how many there are; they are numbered from 0. Each has a store, and perhaps a router, of its
	// own.
	Processes int
	// Write raises the version of a key's row by one, invalidates, and returns the version. The context's session
	// is new, and has to have the write's position afterwards, as package db sees to. A writer that is to die after
	// his commit returns the version and does not invalidate.
	Write func(ctx context.Context, process, key int) (version int64, err error)
	// Read reads the version by the cache, and says whether it was cached: no load of this call's own has run, by the
	// end of the call; one may run later. The context's session has what the reader was told.
	Read func(ctx context.Context, process, key int) (version int64, cached bool, err error)
	// Stored reads the version from the primary, without the cache. Without it, what is cached at the end is compared
	// with what writers were told; that may be less, where a write has failed and was committed.
	Stored func(ctx context.Context, key int) (version int64, err error)
}

// Attack says how hard an application is tried. It has a usable zero value; negative values are for none, of what there can be
// none of.
type Attack struct {
	// Keys are few, so that each is read, written and loaded at the same time. Default 48.
	Keys int
	// Writers write at once. Default 4.
	Writers int
	// Readers read at once. Default 48.
	Readers int
	// Strangers is the share of reads by those who were told nothing. They may be given old values, and are not counted;
	// what they fill caches with is what others may be given. Default 0.25.
	Strangers float64
	// ReadsPerWrite is what writers wait for, and within bounds readers, so that a slow machine has as many hits.
	// Default 15.
	ReadsPerWrite int
	// Pause is what a writer pauses at most between two writes. Default 20 ms.
	Pause time.Duration

	// Length is how long it goes on. Default 2 s.
	Length time.Duration
	// MinReads has it go on longer, up to MaxLength, until there were as many. Default none.
	MinReads int64
	// MaxLength is default 10 min.
	MaxLength time.Duration

	// MinHits is the share of reads that must be cached: who caches nothing gives nothing stale. Default 0.5.
	MinHits float64
	// MaxErrors is the share of reads and writes that may fail, as they do through faults. Default 0.01.
	MaxErrors float64
	// Settle is how long it may take at the end until all processes give what is stored: for announcements, and
	// replicas that lag. Values whose TTL is shorter are not compared. Default 5 s; negative: nothing is compared.
	Settle time.Duration
}

func (a Attack) withDefaults() Attack {
	a.Keys, a.Writers, a.Readers = cmp.Or(a.Keys, 48), cmp.Or(a.Writers, 4), cmp.Or(a.Readers, 48)
	a.Strangers, a.ReadsPerWrite = max(0, cmp.Or(a.Strangers, 0.25)), max(0, cmp.Or(a.ReadsPerWrite, 15))
	a.Pause, a.Length, a.MaxLength = max(1, cmp.Or(a.Pause, 20*time.Millisecond)), cmp.Or(a.Length, 2*time.Second), cmp.Or(a.MaxLength, 10*time.Minute)
	a.MinHits, a.MaxErrors, a.Settle = max(0, cmp.Or(a.MinHits, 0.5)), max(0, cmp.Or(a.MaxErrors, 0.01)), cmp.Or(a.Settle, 5*time.Second)
	return a
}

// Run attacks, logs what there was, and fails the test where [Report.Err] says so.
func (a Attack) Run(ctx context.Context, t testing.TB, app Application) Report {
	t.Helper()
	r := a.Measure(ctx, app)
	t.Log(r)
	if err := r.Err(); err != nil {
		t.Error(err)
	}
	return r
}

// Measure attacks, and leaves it to the caller what to make of it. It ends early when ctx is done.
func (a Attack) Measure(ctx context.Context, app Application) Report {
	run := &attack{Attack: a.withDefaults(), app: app}
	if err := run.validate(); err != nil {
		return Report{invalid: err}
	}
	run.latest = make([]told, run.Keys)
	run.warm(ctx)
	run.fight(ctx)
	if run.Settle > 0 {
		run.atRest(ctx)
	}
	return run.report()
}

func (a *attack) validate() error {
	var errs []error
	for name, n := range map[string]int{"Keys": a.Keys, "Writers": a.Writers, "Readers": a.Readers, "Application.Processes": a.app.Processes} {
		if n < 1 {
			errs = append(errs, fmt.Errorf("cachetest: %s is %d, less than 1", name, n))
		}
	}
	if a.app.Write == nil || a.app.Read == nil {
		errs = append(errs, errors.New("cachetest: Application needs Write and Read"))
	}
	return errors.Join(errs...)
}

type attack struct {
	Attack
	app Application

	mu       sync.Mutex
	latest   []told // by key
	examples []Stale
	failed   error // the first

	writes, reads, hits, stale, errs atomic.Int64
	resting                          atomic.Int64 // cached values that were compared at the end
	unsettled                        []Stale
}

// told is what the last writer of a key has written, and the token that he tells others.
type told struct {
	version int64
	token   causal.Token
}

// warm has every process read every key: connections are opened, and the first hits are no loads.
func (a *attack) warm(ctx context.Context) {
	var wait sync.WaitGroup
	for process := range a.app.Processes {
		wait.Go(func() {
			for key := range a.Keys {
				if ctx.Err() == nil {
					_, _, _ = a.call(ctx, causal.Token{}, process, key)
				}
			}
		})
	}
	wait.Wait()
}

// maxCall bounds one call of the application.
const maxCall = time.Minute

// with is the context of one call, which is not cut off when the attack ends.
func with(ctx context.Context, t causal.Token) (context.Context, context.CancelFunc) {
	return context.WithTimeout(causal.WithSession(context.WithoutCancel(ctx), causal.NewSession(t)), maxCall)
}

// call is one read.
func (a *attack) call(ctx context.Context, t causal.Token, process, key int) (version int64, cached bool, err error) {
	ctx, cancel := with(ctx, t)
	defer cancel()
	return a.app.Read(ctx, process, key)
}

func (a *attack) fight(ctx context.Context) {
	began := time.Now()
	goes := func() bool {
		took := time.Since(began)
		return ctx.Err() == nil && (took < a.Length || took < a.MaxLength && a.reads.Load() < a.MinReads)
	}
	var wait sync.WaitGroup
	for w := range a.Writers {
		wait.Go(func() {
			for goes() {
				a.write(ctx, w%a.app.Processes)
				wrote := a.writes.Add(1)
				for time.Sleep(rand.N(a.Pause)); goes() && a.reads.Load() < int64(a.ReadsPerWrite)*wrote; {
					time.Sleep(time.Millisecond)
				}
			}
		})
	}
	for r := range a.Readers {
		wait.Go(func() {
			for goes() {
				a.read(ctx, r%a.app.Processes)
				if rand.IntN(8) == 0 {
					time.Sleep(rand.N(2 * time.Millisecond))
				}
				for waited := time.Duration(0); waited < maxAhead && a.ahead() && goes(); waited += time.Millisecond {
					time.Sleep(time.Millisecond)
				}
			}
		})
	}
	wait.Wait()
}

// maxAhead is how long a reader waits at most: writes may take long, through faults, and reads go on.
const maxAhead = 100 * time.Millisecond

// ahead reports whether readers have read what the writers wait for twice.
func (a *attack) ahead() bool {
	return a.ReadsPerWrite > 0 && a.reads.Load() > int64(a.ReadsPerWrite)*(a.writes.Load()+int64(2*a.Writers))
}

func (a *attack) write(ctx context.Context, process int) {
	key := rand.IntN(a.Keys)
	ctx, cancel := with(ctx, causal.Token{})
	defer cancel()
	version, err := a.app.Write(ctx, process, key)
	if err != nil {
		a.fail(err)
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if version > a.latest[key].version {
		a.latest[key] = told{version, causal.FromContext(ctx).Token()}
	}
}

func (a *attack) read(ctx context.Context, process int) {
	key := rand.IntN(a.Keys)
	stranger := rand.Float64() < a.Strangers
	var want told
	if !stranger {
		a.mu.Lock()
		want = a.latest[key]
		a.mu.Unlock()
	}
	got, cached, err := a.call(ctx, want.token, process, key)
	switch {
	case err != nil:
		a.fail(err)
		return
	case stranger:
		return
	}
	a.reads.Add(1)
	if cached {
		a.hits.Add(1)
	}
	if got < want.version {
		a.stale.Add(1)
		a.mu.Lock()
		defer a.mu.Unlock()
		if len(a.examples) < maxExamples {
			a.examples = append(a.examples, Stale{Process: process, Key: key, Got: got, Want: want.version, Cached: cached})
		}
	}
}

func (a *attack) fail(err error) {
	a.errs.Add(1)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.failed == nil {
		a.failed = err
	}
}
