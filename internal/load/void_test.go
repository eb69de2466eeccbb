package load_test

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/loadlinehq/loadline/internal/load"
)

func reasons(r *load.Report) string {
	all := fmt.Sprint(r.Void)
	for _, s := range r.Steps {
		all += fmt.Sprint(s.Void)
	}
	return all
}

// honest runs until one run is not void, for the machine's own stalls make runs void
// that are not starved.
func honest(t *testing.T, cfg load.Config) {
	t.Helper()
	var report *load.Report
	for range 5 {
		if report = run(t, cfg); report.Outcome == load.Pass {
			return
		}
	}
	t.Errorf("the same run, not starved, is %s: %s", report.Outcome, reasons(report))
}

func instant(ctx context.Context, u *load.User) error {
	return u.Time(ctx, "instant", func(context.Context) error { return nil })
}

// Not parallel with others: it takes all processors, and needs them.
func TestStarvedOfProcessorsIsVoid(t *testing.T) {
	cfg := lenient("", instant, load.Step{Rate: 100, Duration: 400 * time.Millisecond, Warmup: 100 * time.Millisecond})
	cfg.MaxLag = 10 * time.Millisecond
	honest(t, cfg)

	// The scheduler lets each have 10 ms at a time (runtime/proc.go, forcePreemptNS).
	var (
		stop    atomic.Bool
		burners sync.WaitGroup
	)
	for range 6 * runtime.GOMAXPROCS(0) {
		burners.Go(func() {
			for !stop.Load() {
			}
		})
	}
	cfg.MaxCPU = 0.7
	report := run(t, cfg)
	stop.Store(true)
	burners.Wait()
	if report.Outcome != load.Void || !strings.Contains(reasons(report), "send lag") {
		t.Errorf("starved, and %s: %s", report.Outcome, reasons(report))
	}
	// What other processes leave of the machine may be less than 70 %.
	if s := report.Steps[0]; s.CPU > 0.7 && !strings.Contains(reasons(report), "of its cores") {
		t.Errorf("used %.0f %% of its cores: %s", 100*s.CPU, reasons(report))
	}
}

// A pool of connections that is too small is a limit of the client. A server at its
// limit, which fills any pool, is not.
func TestStarvedOfConnectionsIsVoid(t *testing.T) {
	t.Parallel()
	step := load.Step{Rate: 200, Duration: 300 * time.Millisecond}
	cfg := lenient(serve(t, newSlots(50, 50*time.Millisecond)), get, step)
	cfg.MaxConns = 5 // 100/s
	var report *load.Report
	for range 3 { // where the machine stalls, answers are slow, and a full pool is explained
		if report = run(t, cfg); report.Outcome == load.Void {
			break
		}
	}
	if report.Outcome != load.Void || !strings.Contains(reasons(report), "MaxConns") {
		t.Errorf("starved, and %s: %s", report.Outcome, reasons(report))
	}
	cfg.MaxConns = 100
	honest(t, cfg)

	overloaded := lenient(serve(t, newSlots(5, 50*time.Millisecond)), get, step)
	overloaded.MaxConns = 20
	if report := run(t, overloaded); report.Outcome == load.Void {
		t.Errorf("the server is the limit, and the run %s: %s", report.Outcome, reasons(report))
	}
}

// A dispatcher that was kept from sending, and catches up, shows by its lag and by
// what it sent too late.
func TestBlockedDispatcherIsVoid(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cfg := virtual(instant, load.Step{Rate: 200, Duration: 600 * time.Millisecond})
		cfg.MaxLag = 30 * time.Millisecond
		honest(t, cfg)
		blocked := load.Stalled(cfg, 300*time.Millisecond, 500*time.Millisecond)
		report := run(t, blocked)
		if got := reasons(report); report.Outcome != load.Void || !strings.Contains(got, "send lag") || !strings.Contains(got, "in time") {
			t.Errorf("%s: %s", report.Outcome, got)
		}
		if s := report.Steps[0]; s.Sent != s.Planned || s.All().Response.Max() < 400*time.Millisecond {
			t.Errorf("sent %d of %d, the slowest %v: the delay is not in the response", s.Sent, s.Planned, s.All().Response.Max())
		}
	})
}

func TestNothingSentIsVoid(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for name, cfg := range map[string]load.Config{
			"nothing": virtual(nothing, load.Step{Rate: 100, Duration: 100 * time.Millisecond}),
			"planned": virtual(nothing, load.Step{Rate: 0.001, Duration: 10 * time.Millisecond}),
			"pause":   virtual(nothing, load.Step{Duration: 10 * time.Millisecond}),
		} {
			if report := run(t, cfg); report.Outcome != load.Void {
				t.Errorf("%s: %s", name, report.Outcome)
			}
		}
	})
}
