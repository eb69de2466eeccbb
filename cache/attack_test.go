package cache_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/rueidis"
	sdk "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/loadlinehq/loadline/cache"
	"github.com/loadlinehq/loadline/causal"
	"github.com/loadlinehq/loadline/db"
	"github.com/loadlinehq/loadline/internal/migrate"
	"github.com/loadlinehq/loadline/internal/stack"
	"github.com/loadlinehq/loadline/internal/stack/stacktest"
	"github.com/loadlinehq/loadline/outbox"
)

const (
	attackKeys      = 64
	attackWriters   = 4
	attackReaders   = 48
	attackProcesses = 3
	readsPerWrite   = 50
)

// attack is three processes of an application, on a primary with two replicas that lag, and one
// Redis.
type attack struct {
	t      *testing.T
	s      *stack.Stack
	stores []*cache.Store
	caches []*cache.Cache[int, int64]
	router []*db.Router
	reader *sdk.ManualReader

	mu     sync.Mutex
	latest [attackKeys]seen

	reads, stale, hits atomic.Int64
}

// seen is what the last writer of a key has written, and his token.
type seen struct {
	version int64
	token   causal.Token
}

func newAttack(t *testing.T, s *stack.Stack, prefix string) *attack {
	t.Helper()
	a := &attack{t: t, s: s, reader: sdk.NewManualReader()}
	provider := sdk.NewMeterProvider(sdk.WithReader(a.reader))
	quiet := slog.New(slog.DiscardHandler)
	var primary, redisURL string
	var replicas []string
	for _, variable := range s.Env() {
		for name, to := range map[string]*string{"DATABASE_URL=": &primary, "REDIS_URL=": &redisURL} {
			if len(variable) > len(name) && variable[:len(name)] == name {
				*to = variable[len(name):]
			}
		}
	}
	replicas = s.ReplicaURLs()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	t.Cleanup(func() { cancel(); running.Wait() })
	open := func() *cache.Store {
		option, err := rueidis.ParseURL(redisURL)
		if err != nil {
			t.Fatal(err)
		}
		store, err := cache.OpenStore(ctx, cache.StoreConfig{Redis: &option, Prefix: prefix, Timeout: time.Second, Logger: quiet, MeterProvider: provider})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(store.Close)
		return store
	}
	relay, err := outbox.NewRelay(outbox.RelayConfig{DSN: primary, Invalidator: open(), Poll: 100 * time.Millisecond, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	running.Go(func() { _ = relay.Run(ctx) })
	for range attackProcesses {
		router, err := db.Open(ctx, db.Config{Primary: primary, Replicas: replicas, Logger: quiet, Wait: -1})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(router.Close)
		store := open()
		c, err := cache.New(store, cache.Config[int, int64]{Name: "item", Class: cache.Hot()})
		if err != nil {
			t.Fatal(err)
		}
		a.router, a.stores, a.caches = append(a.router, router), append(a.stores, store), append(a.caches, c)
		running.Go(func() { _ = store.Run(ctx) })
		running.Go(func() { _ = router.Run(ctx) })
	}
	for _, store := range a.stores {
		for limit := time.Now().Add(20 * time.Second); !store.Active(); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(limit) {
				t.Fatal("a process does not take part")
			}
		}
	}
	// Connections are opened, and the cache is not cold.
	for p := range a.caches {
		running.Go(func() {
			for key := range attackKeys {
				if err := a.readKey(ctx, p, key, none); err != nil && ctx.Err() == nil {
					t.Error(err)
				}
			}
		})
	}
	for limit := time.Now().Add(30 * time.Second); a.reads.Load() < attackProcesses*attackKeys; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatal("the cache does not get warm")
		}
	}
	return a
}

// write commits a new version of a key, and tells the cache; a writer that dies does not.
func (a *attack) write(ctx context.Context, process int, dies bool) error {
	key := rand.IntN(attackKeys)
	session := causal.NewSession(causal.Token{})
	ctx = causal.WithSession(ctx, session)
	var version int64
	err := a.router[process].InTx(ctx, func(ctx context.Context, tx pgx.Tx) error {
		if err := tx.QueryRow(ctx, "UPDATE item SET version = version + 1 WHERE id = $1 RETURNING version", key).Scan(&version); err != nil {
			return err
		}
		return outbox.AddInvalidation(ctx, tx, a.caches[process].Key(ctx, key).Record())
	})
	if err != nil {
		return err
	}
	if !dies {
		_ = a.stores[process].Invalidate(ctx, a.caches[process].Key(ctx, key)) // the relay does it otherwise
	}
	a.mu.Lock()
	if version > a.latest[key].version {
		a.latest[key] = seen{version, session.Token()}
	}
	a.mu.Unlock()
	return nil
}

// read reads a key as one who has been told of the latest write.
func (a *attack) read(ctx context.Context, process int, mutate mutation) error {
	return a.readKey(ctx, process, rand.IntN(attackKeys), mutate)
}

