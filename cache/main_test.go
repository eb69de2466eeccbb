package cache_test

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"go.uber.org/goleak"

	"github.com/loadlinehq/loadline/cache"
	"github.com/loadlinehq/loadline/causal"
	"github.com/loadlinehq/loadline/internal/stack"
	"github.com/loadlinehq/loadline/internal/stack/stacktest"
)

func TestMain(m *testing.M) {
	if stack.ServeNATS() {
		return
	}
	goleak.VerifyTestMain(m)
}

const (
	system   = 7
	timeline = 1
)

func at(lsn causal.LSN) causal.Mark { return causal.Mark{System: system, Timeline: timeline, LSN: lsn} }

// fleet is a relay and processes on one Redis.
type fleet struct {
	t      testing.TB
	config cache.StoreConfig
	relay  *cache.Store
	stop   func()        // the relay's ticks
	lsn    atomic.Uint64 // of the database
	epoch  atomic.Uint64 // as the outbox has it
}

func newFleet(t testing.TB) *fleet {
	set := stacktest.New(t)
	option, err := rueidis.ParseURL(set.RedisURL)
	if err != nil {
		t.Fatal(err)
	}
	return newFleetOn(t, cache.StoreConfig{Redis: &option, Prefix: set.KeyPrefix, Timeout: time.Second, Logger: slog.New(slog.DiscardHandler)})
}

func newFleetOn(t testing.TB, c cache.StoreConfig) *fleet {
	f := &fleet{t: t, config: c}
	f.lsn.Store(1000)
	f.relay = f.open()
	f.tick()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			_ = f.tickRelay(ctx) // its errors are seen by what does not come
			select {
			case <-ctx.Done():
			case <-time.After(300 * time.Millisecond):
			}
		}
	}()
	f.stop = func() { cancel(); <-ended }
	t.Cleanup(f.stop)
	return f
}

func (f *fleet) open() *cache.Store {
	f.t.Helper()
	return open(f.t, f.config)
}

func open(t testing.TB, c cache.StoreConfig) *cache.Store {
	t.Helper()
	s, err := cache.OpenStore(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// at is a position as the outbox says it to the relay.
func (f *fleet) at(lsn causal.LSN) causal.Mark {
	m := at(lsn)
	m.Epoch = f.epoch.Load()
	return m
}

func (f *fleet) tickRelay(ctx context.Context) error {
	epoch, err := f.relay.Tick(ctx, f.at(causal.LSN(f.lsn.Load())))
	if err == nil {
		f.epoch.Store(epoch)
	}
	return err
}

// tick is the relay's.
func (f *fleet) tick() {
	f.t.Helper()
	if err := errors.Join(f.tickRelay(context.Background()), f.relay.Drained(context.Background(), f.at(causal.LSN(f.lsn.Load())))); err != nil {
		f.t.Error(err)
	}
}

// process is one that takes part.
func (f *fleet) process() *cache.Store {
	f.t.Helper()
	s := f.open()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		_ = s.Run(ctx)
		close(ended)
	}()
	f.t.Cleanup(func() { cancel(); <-ended })
	f.until("the process takes part", s.Active)
	return s
}

func (f *fleet) until(what string, is func() bool) {
	f.t.Helper()
	for limit := time.Now().Add(10 * time.Second); !is(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(limit) {
			f.t.Fatalf("this has not come: %s", what)
		}
	}
}

type article struct {
	Title   string
	Version int
}

func articles(t testing.TB, s *cache.Store, class cache.Class) *cache.Cache[string, article] {
	t.Helper()
	c, err := cache.New(s, cache.Config[string, article]{Name: "article", Class: class})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// source counts loads.
type source struct {
	loads atomic.Int64
	now   atomic.Int64 // version
}

func (s *source) load(context.Context) (article, error) {
	s.loads.Add(1)
	return article{"title", int(s.now.Load())}, nil
}

func get(t testing.TB, c *cache.Cache[string, article], s *source, key string) int {
	t.Helper()
	a, err := c.Get(t.Context(), key, s.load)
	if err != nil {
		t.Error(err)
	}
	return a.Version
}

func wantLoads(t testing.TB, s *source, want int64) {
	t.Helper()
	if n := s.loads.Load(); n != want {
		t.Errorf("%d loads, want %d", n, want)
	}
}

// keys are those of the epochs' own.
func (f *fleet) keys(what string, do func(client rueidis.Client, keys []string)) {
	f.t.Helper()
	client, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: f.config.Redis.InitAddress, DisableCache: true, ForceSingleClient: true})
	if err != nil {
		f.t.Fatal(err)
	}
	defer client.Close()
	keys, err := client.Do(context.Background(), client.B().Keys().Pattern(f.config.Prefix+"*:"+what).Build()).AsStrSlice()
	if err != nil {
		f.t.Fatal(err)
	}
	do(client, keys)
}
