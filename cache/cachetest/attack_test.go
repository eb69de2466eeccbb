package cachetest_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/loadlinehq/loadline/cache"
	"github.com/loadlinehq/loadline/cache/cachetest"
	"github.com/loadlinehq/loadline/causal"
)

// database is a primary, and a replica that lags.
type database struct {
	mu      sync.Mutex
	lsn     causal.LSN
	history map[int][]row
}

type row struct {
	version int64
	lsn     causal.LSN
	at      time.Time
}

const lag = 10 * time.Millisecond

func (d *database) write(ctx context.Context, key int) int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lsn++
	version := int64(len(d.history[key]) + 1)
	if d.history == nil {
		d.history = make(map[int][]row)
	}
	d.history[key] = append(d.history[key], row{version, d.lsn, time.Now()})
	causal.FromContext(ctx).Add(causal.Mark{System: 1, Timeline: 1, LSN: d.lsn})
	return version
}

// read reads the replica when it has come as far as the session.
func (d *database) read(ctx context.Context, key int) int64 {
	mark, _ := causal.FromContext(ctx).Token().Mark(1)
	d.mu.Lock()
	defer d.mu.Unlock()
	replayed := int64(0)
	for _, r := range d.history[key] {
		if r.lsn <= mark.LSN || time.Since(r.at) >= lag {
			replayed = r.version
		}
	}
	return replayed
}

func slow() { time.Sleep(rand.N(2 * time.Millisecond)) }

// plain is a cache as one writes it in an afternoon.
func plain() cachetest.Application {
	var d database
	var cached sync.Map
	return cachetest.Application{
		Processes: 1,
		Write: func(ctx context.Context, _, key int) (int64, error) {
			version := d.write(ctx, key)
			cached.Delete(key)
			return version, nil
		},
		Read: func(ctx context.Context, _, key int) (int64, bool, error) {
			if v, ok := cached.Load(key); ok {
				return v.(int64), true, nil
			}
			v := d.read(ctx, key)
			slow()
			cached.Store(key, v)
			return v, false, nil
		},
		Stored: func(ctx context.Context, key int) (int64, error) { return int64(len(d.history[key])), nil },
	}
}

// fenced is one with package cache.
func fenced(t *testing.T, change func(app *cachetest.Application, d *database, items *cache.Cache[int, int64])) cachetest.Application {
	store, _ := cachetest.Open(t)
	items, err := cache.New(store, cache.Config[int, int64]{Name: "item", Class: cache.Hot()})
	if err != nil {
		t.Fatal(err)
	}
	var d database
	app := cachetest.Application{
		Processes: 1,
		Write: func(ctx context.Context, _, key int) (int64, error) {
			version := d.write(ctx, key)
			return version, store.Invalidate(ctx, items.Key(ctx, key))
		},
		Read: func(ctx context.Context, _, key int) (int64, bool, error) {
			var loaded atomic.Bool // a load may outlast its reader
			v, err := items.Get(ctx, key, func(ctx context.Context) (int64, error) {
				loaded.Store(true)
				v := d.read(ctx, key)
				slow()
				return v, nil
			})
			return v, !loaded.Load(), err
		},
	}
	if change != nil {
		change(&app, &d, items)
	}
	return app
}

func TestAttack(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		app  cachetest.Application
		want string // in the error
	}{
		{"right", fenced(t, nil), ""},
		{"plain", plain(), "given what had been invalidated"},
		{"a load that does not read where it is told to", fenced(t, func(app *cachetest.Application, d *database, items *cache.Cache[int, int64]) {
			app.Read = func(ctx context.Context, _, key int) (int64, bool, error) {
				var loaded atomic.Bool // a load may outlast its reader
				v, err := items.Get(ctx, key, func(context.Context) (int64, error) {
					loaded.Store(true)
					return d.read(causal.WithSession(ctx, causal.NewSession(causal.Token{})), key), nil
				})
				return v, !loaded.Load(), err
			}
		}), "given what had been invalidated"},
		{"a write that tells nobody", fenced(t, func(app *cachetest.Application, d *database, _ *cache.Cache[int, int64]) {
			app.Write = func(ctx context.Context, _, key int) (int64, error) { return d.write(ctx, key), nil }
		}), "at rest"},
		{"nothing is cached", fenced(t, func(app *cachetest.Application, d *database, _ *cache.Cache[int, int64]) {
			app.Read = func(ctx context.Context, _, key int) (int64, bool, error) {
				slow()
				return d.read(ctx, key), false, nil
			}
		}), "hits, fewer than"},
		{"reads fail", fenced(t, func(app *cachetest.Application, _ *database, _ *cache.Cache[int, int64]) {
			app.Read = func(context.Context, int, int) (int64, bool, error) { return 0, false, errors.New("no such table") }
		}), "no such table"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := cachetest.Attack{Length: 400 * time.Millisecond, Keys: 16, Readers: 16, Settle: 300 * time.Millisecond}.Measure(t.Context(), c.app)
			err := r.Err()
			t.Log(r)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

// It goes on until there are enough reads, and ends when it is told to.
func TestLength(t *testing.T) {
	t.Parallel()
	r := cachetest.Attack{Length: 1, MinReads: 5000}.Run(t.Context(), t, fenced(t, nil))
	if r.Reads < 5000 {
		t.Errorf("%d reads", r.Reads)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	began := time.Now()
	cachetest.Attack{Length: time.Hour}.Measure(ctx, fenced(t, nil))
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it went on for %v", took)
	}
}