func (a *attack) readKey(ctx context.Context, process, key int, mutate mutation) error {
	a.mu.Lock()
	want := a.latest[key]
	a.mu.Unlock()
	if mutate == withoutNumbers {
		want.token = causal.Token{}
	}
	session := causal.NewSession(want.token)
	loaded := false
	reader := causal.WithSession(ctx, session)
	got, err := a.caches[process].Get(reader, key, func(ctx context.Context) (version int64, err error) {
		loaded = true
		if mutate == withoutFence {
			ctx = causal.WithSession(ctx, causal.NewSession(want.token))
		}
		err = a.router[process].Read(ctx).QueryRow(ctx, "SELECT version FROM item WHERE id = $1", key).Scan(&version)
		return version, err
	})
	if err != nil {
		return err
	}
	a.reads.Add(1)
	if !loaded {
		a.hits.Add(1)
	}
	if got < want.version {
		a.stale.Add(1)
	}
	return nil
}

type mutation int

const (
	none mutation = iota
	withoutFence
	withoutLease
	withoutNumbers
)

// run attacks for a while.
func (a *attack) run(length time.Duration, mutate mutation, dying int) (reads, hits, stale int64) {
	a.t.Helper()
	a.reads.Store(0)
	a.hits.Store(0)
	a.stale.Store(0)
	ctx, cancel := context.WithTimeout(a.t.Context(), length)
	defer cancel()
	var wait sync.WaitGroup
	var errs, writes atomic.Int64
	for w := range attackWriters {
		wait.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				if err := a.write(context.WithoutCancel(ctx), w%attackProcesses, dying > 0 && n%dying == 0); err != nil {
					errs.Add(1)
				}
				// By the readers' pace, so that a slow machine has as many hits.
				for time.Sleep(rand.N(20 * time.Millisecond)); ctx.Err() == nil && a.reads.Load() < readsPerWrite*writes.Load(); {
					time.Sleep(time.Millisecond)
				}
				writes.Add(1)
			}
		})
	}
	for r := range attackReaders {
		wait.Go(func() {
			for ctx.Err() == nil {
				if err := a.read(context.WithoutCancel(ctx), r%attackProcesses, mutate); err != nil && !errors.Is(err, context.DeadlineExceeded) {
					errs.Add(1)
				}
				if rand.IntN(8) == 0 {
					time.Sleep(rand.N(2 * time.Millisecond))
				}
			}
		})
	}
	wait.Wait()
	reads, hits, stale = a.reads.Load(), a.hits.Load(), a.stale.Load()
	a.t.Logf("%d writes, %d reads, %.1f %% hits, %d stale (%.3f %%), %d errors", writes.Load(), reads, 100*float64(hits)/float64(max(1, reads)), stale, 100*float64(stale)/float64(max(1, reads)), errs.Load())
	return reads, hits, stale
}

// atRest compares both tiers with the database when all is quiet.
func (a *attack) atRest() {
	a.t.Helper()
	want := make(map[int]int64)
	rows, err := a.router[0].Write(a.t.Context()).Query(a.t.Context(), "SELECT id, version FROM item")
	if err != nil {
		a.t.Fatal(err)
	}
	for rows.Next() {
		var id int
		var version int64
		if err := rows.Scan(&id, &version); err != nil {
			a.t.Fatal(err)
		}
		want[id] = version
	}
	if err := rows.Err(); err != nil {
		a.t.Fatal(err)
	}
	time.Sleep(300 * time.Millisecond) // the relay's invalidations, and their announcements
	found := 0
	for p, c := range a.caches {
		for key := range attackKeys {
			got, err := c.Get(a.t.Context(), key, func(context.Context) (int64, error) { return 0, cache.ErrNotFound })
			switch {
			case errors.Is(err, cache.ErrNotFound):
			case err != nil:
				a.t.Error(err)
			case got != want[key]:
				a.t.Errorf("at rest process %d has version %d of %d, and the database %d", p, got, key, want[key])
			default:
				found++
			}
		}
	}
	a.t.Logf("at rest: %d values in the caches, all of them the database's", found)
	// What this test has put there is not the database's.
	for key := range attackKeys {
		if err := a.caches[0].Invalidate(a.t.Context(), key); err != nil {
			a.t.Error(err)
		}
	}
}

func (a *attack) outcomes() map[string]int64 {
	var m metricdata.ResourceMetrics
	if err := a.reader.Collect(context.Background(), &m); err != nil {
		a.t.Fatal(err)
	}
	counts := make(map[string]int64)
	for _, s := range m.ScopeMetrics {
		for _, metric := range s.Metrics {
			if sum, ok := metric.Data.(metricdata.Sum[int64]); ok && metric.Name == "loadline.cache.reads" {
				for _, p := range sum.DataPoints {
					outcome, _ := p.Attributes.Value("outcome")
					counts[outcome.AsString()] += p.Value
				}
			}
		}
	}
	return counts
}

