package edge_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
	"github.com/go-redis/redis_rate/v10"
	goredis "github.com/redis/go-redis/v9"
	"github.com/redis/rueidis"

	"github.com/loadlinehq/loadline/edge"
	"github.com/loadlinehq/loadline/edge/overload"
	"github.com/loadlinehq/loadline/edge/ratelimit"
	"github.com/loadlinehq/loadline/internal/ratio"
	"github.com/loadlinehq/loadline/internal/stack"
	"github.com/loadlinehq/loadline/internal/stack/stacktest"
)

func TestMain(m *testing.M) {
	if !stack.ServeNATS() {
		m.Run()
	}
}

var quiet = slog.New(slog.DiscardHandler)

func report(b *testing.B, what string, limit float64, pairs int, baseline, variant func() (time.Duration, error)) {
	b.Helper()
	var r ratio.Result
	for b.Loop() {
		var err error
		if r, err = ratio.Measure(pairs, baseline, variant); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(r.Median, "ratio")
	if limit == 0 {
		b.Logf("%s: %v", what, r)
		return
	}
	b.Logf("%s: %v, limit %.2f", what, r, limit)
	if r.Low > limit {
		b.Errorf("%s: %v is above %.2f", what, r, limit)
	}
}

// A decision by Redis, of 64 callers, beside redis_rate: twice as many at least.
func BenchmarkLimitByRedis(b *testing.B) {
	const callers, calls, users = 64, 6400, 1000
	server := stacktest.StartRedis(b)
	client, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{server.Address}, DisableCache: true, ForceSingleClient: true})
	if err != nil {
		b.Fatal(err)
	}
	defer client.Close()
	// So long that none is decided without Redis.
	limiter, err := ratelimit.New(ratelimit.Config{Redis: client, Timeout: 10 * time.Second, Logger: quiet},
		ratelimit.Policy{Name: "user", Limit: 1_000_000, Window: time.Minute, Key: func(r *http.Request) string { return r.Host }})
	if err != nil {
		b.Fatal(err)
	}
	defer limiter.Close()
	peerClient := goredis.NewClient(&goredis.Options{Addr: server.Address, PoolSize: callers})
	defer peerClient.Close()
	peer := redis_rate.NewLimiter(peerClient)
	limit := redis_rate.Limit{Rate: 1_000_000, Burst: 1_000_000, Period: time.Minute}
	requests := make([]*http.Request, users)
	for i := range requests {
		requests[i] = httptest.NewRequest(http.MethodGet, "/", nil)
		requests[i].Host = fmt.Sprint("user-", i)
	}
	all := func(decide func(*http.Request) error) func() (time.Duration, error) {
		return func() (time.Duration, error) {
			var wait sync.WaitGroup
			errs := make(chan error, callers)
			began := time.Now()
			for c := range callers {
				wait.Go(func() {
					for i := range calls / callers {
						if err := decide(requests[(i*31+c*17)%users]); err != nil {
							errs <- err
							return
						}
					}
				})
			}
			wait.Wait()
			select {
			case err := <-errs:
				return 0, err
			default:
				return time.Since(began), nil
			}
		}
	}
	report(b, "time of 6,400 decisions by Redis, 64 callers / redis_rate's", 0.5, 31,
		all(func(r *http.Request) error {
			_, err := peer.Allow(context.Background(), r.Host, limit)
			return err
		}),
		all(func(r *http.Request) error {
			if d := limiter.Take(r); !d.Allowed {
				return fmt.Errorf("refused: %+v", d)
			}
			return nil
		}))
}

// The whole chain before a trivial handler, beside chi with its usual middleware: RequestID, RealIP, Recoverer, Timeout.
func BenchmarkChain(b *testing.B) {
	trivial := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") })
	limiter, err := ratelimit.New(ratelimit.Config{Logger: quiet}, ratelimit.Policy{Name: "address", Limit: 1_000_000, Window: time.Second, Burst: 100_000_000, Key: ratelimit.ByAddress})
	if err != nil {
		b.Fatal(err)
	}
	defer limiter.Close()
	shed, err := overload.New(overload.Config{Ceiling: 64})
	if err != nil {
		b.Fatal(err)
	}
	defer shed.Close()
	caching, err := edge.NewCaching(edge.CachingConfig{Policy: func(*http.Request) edge.CachePolicy { return edge.CachePolicy{Shared: time.Minute} }})
	if err != nil {
		b.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /articles/{slug}", trivial)
	chain, err := edge.Chain(edge.ChainConfig{LimitByAddress: limiter.Handler, Shed: shed.Handler, CrossOrigin: http.NewCrossOriginProtection(), Caching: caching.Handler})
	if err != nil {
		b.Fatal(err)
	}
	ours := chain(mux)
	peer := chi.NewRouter()
	//lint:ignore SA1019 it is what applications have
	peer.Use(middleware.RequestID, middleware.RealIP, middleware.Recoverer, middleware.Timeout(10*time.Second))
	peer.Method(http.MethodGet, "/articles/{slug}", trivial)

	const calls = 2000
	serve := func(h http.Handler) func() (time.Duration, error) {
		r := httptest.NewRequest(http.MethodGet, "/articles/tea", nil)
		return func() (time.Duration, error) {
			began := time.Now()
			for range calls {
				h.ServeHTTP(httptest.NewRecorder(), r)
			}
			return time.Since(began), nil
		}
	}
	for name, h := range map[string]http.Handler{"chi": peer, "the chain": ours, "nothing": mux} {
		r := httptest.NewRequest(http.MethodGet, "/articles/tea", nil)
		b.Logf("%s: %.0f allocations a request, with the recorder's", name, testing.AllocsPerRun(1000, func() { h.ServeHTTP(httptest.NewRecorder(), r) }))
	}
	report(b, "a request through recover, ids, address, headers, body limit, rate limit, shedding, deadline, cross-origin and cache headers / chi's four", 0, 101, serve(peer), serve(ours))
}
