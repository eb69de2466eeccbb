package load_test

import (
	"context"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/loadlinehq/loadline/internal/load"
)

// stalling is a fast server that answers nobody for a while.
type stalling struct {
	mu         sync.Mutex
	begin, end time.Time
}

func (s *stalling) plan(after, length time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.begin = time.Now().Add(after)
	s.end = s.begin.Add(length)
}

func (s *stalling) ServeHTTP(http.ResponseWriter, *http.Request) {
	s.mu.Lock()
	begin, end := s.begin, s.end
	s.mu.Unlock()
	if time.Now().After(begin) {
		time.Sleep(time.Until(end))
	}
	time.Sleep(time.Millisecond)
}

// closedLoop is the usual load test: workers that send their next request when they
// have the last answer, at an even pace that adds up to the rate.
func closedLoop(t *testing.T, target string, workers int, rate float64, length time.Duration) load.Histogram {
	t.Helper()
	var (
		mu     sync.Mutex
		h      load.Histogram
		wg     sync.WaitGroup
		client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: workers}}
		stop   = time.Now().Add(length)
		pace   = time.Duration(float64(workers) / rate * float64(time.Second))
	)
	defer client.CloseIdleConnections()
	for range workers {
		wg.Go(func() {
			for time.Now().Before(stop) {
				start := time.Now()
				resp, err := client.Get(target)
				if err != nil {
					t.Error(err)
					return
				}
				_ = resp.Body.Close()
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

// A stall of one second in three: a third of the arrivals meet it. The closed loop
// notes one slow answer for each of its workers, and its p99 sees nothing.
func TestWhatAClosedLoopHides(t *testing.T) {
	t.Parallel()
	const (
		rate   = 300.0
		length = 3 * time.Second
	)
	server := &stalling{}
	target := serve(t, server)
	server.plan(time.Second, time.Second)
	closed := closedLoop(t, target, 5, rate, length)

	cfg := lenient(target, get, load.Step{Rate: rate, Duration: length})
	server.plan(time.Second, time.Second)
	open := run(t, cfg).Steps[0].All()

	factor := float64(open.Response.Quantile(0.99)) / float64(closed.Quantile(0.99))
	t.Logf("p99: closed loop %v, from the intended start %v, %.0f times as much; answers slower than 100 ms: %d of %d and %d of %d",
		closed.Quantile(0.99), open.Response.Quantile(0.99), factor, closed.Above(100*time.Millisecond), closed.Count(),
		open.Response.Above(100*time.Millisecond), open.Response.Count())
	if got := open.Response.Quantile(0.99); got < 900*time.Millisecond {
		t.Errorf("p99 is %v from the intended start, want near the stall's second", got)
	}
	if factor < 5 {
		t.Errorf("the closed loop's p99 of %v hides a factor of %.1f only", closed.Quantile(0.99), factor)
	}
	if got := closed.Above(900 * time.Millisecond); got > 5 {
		t.Errorf("%d slow answers for 5 workers", got)
	}
}

// Over capacity, the time from getting a connection on is a figure about the client:
// connections ÷ capacity, however long the users wait.
func TestWhatServiceTimeHides(t *testing.T) {
	t.Parallel()
	cfg := lenient(serve(t, newSlots(2, 10*time.Millisecond)), get, load.Step{Rate: 400, Duration: 2 * time.Second})
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
	cfg := lenient("", func(ctx context.Context, u *load.User) error {
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
}
