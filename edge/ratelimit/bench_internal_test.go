package ratelimit

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/loadlinehq/loadline/internal/ratio"
)

func TestLocalDecisionAllocatesNothing(t *testing.T) {
	l, r := newLocalLimiter(t)
	if n := testing.AllocsPerRun(1000, func() {
		if d := l.Take(r[0]); !d.Allowed {
			t.Error("refused")
		}
	}); n != 0 {
		t.Errorf("it allocates %v times", n)
	}
}

func newLocalLimiter(t testing.TB) (*Limiter, []*http.Request) {
	t.Helper()
	l, err := New(Config{}, Policy{Name: "user", Limit: 1_000_000, Window: time.Second, Burst: 1_000_000_00, Key: func(r *http.Request) string { return r.Host }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	requests := make([]*http.Request, 1024)
	for i := range requests {
		requests[i] = httptest.NewRequest(http.MethodGet, "/", nil)
		requests[i].Host = fmt.Sprint("user-", i)
	}
	return l, requests
}

// A decision that needs no Redis, beside the least that a limit could be: a counter for each key and window, behind a mutex.
func BenchmarkLocalDecision(b *testing.B) {
	l, requests := newLocalLimiter(b)
	var mu sync.Mutex
	counts := make(map[string]int)
	began, window := time.Now(), time.Duration(0)
	count := func(r *http.Request) {
		mu.Lock()
		if now := time.Since(began).Truncate(time.Second); now != window {
			clear(counts)
			window = now
		}
		counts[r.Host]++
		mu.Unlock()
	}
	const calls = 40_000
	measured := func(callers int, decide func(*http.Request)) func() (time.Duration, error) {
		return func() (time.Duration, error) {
			var wait sync.WaitGroup
			began := time.Now()
			for c := range callers {
				wait.Go(func() {
					for i := range calls / callers {
						decide(requests[(i*31+c*7)%len(requests)])
					}
				})
			}
			wait.Wait()
			return time.Since(began), nil
		}
	}
	for _, callers := range []int{1, 8} {
		b.Run(fmt.Sprint(callers, " callers"), func(b *testing.B) {
			b.ReportAllocs()
			var r ratio.Result
			for b.Loop() {
				var err error
				if r, err = ratio.Measure(101, measured(callers, count), measured(callers, func(r *http.Request) { l.Take(r) })); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(r.Median, "ratio")
			b.Logf("a local decision / a mutex-guarded counter with a window, %d callers: %v, limit 2.00", callers, r)
			if r.Low > 2 {
				b.Errorf("%v is above 2", r)
			}
		})
	}
}
