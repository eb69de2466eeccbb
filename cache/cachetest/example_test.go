package cachetest_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/loadlinehq/loadline/cache"
	"github.com/loadlinehq/loadline/cache/cachetest"
	"github.com/loadlinehq/loadline/causal"
)

// A test takes its store from [cachetest.Open]; an example has no test.
func Example() {
	clock := cachetest.NewClock()
	store, err := cache.OpenStore(context.Background(), cache.StoreConfig{Now: clock.Now})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer store.Close()
	titles, err := cache.New(store, cache.Config[int, string]{Name: "title", Class: cache.Hot()})
	if err != nil {
		fmt.Println(err)
		return
	}
	for range 3 {
		title, err := titles.Get(context.Background(), 7, func(context.Context) (string, error) {
			fmt.Println("loading")
			return "On load lines", nil
		})
		fmt.Println(title, err)
		clock.Advance(4 * time.Minute)
	}
	// Output:
	// loading
	// On load lines <nil>
	// On load lines <nil>
	// loading
	// On load lines <nil>
}

// An application of one process whose database is a map. One with replicas has a process for each of its
// instances, and hands the context to its router.
func ExampleAttack() {
	store, err := cache.OpenStore(context.Background(), cache.StoreConfig{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer store.Close()
	items, err := cache.New(store, cache.Config[int, int64]{Name: "item", Class: cache.Hot()})
	if err != nil {
		fmt.Println(err)
		return
	}
	var mu sync.Mutex
	versions := make(map[int]int64)
	position := causal.LSN(0)

	report := cachetest.Attack{Length: 100 * time.Millisecond}.Measure(context.Background(), cachetest.Application{
		Processes: 1,
		Write: func(ctx context.Context, _, key int) (int64, error) {
			mu.Lock()
			versions[key]++
			version := versions[key]
			position++
			causal.FromContext(ctx).Add(causal.Mark{System: 1, Timeline: 1, LSN: position}) // as package db does
			mu.Unlock()
			return version, store.Invalidate(ctx, items.Key(ctx, key))
		},
		Read: func(ctx context.Context, _, key int) (int64, bool, error) {
			var loaded atomic.Bool // a load may outlast its reader
			version, err := items.Get(ctx, key, func(context.Context) (int64, error) {
				loaded.Store(true)
				mu.Lock()
				defer mu.Unlock()
				return versions[key], nil
			})
			return version, !loaded.Load(), err
		},
	})
	fmt.Println(report.Stale, "stale,", report.Err())
	// Output:
	// 0 stale, <nil>
}
