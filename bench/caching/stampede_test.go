package caching_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/maypok86/otter/v2"
	"github.com/viccon/sturdyc"
	"golang.org/x/sync/singleflight"

	"github.com/loadlinehq/loadline/cache"
)

const stampede = 1000

// A thousand readers of one key that nobody has: what they cost beside the 5 ms of the load.
func BenchmarkStampede(b *testing.B) {
	store, err := cache.OpenStore(b.Context(), cache.StoreConfig{Logger: quiet})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(store.Close)
	ours, err := cache.New(store, cache.Config[int, item]{Name: "stampede", Class: cache.Cold()})
	if err != nil {
		b.Fatal(err)
	}
	raw := otter.Must(&otter.Options[int, item]{MaximumSize: keys})
	bare := otter.Must(&otter.Options[int, item]{MaximumSize: keys})
	peer := sturdyc.New[item](keys, 16, time.Hour, 10)
	var group singleflight.Group
	key := 0
	for _, way := range []struct {
		name string
		get  func(ctx context.Context, key int, load func(context.Context) (item, error)) error
	}{
		{"cache", func(ctx context.Context, key int, load func(context.Context) (item, error)) error {
			_, err := ours.Get(ctx, key, load)
			return err
		}},
		{"otter", func(ctx context.Context, key int, load func(context.Context) (item, error)) error {
			_, err := raw.Get(ctx, key, otter.LoaderFunc[int, item](func(ctx context.Context, _ int) (item, error) { return load(ctx) }))
			return err
		}},
		{"sturdyc", func(ctx context.Context, key int, load func(context.Context) (item, error)) error {
			_, err := peer.GetOrFetch(ctx, texts[key%keys], load)
			return err
		}},
		{"singleflight", func(ctx context.Context, key int, load func(context.Context) (item, error)) error {
			_, err, _ := group.Do(texts[key%keys], func() (any, error) {
				if _, ok := bare.GetIfPresent(key); ok {
					return nil, nil
				}
				v, err := load(ctx)
				bare.Set(key, v)
				return v, err
			})
			return err
		}},
	} {
		b.Run(way.name, func(b *testing.B) {
			b.ReportAllocs()
			var loads atomic.Int64
			first := key
			for b.Loop() {
				key++
				start := make(chan struct{})
				var wait sync.WaitGroup
				for range stampede {
					wait.Go(func() {
						<-start
						err := way.get(b.Context(), key, func(context.Context) (item, error) {
							loads.Add(1)
							time.Sleep(5 * time.Millisecond)
							return item{1, body}, nil
						})
						if err != nil {
							b.Error(err)
						}
					})
				}
				close(start)
				wait.Wait()
			}
			b.ReportMetric(float64(loads.Load())/float64(key-first), "loads/key")
		})
	}
}
