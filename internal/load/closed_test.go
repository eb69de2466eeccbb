package load_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/loadlinehq/loadline/internal/load"
)

// stalling is a fast server that answers nobody for a while.
type stalling struct{ begin, end time.Time }

func (s stalling) serve() {
	if now := time.Now(); now.After(s.begin) && now.Before(s.end) {
		time.Sleep(s.end.Sub(now))
	}
	time.Sleep(time.Millisecond)
}

// closedLoop is the usual load test: workers that send their next request when they
// have the last answer, at an even pace that adds up to the rate.
func closedLoop(serve func(), workers int, rate float64, length time.Duration) load.Histogram {
	var (
		mu   sync.Mutex
		h    load.Histogram
		wg   sync.WaitGroup
		stop = time.Now().Add(length)
		pace = time.Duration(float64(workers) / rate * float64(time.Second))
	)
	for range workers {
		wg.Go(func() {
			for time.Now().Before(stop) {
				start := time.Now()
				serve()
				took := time.Since(start)
				mu.Lock()
				h.Record(took)
				mu.Unlock()
				time.Sleep(pace - took)
			}
		})
	}
	wg.Wait()
	return h
}

// A stall of one second in ten: a tenth of the users meets it. The closed loop notes
// one slow answer for each of its workers, and its p99 sees nothing. In virtual time,
// so that the stall is the only one.
func TestWhatAClosedLoopHides(t *testing.T) {
	t.Parallel()
	const (
		rate    = 300.0
		length  = 10 * time.Second
		workers = 10
	)
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now().Add(4 * time.Second)
		closed := closedLoop(stalling{begin, begin.Add(time.Second)}.serve, workers, rate, length)

		begin = time.Now().Add(4 * time.Second)
		server := stalling{begin, begin.Add(time.Second)}
		open := run(t, virtual(func(ctx context.Context, u *load.User) error {
			return u.Time(ctx, "GET /", func(context.Context) error { server.serve(); return nil })
		}, load.Step{Rate: rate, Duration: length})).Steps[0].All()

		slow := 100 * time.Millisecond
		factor := float64(open.Response.Quantile(0.99)) / float64(closed.Quantile(0.99))
		t.Logf("p99: closed loop %v, from the intended start %v, %.0f times as much; answers slower than %v: %d of %d and %d of %d",
			closed.Quantile(0.99), open.Response.Quantile(0.99), factor, slow,
			closed.Above(slow), closed.Count(), open.Response.Above(slow), open.Response.Count())
		if factor < 500 {
			t.Errorf("the closed loop hides a factor of %.0f only", factor)
		}
		if got := closed.Above(slow); got != workers {
			t.Errorf("%d slow answers for %d workers", got, workers)
		}
		if got := float64(open.Response.Above(slow)) / float64(open.Response.Count()); got < 0.07 || got > 0.11 {
			t.Errorf("a share of %.3f met the stall", got)
		}
	})
}

// Over capacity, the time from getting a connection on is a figure about the client:
// connections ÷ capacity, however long the users wait.
func TestWhatServiceTimeHides(t *testing.T) {
	t.Parallel()
	cfg := lenient(serve(t, newSlots(2, 10*time.Millisecond)), get, load.Step{Rate: 400, Duration: 500 * time.Millisecond})
	cfg.MaxConns = 8
	all := run(t, cfg).Steps[0]
	routes := all.All()
	response, service := routes.Response.Quantile(0.5), routes.Service.Quantile(0.5)
	t.Logf("p50: service %v, response %v, %.0f times as much", service, response, float64(response)/float64(service))
	if response < 5*service {
		t.Errorf("p50: service %v, response %v", service, response)
	}
}

// The delay of one answer is not counted again in the requests that follow it.
func TestStallIsCountedOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cfg := virtual(func(ctx context.Context, u *load.User) error {
			for i := range 5 {
				err := u.Time(ctx, "page", func(context.Context) error {
					if i == 0 {
						time.Sleep(200 * time.Millisecond)
					}
					return nil
				})
				if err != nil {
					return err
				}
			}
			return nil
		}, load.Step{Rate: 50, Duration: 500 * time.Millisecond})
		s := run(t, cfg).Steps[0]
		all := s.All()
		if slow := all.Response.Above(150 * time.Millisecond); slow != s.Planned || all.Response.Count() != 5*s.Planned {
			t.Errorf("%d slow of %d requests of %d journeys", slow, all.Response.Count(), s.Planned)
		}
	})
}
