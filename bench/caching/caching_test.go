package caching_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/maypok86/otter/v2"
	"github.com/redis/rueidis"
	"github.com/viccon/sturdyc"
	"go.uber.org/goleak"

	"github.com/loadlinehq/loadline/cache"
	"github.com/loadlinehq/loadline/causal"
	"github.com/loadlinehq/loadline/internal/ratio"
	"github.com/loadlinehq/loadline/internal/stack"
	"github.com/loadlinehq/loadline/internal/stack/stacktest"
)

func TestMain(m *testing.M) {
	if stack.ServeNATS() {
		return
	}
	// sturdyc cannot be closed.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/viccon/sturdyc.(*Client[...]).performContinuousEvictions.func1"))
}

const (
	keys    = 16_384
	lookups = 40_000 // short, so that other work on the machine hits both of a pair
	pairs   = 151
)

type item struct {
	ID   int
	Body string
}

var (
	quiet = slog.New(slog.DiscardHandler)
	body  = string(make([]byte, 256))
	texts = func() (all []string) {
		for i := range keys {
			all = append(all, fmt.Sprintf("article-with-a-slug-%08d", i))
		}
		return all
	}()
)

// measured is how long n calls of look took, by one goroutine or by one for each processor and more.
func measured(parallel bool, look func(i int)) func() (time.Duration, error) {
	return func() (time.Duration, error) {
		began := time.Now()
		if !parallel {
			for i := range lookups {
				look(i * 7919 % keys)
			}
			return time.Since(began), nil
		}
		var wait sync.WaitGroup
		for g := range 8 {
			wait.Go(func() {
				for i := range lookups / 8 {
					look((i*7919 + g*31) % keys)
				}
			})
		}
		wait.Wait()
		return time.Since(began), nil
	}
}

func report(b *testing.B, name, what string, limit float64, baseline, variant func() (time.Duration, error)) {
	b.Run(name, func(b *testing.B) {
		var r ratio.Result
		for b.Loop() {
			var err error
			if r, err = ratio.Measure(pairs, baseline, variant); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(r.Median, "ratio")
		b.Logf("%s: %v, limit %.2f", what, r, limit)
		if r.Low > limit {
			b.Errorf("%s: %v is above %.2f", what, r, limit)
		}
	})
}

func inProcess(b *testing.B) (*cache.Cache[string, item], func(context.Context) (item, error)) {
	store, err := cache.OpenStore(b.Context(), cache.StoreConfig{Logger: quiet})
	if err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { _ = store.Run(ctx); close(ended) }()
	b.Cleanup(func() { stop(); <-ended; store.Close() })
	c, err := cache.New(store, cache.Config[string, item]{Name: "item", Class: cache.Cold()})
	if err != nil {
		b.Fatal(err)
	}
	return c, func(context.Context) (item, error) { return item{1, body}, nil }
}

// A hit in this process, beside otter alone and sturdyc.
func BenchmarkHit(b *testing.B) {
	c, load := inProcess(b)
	raw := otter.Must(&otter.Options[string, *item]{MaximumSize: 2 * keys})
	peer := sturdyc.New[item](2*keys, 16, time.Hour, 10)
	ctx := context.Background()
	for _, k := range texts {
		if _, err := c.Get(ctx, k, load); err != nil {
			b.Fatal(err)
		}
		raw.Set(k, &item{1, body})
		if _, err := peer.GetOrFetch(ctx, k, load); err != nil {
			b.Fatal(err)
		}
	}
	ours := func(i int) { _, _ = c.Get(ctx, texts[i], load) }
	otters := func(i int) {
		if v, ok := raw.GetIfPresent(texts[i]); !ok || v.ID == 0 { // whoever reads a value looks at it
			panic("it is not there")
		}
	}
	peers := func(i int) { _, _ = peer.GetOrFetch(ctx, texts[i], load) }
	if allocs := testing.AllocsPerRun(1000, func() { ours(1) }); allocs != 0 {
		b.Errorf("a hit allocates %v times", allocs)
	}
	session := causal.WithSession(ctx, causal.NewSession(causal.Token{}))
	if allocs := testing.AllocsPerRun(1000, func() { _, _ = c.Get(session, texts[1], load) }); allocs != 0 {
		b.Errorf("a hit with a session allocates %v times", allocs)
	}
	report(b, "serial", "a hit / otter's alone, one goroutine", 2.0, measured(false, otters), measured(false, ours))
	report(b, "parallel", "a hit / otter's alone, eight goroutines", 2.5, measured(true, otters), measured(true, ours))
	report(b, "sturdyc", "a hit / sturdyc's GetOrFetch, eight goroutines", 1, measured(true, peers), measured(true, ours)) // see ADR 13
}

// A hit in Redis, beside a GET of the same record and decoding it.
func BenchmarkRedisHit(b *testing.B) {
	set := stacktest.New(b)
	option, err := rueidis.ParseURL(set.RedisURL)
	if err != nil {
		b.Fatal(err)
	}
	open := func() *cache.Store {
		s, err := cache.OpenStore(b.Context(), cache.StoreConfig{Redis: &option, Prefix: set.KeyPrefix, Timeout: time.Second, Logger: quiet})
		if err != nil {
			b.Fatal(err)
		}
		return s
	}
	store := open()
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = store.Run(ctx) })
	running.Go(func() {
		var epoch uint64
		for ctx.Err() == nil {
			epoch, _ = store.Tick(ctx, causal.Mark{System: 1, Timeline: 1, LSN: 1, Epoch: epoch})
			time.Sleep(300 * time.Millisecond)
		}
	})
	b.Cleanup(func() { stop(); running.Wait(); store.Close() })
	for !store.Active() {
		time.Sleep(time.Millisecond)
	}
	c, err := cache.New(store, cache.Config[string, item]{Name: "item", Class: cache.Cold(), MaxBytes: -1})
	if err != nil {
		b.Fatal(err)
	}
	load := func(context.Context) (item, error) { return item{1, body}, nil }
	raw, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: option.InitAddress, DisableCache: true, ForceSingleClient: true, PipelineMultiplex: -1})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(raw.Close)
	encoded, err := json.Marshal(item{1, body})
	if err != nil {
		b.Fatal(err)
	}
	const some = 256
	for i := range some {
		if _, err := c.Get(ctx, texts[i], load); err != nil {
			b.Fatal(err)
		}
		if err := raw.Do(ctx, raw.B().Set().Key(set.KeyPrefix+"raw:"+texts[i]).Value(string(encoded)).Build()).Error(); err != nil {
			b.Fatal(err)
		}
	}
	var misses atomic.Int64
	missed := func(context.Context) (item, error) { misses.Add(1); return item{}, nil }
	many := func(look func(i int)) func() (time.Duration, error) {
		return func() (time.Duration, error) {
			began := time.Now()
			var wait sync.WaitGroup
			for g := range 64 {
				wait.Go(func() {
					for i := range 100 {
						look((i*31 + g) % some)
					}
				})
			}
			wait.Wait()
			return time.Since(began), nil
		}
	}
	report(b, "hit", "a hit in Redis / GET and decoding it, 64 goroutines", 1.3, many(func(i int) {
		got, err := raw.Do(ctx, raw.B().Get().Key(set.KeyPrefix+"raw:"+texts[i]).Build()).AsBytes()
		var v item
		if err != nil || json.Unmarshal(got, &v) != nil {
			b.Error(err)
		}
	}), many(func(i int) {
		if _, err := c.Get(ctx, texts[i], missed); err != nil {
			b.Error(err)
		}
	}))
	if n := misses.Load(); n != 0 {
		b.Errorf("%d were no hits", n)
	}
}
