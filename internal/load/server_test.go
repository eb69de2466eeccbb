package load_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/loadlinehq/loadline/internal/load"
)

// slots is a server whose capacity is known: so many places, each held for a time
// that it measures itself, since a sleep takes longer than its name says, and longer
// still under load.
type slots struct {
	places chan struct{}
	sleep  time.Duration
	held   atomic.Int64 // nanoseconds, of all
	served atomic.Int64
}

func newSlots(places int, sleep time.Duration) *slots {
	return &slots{places: make(chan struct{}, places), sleep: sleep}
}

func (s *slots) hold(ctx context.Context) error {
	select {
	case s.places <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	start := time.Now()
	time.Sleep(s.sleep)
	s.held.Add(int64(time.Since(start)))
	s.served.Add(1)
	<-s.places
	return nil
}

// capacity is the operational law's bound, places ÷ mean hold time.
func (s *slots) capacity() float64 {
	return float64(cap(s.places)) * float64(s.served.Load()) / time.Duration(s.held.Load()).Seconds()
}

func (s *slots) reset() {
	s.held.Store(0)
	s.served.Store(0)
}

func (s *slots) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodHead {
		return
	}
	_ = s.hold(r.Context())
}

func serve(t testing.TB, h http.Handler) string {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return server.URL
}

func get(ctx context.Context, u *load.User) error {
	req, err := u.NewRequest(ctx, http.MethodGet, "/", nil)
	if err != nil {
		return err
	}
	_, err = u.Do("GET /", req)
	return err
}

// lenient leaves out the checks that a server in the same process, the race detector
// and other tests on the machine would fail.
func lenient(target string, journey load.Journey, steps ...load.Step) load.Config {
	return load.Config{
		Target: target, Journeys: []load.Weighted{{Name: "test", Run: journey}}, Steps: steps,
		MaxLag: -1, MaxCPU: -1, MaxMachineCPU: -1, WarmConns: 4,
	}
}

func run(t testing.TB, cfg load.Config) *load.Report {
	t.Helper()
	report, err := load.Run(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

// virtual is lenient for a bubble of synctest, which holds no connections.
func virtual(journey load.Journey, steps ...load.Step) load.Config {
	return load.OnTimer(lenient("", journey, steps...))
}