func attackStack(t *testing.T) *stack.Stack {
	s := stacktest.Own(t, stack.Config{Replicas: 2, DisableSync: true})
	url := s.DatabaseURL()
	if _, err := migrate.Up(t.Context(), url, migrate.Set{Name: "outbox", Files: outbox.Migrations}); err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(t.Context(), "CREATE TABLE item (id int PRIMARY KEY, version bigint NOT NULL DEFAULT 0)"); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), "INSERT INTO item SELECT generate_series(0, $1::int - 1)", attackKeys); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"replica-1", "replica-2"} {
		if _, err := s.AddFault(t.Context(), stack.Fault{Service: name, Kind: stack.FaultLag, Delay: 30 * time.Millisecond}); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// Nobody is given what was invalidated, and without each of the rules somebody is.
func TestAttack(t *testing.T) {
	t.Parallel()
	length, least := 2*time.Second, int64(200)
	if os.Getenv("LOADLINE_SLOW") != "" {
		length, least = 60*time.Second, 500_000
	}
	s := attackStack(t)
	for _, c := range []struct {
		name   string
		mutate mutation
	}{{"all rules", none}, {"without the fence", withoutFence}, {"without the lease", withoutLease}, {"without numbers", withoutNumbers}} {
		t.Run(c.name, func(t *testing.T) {
			a := newAttack(t, s, fmt.Sprintf("attack%d:", rand.Uint32()))
			if c.mutate == withoutLease {
				for _, store := range a.stores {
					store.WithoutLease()
				}
			}
			reads, hits, stale := a.run(length, c.mutate, 5)
			t.Logf("%v", a.outcomes())
			if c.mutate != none {
				for range 4 { // a slow machine reads little in so short a time
					if stale > 0 {
						break
					}
					more, _, found := a.run(length, c.mutate, 5)
					reads, stale = reads+more, found
				}
				if stale == 0 && reads < 20_000 {
					t.Skipf("%d reads are too few to tell", reads)
				}
				if stale == 0 {
					t.Errorf("nothing of %d reads is stale: the attack does not find what it is for", reads)
				}
				return
			}
			if reads < least || stale != 0 || 10*hits < 6*reads && reads >= 2000 {
				t.Errorf("%d reads (at least %d), of which %d are hits (at least 60 %%) and %d stale", reads, least, hits, stale)
			}
			a.atRest()
		})
	}
}

// The same through faults of Redis, and of what leads to it: it dies, comes back empty, stands still, its
// subscribers are cut off.
func TestAttackThroughFaults(t *testing.T) {
	t.Parallel()
	rounds := 1
	if os.Getenv("LOADLINE_SLOW") != "" {
		rounds = 8
	}
	s := attackStack(t)
	a := newAttack(t, s, fmt.Sprintf("attack%d:", rand.Uint32()))
	direct := ""
	for _, service := range s.Services() {
		if service.Name == "redis" {
			direct = service.Direct
		}
	}
	client, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{direct}, DisableCache: true, ForceSingleClient: true})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	do := func(command ...string) {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if err := client.Do(ctx, client.B().Arbitrary(command...).Build()).Error(); err != nil {
			t.Errorf("%v: %v", command, err)
		}
	}
	stackFault := func(kind stack.FaultKind, length time.Duration) {
		active, err := s.AddFault(t.Context(), stack.Fault{Service: "redis", Kind: kind})
		if err != nil {
			t.Error(err)
			return
		}
		time.Sleep(length)
		if err := s.RemoveFault(t.Context(), active.ID); err != nil {
			t.Error(err)
		}
	}
	faults := map[string]func(){
		"killed":              func() { stackFault(stack.FaultKill, 300*time.Millisecond) },
		"paused":              func() { stackFault(stack.FaultPause, 500*time.Millisecond) },
		"stalled":             func() { stackFault(stack.FaultStall, 500*time.Millisecond) },
		"emptied":             func() { do("FLUSHALL") },
		"subscribers cut off": func() { do("CLIENT", "KILL", "TYPE", "pubsub") },
	}
	length := time.Duration(rounds*len(faults)) * 1500 * time.Millisecond
	done := make(chan struct{})
	counts := make(map[string]int)
	go func() {
		defer close(done)
		for range rounds {
			for name, fault := range faults {
				time.Sleep(500 * time.Millisecond)
				fault()
				counts[name]++
			}
		}
	}()
	reads, hits, stale := a.run(length, none, 5)
	<-done
	t.Logf("%v; %v", counts, a.outcomes())
	if stale != 0 || reads == 0 || hits == 0 {
		t.Errorf("%d reads, %d hits, %d stale", reads, hits, stale)
	}
	for _, store := range a.stores {
		for limit := time.Now().Add(20 * time.Second); !store.Active(); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(limit) {
				t.Fatal("a process does not take part again")
			}
		}
	}
	if _, hits, stale := a.run(time.Second, none, 0); hits == 0 || stale != 0 {
		t.Errorf("afterwards there are %d hits, and %d stale", hits, stale)
	}
	a.atRest()
}
