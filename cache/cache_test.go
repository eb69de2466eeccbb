package cache_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/loadlinehq/loadline/cache"
	"github.com/loadlinehq/loadline/causal"
	"github.com/loadlinehq/loadline/tenancy"
)

func TestTwoProcessesShareLoads(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	one, two := articles(t, f.process(), cache.Hot()), articles(t, f.process(), cache.Hot())
	var s source
	for range 3 {
		get(t, one, &s, "a")
		get(t, two, &s, "a")
	}
	wantLoads(t, &s, 1)
}

func TestInvalidationReachesAll(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	one, two := articles(t, f.process(), cache.Hot()), articles(t, f.process(), cache.Hot())
	var s source
	get(t, one, &s, "a")
	get(t, two, &s, "a")
	s.now.Store(1)
	if err := one.Invalidate(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	f.until("both processes have it", func() bool { return get(t, two, &s, "a") == 1 && get(t, one, &s, "a") == 1 })
	wantLoads(t, &s, 2)
	// And by the relay, for a writer that has died.
	s.now.Store(2)
	mark, err := f.relay.Apply(t.Context(), f.at(2000), [][]byte{one.Key(t.Context(), "a").Record()})
	if err != nil || mark.Number == 0 || mark.LSN != 2000 {
		t.Fatalf("%+v, %v", mark, err)
	}
	f.until("both have it", func() bool { return get(t, one, &s, "a") == 2 && get(t, two, &s, "a") == 2 })
}

// A session that has written reads what it wrote: before the announcement has been heard from the
// database, and then from the caches.
func TestCoveredByNumber(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	store := f.process()
	c := articles(t, store, cache.Hot())
	var s source
	get(t, c, &s, "a")
	session := causal.NewSession(causal.Token{})
	ctx := causal.WithSession(t.Context(), session)
	s.now.Store(1)
	session.Add(at(2000)) // as the router does after the commit
	a, err := c.Get(ctx, "a", s.load)
	if err != nil || a.Version != 1 {
		t.Errorf("before the invalidation: %v, %v", a, err)
	}
	if err := store.Invalidate(ctx, c.Key(ctx, "a")); err != nil {
		t.Fatal(err)
	}
	if m, _ := session.Token().Mark(system); m.Number == 0 || m.LSN != 2000 {
		t.Errorf("the session's mark is %+v", m)
	}
	before := s.loads.Load()
	var seen causal.Mark
	f.until("the cache is used", func() bool {
		before = s.loads.Load()
		a, err := c.Get(ctx, "a", func(ctx context.Context) (article, error) {
			seen, _ = causal.FromContext(ctx).Token().Mark(system)
			return s.load(ctx)
		})
		if err != nil || a.Version != 1 {
			t.Fatalf("%v, %v", a, err)
		}
		return s.loads.Load() == before
	})
	if seen.LSN < 2000 {
		t.Errorf("it was loaded at %v, and the fence is 2000", seen.LSN)
	}
	// Another process, whose session nobody told: by the drained mark.
	other := articles(t, f.process(), cache.Hot())
	late := causal.WithSession(t.Context(), causal.NewSession(causal.NewToken(at(3000))))
	before = s.loads.Load()
	_, _ = other.Get(late, "a", s.load)
	_, _ = other.Get(late, "a", s.load)
	if s.loads.Load() != before+2 {
		t.Errorf("who is not covered was given what is cached")
	}
	f.lsn.Store(3000)
	f.tick()
	f.until("the drained mark covers it", func() bool {
		before := s.loads.Load()
		_, _ = other.Get(late, "a", s.load)
		return s.loads.Load() == before
	})
}

// A load that was under way when its key was invalidated is not kept, and not joined.
func TestStaleFill(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	store := f.process()
	c := articles(t, store, cache.Hot())
	var s source
	get(t, c, &s, "other")
	reading, go1 := make(chan struct{}), make(chan struct{})
	var wait sync.WaitGroup
	wait.Go(func() {
		_, _ = c.Get(t.Context(), "a", func(context.Context) (article, error) {
			close(reading)
			<-go1
			return article{Version: 0}, nil // read before the write
		})
	})
	<-reading
	s.now.Store(1)
	session := causal.NewSession(causal.Token{})
	session.Add(at(2000))
	ctx := causal.WithSession(t.Context(), session)
	if err := store.Invalidate(ctx, c.Key(ctx, "a"), c.Key(ctx, "other")); err != nil {
		t.Fatal(err)
	}
	// The session's number is heard: it is given what is cached of the other key.
	f.until("covered", func() bool {
		before := s.loads.Load()
		a, err := c.Get(ctx, "other", s.load)
		return err == nil && a.Version == 1 && s.loads.Load() == before
	})
	began := time.Now()
	a, err := c.Get(ctx, "a", s.load)
	if err != nil || a.Version != 1 {
		t.Errorf("%v, %v", a, err)
	}
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("it has waited %v for the load of before", took)
	}
	close(go1)
	wait.Wait()
	for range 5 {
		if got := get(t, c, &s, "a"); got != 1 {
			t.Errorf("the cache has %d", got)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestTags(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	store := f.process()
	one, two := articles(t, store, cache.Hot()), articles(t, f.process(), cache.Hot())
	var s source
	load := func(ctx context.Context) (article, error) {
		cache.AddTags(ctx, "author:1", "list")
		return s.load(ctx)
	}
	read := func(c *cache.Cache[string, article], key string) int {
		a, err := c.Get(t.Context(), key, load)
		if err != nil {
			t.Error(err)
		}
		return a.Version
	}
	read(one, "a")
	read(two, "a")
	read(one, "b")
	wantLoads(t, &s, 2)
	s.now.Store(1)
	if err := store.Invalidate(t.Context(), cache.Tag("", "author:1")); err != nil {
		t.Fatal(err)
	}
	f.until("all of the tag", func() bool { return read(one, "a") == 1 && read(two, "a") == 1 && read(two, "b") == 1 })
	wantLoads(t, &s, 4)
	// A process that begins after it asks for what it has not heard.
	s.now.Store(2)
	read(one, "c")
	if err := store.Invalidate(t.Context(), cache.Tag("", "list")); err != nil {
		t.Fatal(err)
	}
	s.now.Store(3)
	three := articles(t, f.process(), cache.Hot())
	if got := read(three, "c"); got != 3 {
		t.Errorf("a process that began after the invalidation gives %d", got)
	}
	// A tag that is invalidated during the load.
	go1 := make(chan struct{})
	reading := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = one.Get(t.Context(), "d", func(ctx context.Context) (article, error) {
			cache.AddTags(ctx, "late")
			close(reading)
			<-go1
			return article{Version: -1}, nil
		})
	}()
	<-reading
	if err := store.Invalidate(t.Context(), cache.Tag("", "late")); err != nil {
		t.Fatal(err)
	}
	close(go1)
	<-done
	if got := read(two, "d"); got != 3 {
		t.Errorf("what was loaded before the tag's invalidation was kept: %d", got)
	}
}

// A load that had not read as far as a tag's invalidation is not kept; the next one reads further.
func TestTagFence(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	one, two := articles(t, f.process(), cache.Hot()), articles(t, f.process(), cache.Hot())
	writer := f.process()
	session := causal.NewSession(causal.Token{})
	session.Add(at(2000))
	var needed []causal.LSN
	load := func(ctx context.Context) (article, error) {
		m, _ := causal.FromContext(ctx).Token().Mark(system)
		needed = append(needed, m.LSN)
		cache.AddTags(ctx, "author:1")
		return article{}, nil
	}
	if err := writer.Invalidate(causal.WithSession(t.Context(), session), cache.Tag("", "author:1")); err != nil {
		t.Fatal(err)
	}
	// Neither knows yet that these have tags.
	for _, c := range []*cache.Cache[string, article]{one, one, two} {
		if _, err := c.Get(t.Context(), "a", load); err != nil {
			t.Fatal(err)
		}
	}
	if len(needed) != 2 || needed[0] >= 2000 || needed[1] < 2000 {
		t.Errorf("loads had to see %v; the first should be refused, and the next one see 2000", needed)
	}
}

func TestNegative(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	c := articles(t, f.process(), cache.Hot())
	loads := 0
	missing := func(context.Context) (article, error) {
		loads++
		return article{}, fmt.Errorf("articles: %w", cache.ErrNotFound)
	}
	for range 3 {
		if _, err := c.Get(t.Context(), "none", missing); !errors.Is(err, cache.ErrNotFound) {
			t.Errorf("%v", err)
		}
	}
	if loads != 1 {
		t.Errorf("%d loads", loads)
	}
	if err := c.Invalidate(t.Context(), "none"); err != nil {
		t.Fatal(err)
	}
	var s source
	f.until("it is there", func() bool {
		_, err := c.Get(t.Context(), "none", s.load)
		return err == nil
	})
}

// A thousand readers of one key, in four processes, cost one load.
func TestStampede(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	var caches []*cache.Cache[string, article]
	for range 4 {
		caches = append(caches, articles(t, f.process(), cache.Hot()))
	}
	var s source
	var wait sync.WaitGroup
	for i := range 1000 {
		wait.Go(func() {
			_, err := caches[i%4].Get(t.Context(), "a", func(ctx context.Context) (article, error) {
				time.Sleep(50 * time.Millisecond)
				return s.load(ctx)
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	wantLoads(t, &s, 1)
}

// Nobody is hurt by another's load that fails, panics, or ends its goroutine, nor by a reader who goes.
func TestFailures(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	c := articles(t, f.process(), cache.Hot())
	var s source
	for name, load := range map[string]func(context.Context) (article, error){
		"error":  func(context.Context) (article, error) { return article{}, errors.New("no") },
		"panic":  func(context.Context) (article, error) { panic("no") },
		"goexit": func(context.Context) (article, error) { goexit(); return article{}, nil },
	} {
		began := time.Now()
		if _, err := c.Get(t.Context(), name, load); err == nil {
			t.Errorf("%s: no error", name)
		}
		if get(t, c, &s, name); time.Since(began) > 2*time.Second {
			t.Errorf("%s: the next reader waits %v", name, time.Since(began))
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() { time.Sleep(20 * time.Millisecond); cancel() }()
	before := s.loads.Load()
	_, err := c.Get(ctx, "slow", func(ctx context.Context) (article, error) {
		time.Sleep(100 * time.Millisecond)
		return s.load(ctx)
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	get(t, c, &s, "slow")
	wantLoads(t, &s, before+1)
}

func TestGetMany(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	one, two := articles(t, f.process(), cache.Hot()), articles(t, f.process(), cache.Hot())
	var asked [][]string
	load := func(_ context.Context, keys []string) (map[string]article, error) {
		asked = append(asked, keys)
		m := make(map[string]article)
		for _, k := range keys {
			if k != "none" {
				m[k] = article{k, 1}
			}
		}
		return m, nil
	}
	for _, c := range []*cache.Cache[string, article]{one, one, two} {
		m, err := c.GetMany(t.Context(), []string{"a", "b", "none", "a"}, load)
		if err != nil || len(m) != 2 || m["b"].Title != "b" {
			t.Errorf("%v, %v", m, err)
		}
	}
	if len(asked) != 1 || len(asked[0]) != 3 {
		t.Errorf("asked for %v", asked)
	}
	if m, err := two.GetMany(t.Context(), []string{"a", "c"}, load); err != nil || len(m) != 2 || len(asked) != 2 || len(asked[1]) != 1 {
		t.Errorf("%v, %v, asked for %v", m, err, asked)
	}
}

// Processes that miss the same thousand keys load each once, whoever loads it.
func TestGetManyOfMany(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	keys := make([]string, cache.MaxMany)
	for i := range keys {
		keys[i] = fmt.Sprint(i)
	}
	var mu sync.Mutex
	loads := make(map[string]int)
	load := func(_ context.Context, keys []string) (map[string]article, error) {
		time.Sleep(20 * time.Millisecond)
		mu.Lock()
		defer mu.Unlock()
		m := make(map[string]article)
		for _, k := range keys {
			loads[k]++
			m[k] = article{k, 1}
		}
		return m, nil
	}
	var wait sync.WaitGroup
	for range 3 {
		c := articles(t, f.process(), cache.Class{Name: "patient", TTL: time.Minute, WaitTimeout: time.Minute})
		wait.Go(func() {
			m, err := c.GetMany(t.Context(), keys, load)
			if err != nil || len(m) != len(keys) || m["7"].Title != "7" {
				t.Errorf("%d values, %v", len(m), err)
			}
		})
	}
	wait.Wait()
	for _, k := range keys {
		if loads[k] != 1 {
			t.Fatalf("%s is loaded %d times", k, loads[k])
		}
	}
}

// What is past its time is given by GetMany as well, while it is loaded anew, and when that fails.
func TestOldValuesOfMany(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	for name, store := range map[string]*cache.Store{"Redis": f.process(), "one process": open(t, cache.StoreConfig{})} {
		t.Run(name, func(t *testing.T) {
			keys := []string{"a", "b", "c"}
			var now atomic.Int64
			many := func(c *cache.Cache[string, article], fails error, during func()) (map[string]article, error) {
				return c.GetMany(t.Context(), keys, func(_ context.Context, keys []string) (map[string]article, error) {
					m := make(map[string]article)
					for _, k := range keys {
						m[k] = article{k, int(now.Load())}
					}
					during()
					return m, fails
				})
			}
			nothing := func() {}
			c := articles(t, store, cache.Class{Name: "old", TTL: 300 * time.Millisecond, Stale: time.Hour, Jitter: -1, EarlyRefresh: -1})
			versions := func() (sum int) {
				m, err := many(c, nil, nothing)
				if err != nil || len(m) != len(keys) {
					t.Errorf("%v, %v", m, err)
				}
				for _, a := range m {
					sum += a.Version
				}
				return sum
			}
			versions()
			now.Store(1)
			time.Sleep(400 * time.Millisecond)
			if got := versions(); got != 0 {
				t.Errorf("who comes after the time has to wait: %d", got)
			}
			f.until("others are loaded", func() bool { return versions() == len(keys) })

			// Past that, they are given when loading fails, and were not invalidated, also while it was tried.
			if c, err := cache.New(store, cache.Config[string, article]{Name: "failing", Class: cache.Class{Name: "failing", TTL: 100 * time.Millisecond, Stale: -1, StaleIfError: time.Hour, Jitter: -1}}); err != nil {
				t.Error(err)
			} else {
				away := errors.New("the database is away")
				_, _ = many(c, nil, nothing)
				time.Sleep(200 * time.Millisecond)
				if m, err := many(c, away, nothing); err != nil || len(m) != len(keys) {
					t.Errorf("%v, %v", m, err)
				}
				m, err := many(c, away, func() {
					if err := c.Invalidate(t.Context(), "b"); err != nil {
						t.Error(err)
					}
					time.Sleep(100 * time.Millisecond) // it is heard
				})
				if !errors.Is(err, away) {
					t.Errorf("what was invalidated is given because loading fails: %v, %v", m, err)
				}
			}
		})
	}
}

// A store without Redis keeps the rules in its process.
func TestOneTier(t *testing.T) {
	t.Parallel()
	store, err := cache.OpenStore(t.Context(), cache.StoreConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	c := articles(t, store, cache.Hot())
	var s source
	get(t, c, &s, "a")
	get(t, c, &s, "a")
	wantLoads(t, &s, 1)
	session := causal.NewSession(causal.Token{})
	ctx := causal.WithSession(t.Context(), session)
	session.Add(at(2000))
	s.now.Store(1)
	if err := store.Invalidate(ctx, c.Key(ctx, "a")); err != nil {
		t.Fatal(err)
	}
	var fence causal.LSN
	a, err := c.Get(ctx, "a", func(ctx context.Context) (article, error) {
		m, _ := causal.FromContext(ctx).Token().Mark(system)
		fence = m.LSN
		return s.load(ctx)
	})
	if err != nil || a.Version != 1 || fence != 2000 {
		t.Errorf("%v, %v, read at %v", a, err, fence)
	}
	if get(t, c, &s, "a"); s.loads.Load() != 2 {
		t.Errorf("%d loads", s.loads.Load())
	}
	// A stranger's token: covered when the relay in this process has drained it.
	late := causal.WithSession(t.Context(), causal.NewSession(causal.NewToken(at(3000))))
	_, _ = c.Get(late, "a", s.load)
	wantLoads(t, &s, 3)
	drained := func(told uint64) (epoch uint64) {
		m := at(3000)
		m.Epoch = told
		epoch, err := store.Tick(t.Context(), m)
		if m.Epoch = epoch; err == nil {
			err = store.Drained(t.Context(), m)
		}
		if err != nil {
			t.Fatal(err)
		}
		return epoch
	}
	epoch := drained(0)
	_, _ = c.Get(late, "a", s.load) // who began to relay does not know what was invalidated elsewhere
	_, _ = c.Get(late, "a", s.load)
	wantLoads(t, &s, 4)
	drained(epoch)
	get(t, c, &s, "a")
	wantLoads(t, &s, 4)
	drained(epoch + 1) // another process's relay was there meanwhile
	get(t, c, &s, "a")
	wantLoads(t, &s, 5)
}

// Who invalidates what he has just read is not given it again, in one process also without a session.
func TestInvalidatedAfterLoading(t *testing.T) {
	t.Parallel()
	store, err := cache.OpenStore(t.Context(), cache.StoreConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	c := articles(t, store, cache.Hot())
	var s source
	for i := range 2000 {
		s.now.Store(int64(i))
		if got := get(t, c, &s, "a"); got != i {
			t.Fatalf("it has version %d of %d", got, i)
		}
		if err := c.Invalidate(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
	}
}

// A thousand readers of one key in one process cost one load, whenever they come.
func TestStampedeInOneProcess(t *testing.T) {
	t.Parallel()
	store, err := cache.OpenStore(t.Context(), cache.StoreConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	c := articles(t, store, cache.Hot())
	for i := range 20 {
		var s source
		var wait sync.WaitGroup
		for range 1000 {
			wait.Go(func() { get(t, c, &s, fmt.Sprint(i)) })
		}
		wait.Wait()
		wantLoads(t, &s, 1)
	}
}

func TestTenantsAreApart(t *testing.T) {
	t.Parallel()
	store, err := cache.OpenStore(t.Context(), cache.StoreConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	c := articles(t, store, cache.Hot())
	for i, tenant := range []string{"acme", "globex", ""} {
		ctx := t.Context()
		if tenant != "" {
			if ctx, err = tenancy.With(ctx, tenant); err != nil {
				t.Fatal(err)
			}
		}
		a, err := c.Get(ctx, "a", func(context.Context) (article, error) { return article{tenant, i}, nil })
		if err != nil || a.Title != tenant {
			t.Errorf("%s: %v, %v", tenant, a, err)
		}
	}
}

// A value past its time is given while another is loaded, and when loading fails.
func TestOldValues(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	store := f.process()
	c := articles(t, store, cache.Class{Name: "short", TTL: 300 * time.Millisecond, Stale: time.Hour, Jitter: -1, EarlyRefresh: -1})
	var s source
	get(t, c, &s, "a")
	time.Sleep(400 * time.Millisecond)
	s.now.Store(1)
	if got := get(t, c, &s, "a"); got != 0 {
		t.Errorf("who comes after the time has to wait: %d", got)
	}
	f.until("another is loaded", func() bool { return get(t, c, &s, "a") == 1 })
	// Past that, it is given when loading fails.
	c, err := cache.New(store, cache.Config[string, article]{Name: "failing", Class: cache.Class{Name: "failing", TTL: 100 * time.Millisecond, Stale: -1, StaleIfError: time.Hour, Jitter: -1}})
	if err != nil {
		t.Fatal(err)
	}
	get(t, c, &s, "a")
	time.Sleep(200 * time.Millisecond)
	a, err := c.Get(t.Context(), "a", func(context.Context) (article, error) { return article{}, errors.New("the database is away") })
	if err != nil || a.Version != 1 {
		t.Errorf("%v, %v", a, err)
	}
	// One that was invalidated is not.
	if err := c.Invalidate(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Get(t.Context(), "a", func(context.Context) (article, error) { return article{}, errors.New("the database is away") }); err == nil {
		t.Error("what was invalidated is given because loading fails")
	}
}

// Loads that wait for each other's places go on: who waits lends his.
func TestLoadsWithinLoads(t *testing.T) {
	t.Parallel()
	store := open(t, cache.StoreConfig{MaxLoads: 2})
	outer, err := cache.New(store, cache.Config[string, article]{Name: "outer", Class: cache.Hot()})
	if err != nil {
		t.Fatal(err)
	}
	inner := articles(t, store, cache.Hot())
	began := time.Now()
	for round := range 20 {
		var wait sync.WaitGroup
		var ready sync.WaitGroup
		ready.Add(2)
		key := fmt.Sprint(round)
		for i := range 2 {
			wait.Go(func() {
				_, err := outer.Get(t.Context(), fmt.Sprint(round, i), func(ctx context.Context) (article, error) {
					ready.Done() // both places are taken
					ready.Wait()
					time.Sleep(2 * time.Millisecond)
					return inner.Get(ctx, key, func(context.Context) (article, error) { return article{}, nil })
				})
				if err != nil {
					t.Error(err)
				}
			})
		}
		wait.Go(func() {
			ready.Wait()
			if _, err := inner.Get(t.Context(), key, func(context.Context) (article, error) { return article{}, nil }); err != nil {
				t.Error(err)
			}
		})
		wait.Wait()
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
}

// Processes without a relay open an epoch themselves, and give a session what is cached once its own write is
// heard, though nobody has said which database's positions are meant.
func TestWithoutRelay(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.stop()
	f.config.WithoutRelay, f.config.Prefix = true, f.config.Prefix+"alone:"
	stores := []*cache.Store{f.process(), f.process()}
	one, two := articles(t, stores[0], cache.Hot()), articles(t, stores[1], cache.Hot())
	var s source
	get(t, one, &s, "a")
	get(t, two, &s, "a")
	wantLoads(t, &s, 1)
	session := causal.NewSession(causal.Token{})
	ctx := causal.WithSession(t.Context(), session)
	session.Add(at(2000))
	s.now.Store(1)
	if err := stores[0].Invalidate(ctx, one.Key(ctx, "a")); err != nil {
		t.Fatal(err)
	}
	for _, c := range []*cache.Cache[string, article]{one, two} {
		f.until("the write is heard, and what it wrote is cached", func() bool {
			loads := s.loads.Load()
			a, err := c.Get(ctx, "a", s.load)
			if err != nil || a.Version != 1 {
				t.Errorf("%v, %v", a, err)
			}
			return s.loads.Load() == loads
		})
	}
	before := s.loads.Load()
	if a, err := two.Get(ctx, "a", s.load); err != nil || a.Version != 1 {
		t.Errorf("%v, %v", a, err)
	}
	wantLoads(t, &s, before)
	// One whose write was told to nobody reads the database.
	stranger := causal.WithSession(t.Context(), causal.NewSession(causal.NewToken(at(3000))))
	if _, err := two.Get(stranger, "a", s.load); err != nil {
		t.Error(err)
	}
	wantLoads(t, &s, before+1)
	// The epoch is dropped: they open another, the same.
	f.keys("meta", func(client rueidis.Client, keys []string) {
		if err := client.Do(t.Context(), client.B().Del().Key(keys...).Build()).Error(); err != nil {
			t.Fatal(err)
		}
	})
	s.now.Store(2)
	f.until("both are in a new epoch", func() bool {
		loads := s.loads.Load()
		return get(t, one, &s, "a") == 2 && get(t, two, &s, "a") == 2 && s.loads.Load() == loads && stores[0].Active() && stores[1].Active()
	})
}

// A program with another type beside this one loads its own.
func TestSchema(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	store := f.process()
	one := articles(t, store, cache.Hot())
	type other struct{ Title, Author string }
	two, err := cache.New(store, cache.Config[string, other]{Name: "article", Class: cache.Hot()})
	if err != nil {
		t.Fatal(err)
	}
	var s source
	get(t, one, &s, "a")
	o, err := two.Get(t.Context(), "a", func(context.Context) (other, error) { return other{"t", "b"}, nil })
	if err != nil || o.Author != "b" {
		t.Errorf("%v, %v", o, err)
	}
}

func TestBadConfigurations(t *testing.T) {
	t.Parallel()
	store, err := cache.OpenStore(t.Context(), cache.StoreConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	_, err = cache.New(store, cache.Config[float64, string]{Name: "a/b", Class: cache.Class{TTL: -1, LoadTimeout: time.Minute}})
	for _, want := range []string{"Name", "Class.Name", "TTL", "KeyText", "LoadTimeout"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not name %s", err, want)
		}
	}
	if _, err := cache.OpenStore(t.Context(), cache.StoreConfig{Timeout: time.Hour, MaxLoads: -1}); err == nil || !strings.Contains(err.Error(), "Timeout") || !strings.Contains(err.Error(), "MaxLoads") {
		t.Errorf("%v", err)
	}
}

// A session whose write has changed more than caches were told of in one call is not given what is
// cached.
func TestPartOfAWrite(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	c := articles(t, f.process(), cache.Hot())
	var s source
	get(t, c, &s, "list")
	session := causal.NewSession(causal.Token{})
	ctx := causal.WithSession(t.Context(), session)
	s.now.Store(1)
	session.Add(at(2000))
	if err := c.Invalidate(ctx, "a"); err != nil { // and the list is left to the relay
		t.Fatal(err)
	}
	for range 20 {
		if a, err := c.Get(ctx, "list", s.load); err != nil || a.Version != 1 {
			t.Fatalf("%v, %v", a, err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// A relay goes on with the epoch that its predecessor has applied all in, and with no other: that one may have
// applied, and deleted, invalidations on a Redis that had been deposed, which this one's does not have.
func TestSuccessorOfTheRelay(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		told  func(epoch uint64) uint64
		loads int64
	}{
		{"same epoch", func(epoch uint64) uint64 { return epoch }, 1},
		{"of another Redis", func(epoch uint64) uint64 { return epoch + 1 }, 2},
		{"none", func(uint64) uint64 { return 0 }, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := newFleet(t)
			f.stop()
			first := articles(t, f.process(), cache.Hot())
			var s source
			get(t, first, &s, "a")
			successor, now := f.open(), f.at(2000)
			now.Epoch = c.told(now.Epoch)
			epoch, err := successor.Tick(t.Context(), now)
			if err != nil || (epoch == f.epoch.Load()) != (c.loads == 1) {
				t.Errorf("epoch %d after %d, %v", epoch, f.epoch.Load(), err)
			}
			if again, err := successor.Tick(t.Context(), causal.Mark{System: system, Timeline: timeline, LSN: 2000, Epoch: epoch}); err != nil || again != epoch {
				t.Errorf("then epoch %d after %d, %v", again, epoch, err)
			}
			get(t, articles(t, f.process(), cache.Hot()), &s, "a")
			wantLoads(t, &s, c.loads)
		})
	}
}

// A session whose write has changed nothing that is cached is given what is cached, once that is said.
func TestNothingChanged(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	for name, store := range map[string]*cache.Store{"Redis": f.process(), "one process": open(t, cache.StoreConfig{})} {
		c := articles(t, store, cache.Hot())
		var s source
		get(t, c, &s, "a")
		if err := c.Invalidate(t.Context(), "another"); err != nil { // so that there is a number
			t.Fatal(err)
		}
		session := causal.NewSession(causal.Token{})
		ctx := causal.WithSession(t.Context(), session)
		read := func() {
			if _, err := c.Get(ctx, "a", s.load); err != nil {
				t.Error(err)
			}
		}
		session.Add(at(1 << 40)) // not drained for long
		read()
		wantLoads(t, &s, 2)
		if err := store.Invalidate(ctx); err != nil {
			t.Fatal(err)
		}
		if read(); name == "one process" {
			read() // its view may have begun with the session's
		}
		before := s.loads.Load()
		read()
		wantLoads(t, &s, before)
		if name == "Redis" {
			wantLoads(t, &s, 2)
		}
		// Not where there was another write, of which nothing was said.
		session.Add(at(2 << 40))
		session.Add(at(3 << 40))
		if err := store.Invalidate(ctx); err != nil {
			t.Fatal(err)
		}
		read()
		wantLoads(t, &s, before+1)
	}
}

// An epoch is not left because more was announced while it was looked at.
func TestLookedAtWhileMuchIsAnnounced(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	store, writer := f.process(), f.process()
	c := articles(t, writer, cache.Hot())
	views := store.Views()
	var wait sync.WaitGroup
	end := time.Now().Add(time.Second)
	for i := range 8 {
		wait.Go(func() {
			for n := 0; time.Now().Before(end); n++ {
				_ = c.Invalidate(t.Context(), fmt.Sprint(i, n)) // for the announcement
				store.Suspect()
			}
		})
	}
	wait.Wait()
	if n := store.Views(); n != views || !store.Active() {
		t.Errorf("it has begun anew %d times", n-views)
	}
}

// What Redis drops of an epoch's own ends it, and the relay opens another.
func TestEpochIsDropped(t *testing.T) {
	t.Parallel()
	for _, what := range []string{"meta", "tags"} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			f := newFleet(t)
			c := articles(t, f.process(), cache.Hot())
			var s source
			get(t, c, &s, "a")
			var old string
			f.keys("meta", func(_ rueidis.Client, keys []string) { old = keys[0] })
			f.keys(what, func(client rueidis.Client, keys []string) {
				if err := client.Do(t.Context(), client.B().Del().Key(keys...).Build()).Error(); err != nil {
					t.Fatal(err)
				}
			})
			before := s.loads.Load()
			f.until("the relay opens another", func() (is bool) {
				f.keys("meta", func(_ rueidis.Client, keys []string) { is = len(keys) == 1 && keys[0] != old })
				return is
			})
			f.until("a new epoch, in which it is loaded anew", func() bool {
				get(t, c, &s, "a")
				loads := s.loads.Load()
				get(t, c, &s, "a")
				return loads > before && s.loads.Load() == loads
			})
		})
	}
}

// A load that heeds nothing keeps its readers for a while, and nobody afterwards.
func TestHangingLoad(t *testing.T) {
	t.Parallel()
	store, err := cache.OpenStore(t.Context(), cache.StoreConfig{Lease: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	c := articles(t, store, cache.Class{Name: "short", TTL: time.Minute, WaitTimeout: -1})
	hang := make(chan struct{})
	if _, err := c.Get(t.Context(), "a", func(context.Context) (article, error) { <-hang; return article{}, nil }); err == nil {
		t.Error("no error")
	}
	var s source
	if get(t, c, &s, "a"); s.loads.Load() != 1 {
		t.Errorf("%d loads", s.loads.Load())
	}
	// Nor does who tries again get an error that another load had.
	for range 1000 {
		if _, err := c.Get(t.Context(), "b", func(context.Context) (article, error) { return article{}, errors.New("away") }); err == nil {
			t.Fatal("no error")
		}
		if _, err := c.Get(t.Context(), "b", s.load); err != nil {
			t.Fatal(err)
		}
		if err := c.Invalidate(t.Context(), "b"); err != nil {
			t.Fatal(err)
		}
	}
	close(hang)
	store.Close()
}

func TestGetManyWhoseLoadEnds(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	c := articles(t, f.process(), cache.Hot())
	for name, load := range map[string]func(context.Context, []string) (map[string]article, error){
		"error":  func(context.Context, []string) (map[string]article, error) { return nil, errors.New("no") },
		"panic":  func(context.Context, []string) (map[string]article, error) { panic("no") },
		"goexit": func(context.Context, []string) (map[string]article, error) { goexit(); return nil, nil },
	} {
		if _, err := c.GetMany(t.Context(), []string{name, name + "2"}, load); err == nil {
			t.Errorf("%s: no error", name)
		}
		began := time.Now()
		m, err := c.GetMany(t.Context(), []string{name}, func(context.Context, []string) (map[string]article, error) {
			return map[string]article{name: {Version: 1}}, nil
		})
		if err != nil || len(m) != 1 || time.Since(began) > 2*time.Second {
			t.Errorf("%s: afterwards %v, %v, after %v", name, m, err, time.Since(began))
		}
	}
}

// Readers who go while Redis is asked say nothing about Redis.
func TestReadersWhoGo(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	store := f.process()
	c := articles(t, store, cache.Hot())
	var s source
	get(t, c, &s, "a")
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for range 20 {
		_, err := c.GetMany(gone, []string{"b"}, func(context.Context, []string) (map[string]article, error) { return nil, gone.Err() })
		if err == nil {
			t.Error("no error")
		}
	}
	if !store.Active() {
		t.Error("the process takes part no more")
	}
	if get(t, c, &s, "a"); s.loads.Load() != 1 {
		t.Errorf("%d loads: what was cached has gone with them", s.loads.Load())
	}
}

// What is invalidated while another is loaded is not given when that fails.
func TestInvalidatedWhileLoading(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	c := articles(t, f.process(), cache.Class{Name: "short", TTL: 100 * time.Millisecond, Stale: -1, StaleIfError: time.Minute, SoftTimeout: -1, EarlyRefresh: -1})
	var s source
	get(t, c, &s, "a")
	time.Sleep(150 * time.Millisecond)
	a, err := c.Get(t.Context(), "a", func(ctx context.Context) (article, error) {
		if err := c.Invalidate(ctx, "a"); err != nil {
			t.Error(err)
		}
		time.Sleep(200 * time.Millisecond) // for the announcement
		return article{}, errors.New("the database is away")
	})
	if err == nil {
		t.Errorf("%v was given, which was invalidated before", a)
	}
}
