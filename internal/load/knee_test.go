package load_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/loadlinehq/loadline/internal/load"
)

func printKnee(t *testing.T, knee *load.Knee) {
	t.Helper()
	var text bytes.Buffer
	if err := knee.WriteText(&text); err != nil {
		t.Error(err)
	}
	t.Logf("\n%s", text.String())
}

// inMemory is the server without network, for virtual time, in which a hold takes
// exactly its length and theory is exact.
func (s *slots) inMemory(ctx context.Context, u *load.User) error {
	return u.Time(ctx, "hold", s.hold)
}

// In virtual time the knee of m places held for S is m/S to the last digit, and every
// interval must hold it.
func TestKneeInVirtualTime(t *testing.T) {
	t.Parallel()
	seeds := uint64(1)
	if os.Getenv("LOADLINE_SLOW") != "" {
		seeds = 30
	}
	for _, c := range []struct {
		places int
		sleep  time.Duration
		start  float64
		width  float64
	}{
		{10, 20 * time.Millisecond, 250, 0},   // 500/s, and the default width of 6 %
		{1, 10 * time.Millisecond, 300, 0.12}, // 100/s: the search begins above the knee
		{40, 200 * time.Millisecond, 0, 0.12}, // 200/s
	} {
		for seed := range seeds {
			t.Run(fmt.Sprintf("%dx%v/%d", c.places, c.sleep, seed), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := newSlots(c.places, c.sleep)
					start := time.Now()
					knee, err := load.FindKnee(t.Context(), load.KneeConfig{
						Config: load.OnTimer(load.Config{Seed: seed * 1000, Journeys: []load.Weighted{{Run: s.inMemory}}}), Start: c.start, Width: c.width,
					})
					printKnee(t, knee)
					if err != nil {
						t.Fatal(err)
					}
					want := float64(c.places) / c.sleep.Seconds()
					if knee.Low >= want || knee.High <= want || knee.Width() > max(c.width, 0.06) {
						t.Errorf("the interval from %.1f to %.1f (%.1f %% wide), the knee is %.1f", knee.Low, knee.High, 100*knee.Width(), want)
					}
					checkProbes(t, knee)
					t.Logf("%v of virtual time", time.Since(start).Round(time.Second))
				})
			})
		}
	}
}

// checkProbes holds a search to what makes its interval believable: each end was
// tried again, under other arrivals, and the rates were as said.
func checkProbes(t *testing.T, knee *load.Knee) {
	t.Helper()
	slopes := map[float64][]float64{}
	for _, p := range knee.Probes {
		if want := p.Rate * p.Hold.Seconds(); math.Abs(float64(p.Planned)-want) > 0.6 {
			t.Errorf("%d arrivals at %.1f/s for %v, want %.1f", p.Planned, p.Rate, p.Hold, want)
		}
		slopes[p.Rate] = append(slopes[p.Rate], p.BacklogSlope)
	}
	for _, end := range []float64{knee.Low, knee.High} {
		if n := len(slopes[end]); n < 2 {
			t.Errorf("%.1f/s was tried %d times", end, n)
		} else if slopes[end][0] == slopes[end][1] {
			t.Errorf("%.1f/s was tried twice with the same arrivals", end)
		}
	}
}

// With an SLO the knee is where the SLO is missed, below the capacity. For one place
// held for S and Poisson arrivals the mean wait is S·ρ/2(1−ρ), so that a p99 of some
// services is missed well before ρ = 1.
func TestKneeOfAnSLO(t *testing.T) {
	t.Parallel()
	if os.Getenv("LOADLINE_SLOW") == "" {
		t.Skip("set LOADLINE_SLOW to search a knee that no overload shows, for some seconds")
	}
	synctest.Test(t, func(t *testing.T) {
		s := newSlots(1, 10*time.Millisecond)
		knee, err := load.FindKnee(t.Context(), load.KneeConfig{
			Config: load.OnTimer(load.Config{
				Journeys: []load.Weighted{{Run: s.inMemory}}, SLO: load.SLO{P99: 60 * time.Millisecond}, Seed: 5,
			}),
			Start: 20,
		})
		printKnee(t, knee)
		if err != nil {
			t.Fatal(err)
		}
		// M/D/1's p99 of the response is 6 services at ρ = 0.7, by Crommelin's formula.
		if knee.Low > 78 || knee.High < 60 || knee.Width() > 0.06 {
			t.Errorf("from %.1f to %.1f", knee.Low, knee.High)
		}
	})
}

