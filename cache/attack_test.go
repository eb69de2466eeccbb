package cache_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/rueidis"
	sdk "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/loadlinehq/loadline/cache"
	"github.com/loadlinehq/loadline/cache/cachetest"
	"github.com/loadlinehq/loadline/causal"
	"github.com/loadlinehq/loadline/db"
	"github.com/loadlinehq/loadline/internal/migrate"
	"github.com/loadlinehq/loadline/internal/stack"
	"github.com/loadlinehq/loadline/internal/stack/stacktest"
	"github.com/loadlinehq/loadline/outbox"
)

// attack is the same for all: three processes, and replicas that lag by more than most loads take.
var attack = cachetest.Attack{Keys: 32, Writers: 12, Readers: 48, ReadsPerWrite: 8, Settle: 20 * time.Second, MinHits: 0.6, MaxErrors: 0.05}

const (
	attackProcesses = 3
	attackLag       = 40 * time.Millisecond
	// attackLoad is how long a load may take after it has read its row: a query with more to do.
	attackLoad = 16 * time.Millisecond
	// dying is which share of the writers dies between commit and invalidation.
	dying = 0.2
)

// attacked is three processes of an application, on a primary with two replicas that lag, and one
// Redis.
type attacked struct {
	t      *testing.T
	stores []*cache.Store
	caches []*cache.Cache[int, int64]
	router []*db.Router
	reader *sdk.ManualReader
}

func newAttacked(t *testing.T, s *stack.Stack) *attacked {
	t.Helper()
	a := &attacked{t: t, reader: sdk.NewManualReader()}
	provider := sdk.NewMeterProvider(sdk.WithReader(a.reader))
	quiet := slog.New(slog.DiscardHandler)
	prefix := fmt.Sprintf("attack%d:", rand.Uint32())
	redisURL := ""
	for _, variable := range s.Env() {
		if url, ok := strings.CutPrefix(variable, "REDIS_URL="); ok {
			redisURL = url
		}
	}
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
	relay, err := outbox.NewRelay(outbox.RelayConfig{DSN: s.DatabaseURL(), Invalidator: open(), Poll: 100 * time.Millisecond, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	running.Go(func() { _ = relay.Run(ctx) })
	for range attackProcesses {
		router, err := db.Open(ctx, db.Config{Primary: s.DatabaseURL(), Replicas: s.ReplicaURLs(), Logger: quiet, Wait: -1})
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
	a.takesPart()
	return a
}

func (a *attacked) takesPart() {
	a.t.Helper()
	for _, store := range a.stores {
		for limit := time.Now().Add(20 * time.Second); !store.Active(); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(limit) {
				a.t.Fatal("a process does not take part")
			}
		}
	}
}

// mutation is a rule that is broken.
type mutation int

const (
	none mutation = iota
	withoutFence
	withoutLease
	withoutNumbers
)

func (a *attacked) application(mutate mutation) cachetest.Application {
	if mutate == withoutLease {
		for _, store := range a.stores {
			store.WithoutLease()
		}
	}
	return cachetest.Application{
		Processes: attackProcesses,
		Write:     a.write,
		Read: func(ctx context.Context, process, key int) (int64, bool, error) {
			return a.read(ctx, process, key, mutate)
		},
		Stored: func(ctx context.Context, key int) (version int64, err error) {
			err = a.router[0].Write(ctx).QueryRow(ctx, "SELECT version FROM item WHERE id = $1", key).Scan(&version)
			return version, err
		},
	}
}

// write commits a new version of a key, and tells the cache; a writer that dies does not.
func (a *attacked) write(ctx context.Context, process, key int) (version int64, err error) {
	err = a.router[process].InTx(ctx, func(ctx context.Context, tx pgx.Tx) error {
		if err := tx.QueryRow(ctx, "UPDATE item SET version = version + 1 WHERE id = $1 RETURNING version", key).Scan(&version); err != nil {
			return err
		}
		return outbox.AddInvalidation(ctx, tx, a.caches[process].Key(ctx, key).Record())
	})
	if err == nil && rand.Float64() >= dying {
		_ = a.stores[process].Invalidate(ctx, a.caches[process].Key(ctx, key)) // the relay does it otherwise
	}
	return version, err
}

func (a *attacked) read(ctx context.Context, process, key int, mutate mutation) (int64, bool, error) {
	seen := causal.FromContext(ctx).Token()
	if mutate == withoutNumbers {
		ctx = causal.WithSession(ctx, causal.NewSession(causal.Token{}))
	}
	var loaded atomic.Bool
	load := func(ctx context.Context, keys []int) (map[int]int64, error) {
		if slices.Contains(keys, key) {
			loaded.Store(true)
		}
		if mutate == withoutFence {
			ctx = causal.WithSession(ctx, causal.NewSession(seen))
		}
		rows, err := a.router[process].Read(ctx).Query(ctx, "SELECT id, version FROM item WHERE id = ANY ($1)", keys)
		if err != nil {
			return nil, err
		}
		versions := make(map[int]int64, len(keys))
		var id int
		var version int64
		_, err = pgx.ForEachRow(rows, []any{&id, &version}, func() error {
			versions[id] = version
			return nil
		})
		time.Sleep(rand.N(attackLoad))
		return versions, err
	}
	if rand.IntN(4) == 0 {
		some := []int{key, (key + 1) % attack.Keys, (key + 7) % attack.Keys}
		got, err := a.caches[process].GetMany(ctx, some, load)
		return got[key], !loaded.Load(), err
	}
	got, err := a.caches[process].Get(ctx, key, func(ctx context.Context) (int64, error) {
		versions, err := load(ctx, []int{key})
		return versions[key], err
	})
	return got, !loaded.Load(), err
}

func (a *attacked) outcomes() map[string]int64 {
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
	if _, err := conn.Exec(t.Context(), "INSERT INTO item SELECT generate_series(0, $1::int - 1)", attack.Keys); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"replica-1", "replica-2"} {
		if _, err := s.AddFault(t.Context(), stack.Fault{Service: name, Kind: stack.FaultLag, Delay: attackLag}); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// Nobody is given what was invalidated, and without each of the rules somebody is; all but the fence take LOADLINE_SLOW.
func TestAttack(t *testing.T) {
	t.Parallel()
	slow := os.Getenv("LOADLINE_SLOW") != ""
	s := attackStack(t)
	for _, c := range []struct {
		name   string
		mutate mutation
	}{{"all rules", none}, {"without the fence", withoutFence}, {"without the lease", withoutLease}, {"without numbers", withoutNumbers}} {
		if c.mutate > withoutFence && !slow {
			continue // the fence's shows that the attack is one
		}
		t.Run(c.name, func(t *testing.T) {
			a := newAttacked(t, s)
			app, attack := a.application(c.mutate), attack
			if slow {
				attack.Length = 30 * time.Second
			}
			if c.mutate == none {
				if slow {
					attack.MinReads, attack.MaxLength = 500_000, 20*time.Minute
				}
				attack.Run(t.Context(), t, app)
				t.Log(a.outcomes())
				return
			}
			attack.Settle = -1
			reads := int64(0)
			for range 5 { // a slow machine reads little in so short a time
				r := attack.Measure(t.Context(), app)
				t.Log(r)
				reads += r.Reads
				switch {
				case slow && r.StaleShare() < 0.01:
					t.Errorf("%.3f %% are stale: the attack would not find it where there is less of it", 100*r.StaleShare())
					return
				case r.Stale > 0:
					return
				}
			}
			if reads < 20_000 {
				t.Skipf("%d reads are too few to tell", reads)
			}
			t.Errorf("nothing of %d reads is stale: the attack does not find what it is for", reads)
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
	a := newAttacked(t, s)
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
		"killed":  func() { stackFault(stack.FaultKill, 300*time.Millisecond) },
		"paused":  func() { stackFault(stack.FaultPause, 500*time.Millisecond) },
		"stalled": func() { stackFault(stack.FaultStall, 500*time.Millisecond) },
		"emptied": func() { do("FLUSHALL") },
		"evicting": func() {
			do("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
			do("CONFIG", "SET", "maxmemory", "3mb")
			for i := range 3000 { // by what others have there
				do("SET", fmt.Sprint("ballast", i), strings.Repeat("x", 1000))
			}
			do("CONFIG", "SET", "maxmemory", "0")
		},
		"subscribers cut off": func() { do("CLIENT", "KILL", "TYPE", "pubsub") },
	}
	through := attack
	through.Length = time.Duration(rounds*len(faults)) * 1500 * time.Millisecond
	through.MinHits, through.MaxErrors = 0.01, 1 // what is read while Redis is away is loaded
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
	app := a.application(none)
	through.Settle = -1 // below
	through.Run(t.Context(), t, app)
	<-done
	t.Logf("%v; %v", counts, a.outcomes())
	a.takesPart()
	afterwards := attack
	afterwards.Length, afterwards.MinHits = 2*time.Second, 0.03 // the caches are cold
	afterwards.Run(t.Context(), t, app)
}