// A search that finds nothing, or whose generator cannot keep up, gives no number.
func TestKneeRefusesToGuess(t *testing.T) {
	t.Parallel()
	broken := func(ctx context.Context, u *load.User) error {
		return u.Time(ctx, "broken", func(context.Context) error { return errors.New("broken") })
	}
	for name, c := range map[string]struct {
		cfg   load.KneeConfig
		want  error
		retry bool
	}{
		"no knee up to Max": {load.KneeConfig{Config: load.Config{Journeys: []load.Weighted{{Run: instant}}}, Max: 60}, load.ErrNoKnee, false},
		"nothing works":     {load.KneeConfig{Config: load.Config{Journeys: []load.Weighted{{Run: broken}}}}, load.ErrNoKnee, false},
		"void":              {load.KneeConfig{Config: load.Config{Journeys: []load.Weighted{{Run: nothing}}}}, load.ErrVoid, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c.cfg.Config = load.OnTimer(c.cfg.Config)
				knee, err := load.FindKnee(t.Context(), c.cfg)
				if !errors.Is(err, c.want) || knee.Low != 0 || knee.High != 0 {
					t.Errorf("got %v and the interval %v to %v", err, knee.Low, knee.High)
				}
				if len(knee.Probes) == 0 || (c.retry && len(knee.Probes) != 2) {
					t.Errorf("%d probes", len(knee.Probes))
				}
			})
		})
	}
}

// One stall of the server during a probe makes a rate look bad that is not. The
// confirmation finds out.
func TestKneeSurvivesOneStall(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSlots(10, 20*time.Millisecond)
		begin := time.Now()
		const from, to = 10 * time.Second, 12 * time.Second // in the first probe of the lower end
		var stalled atomic.Bool
		knee, err := load.FindKnee(t.Context(), load.KneeConfig{
			Config: load.OnTimer(load.Config{Journeys: []load.Weighted{{Run: func(ctx context.Context, u *load.User) error {
				return u.Time(ctx, "hold", func(ctx context.Context) error {
					if since := time.Since(begin); since > from && since < to {
						stalled.Store(true)
						time.Sleep(to - since)
					}
					return s.hold(ctx)
				})
			}}}}),
			Start: 400, Width: 0.12,
		})
		printKnee(t, knee)
		bad := false
		for _, p := range knee.Probes {
			bad = bad || (p.Verdict == load.NotSustained && p.Rate < 500)
		}
		if !bad {
			t.Error("no probe has met the stall")
		}
		if err != nil || !stalled.Load() || knee.Low >= 500 || knee.High <= 500 {
			t.Errorf("%v, stalled %v, from %.1f to %.1f", err, stalled.Load(), knee.Low, knee.High)
		}
	})
}

func TestKneeInterrupted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		s := newSlots(10, 20*time.Millisecond)
		knee, err := load.FindKnee(ctx, load.KneeConfig{Config: load.OnTimer(load.Config{Journeys: []load.Weighted{{Run: s.inMemory}}})})
		if !errors.Is(err, context.DeadlineExceeded) || knee.Low != 0 {
			t.Errorf("got %v, %v", knee, err)
		}
	})
}

// The real thing: a server in HTTP with ten places of about 20 ms. The knee is
// places ÷ the hold time that the server has measured in the same probes.
func TestKneeOfRealServer(t *testing.T) {
	if os.Getenv("LOADLINE_SLOW") == "" {
		t.Skip("set LOADLINE_SLOW to search the knee of a real server, for about two minutes")
	}
	s := newSlots(10, 20*time.Millisecond)
	type seen struct{ rate, capacity float64 }
	var near []seen
	cfg := lenient(serve(t, s), get)
	cfg.MaxLag = 20 * time.Millisecond // one service
	search := load.KneeConfig{
		Config: cfg, Start: 150, Retries: 5,
		OnProbe: func(p load.Probe, r *load.Report) {
			capacity := s.capacity()
			s.reset()
			if p.Verdict != load.VoidProbe {
				near = append(near, seen{p.Rate, capacity})
			}
			t.Logf("%.1f/s %s, %d of %d, slope %+.2f/s, capacity by measured hold %.1f/s, lag p99 %v, cpu %.0f %% %s",
				p.Rate, p.Verdict, p.Ended, p.Planned, p.BacklogSlope, capacity,
				r.Steps[0].Lag.Quantile(0.99), 100*r.Steps[0].CPU, strings.Join(p.Reasons, "; "))
		},
	}
	knee, err := load.FindKnee(t.Context(), search)
	// Other packages' tests may take the machine for minutes. The search then says that
	// it is void, as it should.
	for begin := time.Now(); errors.Is(err, load.ErrVoid) && time.Since(begin) < 8*time.Minute; {
		t.Log(err)
		time.Sleep(20 * time.Second)
		near = nil
		knee, err = load.FindKnee(t.Context(), search)
	}
	printKnee(t, knee)
	if err != nil {
		t.Fatal(err)
	}
	mean, n := 0.0, 0.0
	for _, x := range near {
		if x.rate == knee.Low || x.rate == knee.High {
			mean, n = mean+x.capacity, n+1
		}
	}
	mean /= n
	t.Logf("capacity by the measured hold time %.1f/s, interval %.1f to %.1f, %.1f %% wide", mean, knee.Low, knee.High, 100*knee.Width())
	if knee.Width() > 0.06 || mean < knee.Low || mean > knee.High {
		t.Errorf("%.1f/s is not within %.1f and %.1f, or that is too wide", mean, knee.Low, knee.High)
	}
}
