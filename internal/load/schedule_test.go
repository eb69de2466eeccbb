package load_test

import (
	"context"
	"math"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/loadlinehq/loadline/internal/load"
)

func nothing(context.Context, *load.User) error { return nil }

func drawConfig(t *rapid.T) load.Config {
	steps := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) load.Step {
		s := load.Step{
			Rate:     float64(rapid.IntRange(0, 500).Draw(t, "rate")),
			EndRate:  float64(rapid.IntRange(0, 500).Draw(t, "end rate")),
			Duration: time.Duration(rapid.IntRange(1, 3000).Draw(t, "ms")) * time.Millisecond,
		}
		s.Warmup = time.Duration(rapid.Float64Range(0, 0.9).Draw(t, "warm-up") * float64(s.Duration))
		return s
	}), 1, 4).Draw(t, "steps")
	return load.Config{
		Steps: steps, Seed: rapid.Uint64().Draw(t, "seed"),
		Arrivals: load.Arrivals(rapid.IntRange(0, 2).Draw(t, "arrivals")),
		Users:    rapid.IntRange(0, 50).Draw(t, "users"),
		Journeys: []load.Weighted{{Name: "a", Weight: 1, Run: nothing}, {Name: "b", Weight: 3, Run: nothing}},
	}
}

func schedule(t interface{ Fatal(...any) }, cfg load.Config) []load.Arrival {
	s, err := cfg.Schedule()
	if err != nil {
		t.Fatal(err)
	}
	return slices.Collect(s.All())
}

func TestSameSeedSameSchedule(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		cfg := drawConfig(t)
		first := schedule(t, cfg)
		if !slices.Equal(first, schedule(t, cfg)) {
			t.Fatal("the same seed gave two schedules")
		}
		if cfg.Seed++; len(first) > 3 && cfg.Arrivals != load.Uniform && slices.Equal(first, schedule(t, cfg)) {
			t.Fatal("two seeds gave one schedule")
		}
	})
}

// Every arrival lies in its step, in order, on the right side of the warm-up; a
// pinned count is exact; and another mix leaves the times alone.
func TestScheduleIsWellFormed(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		cfg := drawConfig(t)
		arrivals := schedule(t, cfg)
		counts := make([]int, len(cfg.Steps))
		last := time.Duration(0)
		for _, a := range arrivals {
			start := time.Duration(0)
			for _, s := range cfg.Steps[:a.Step] {
				start += s.Duration
			}
			step := cfg.Steps[a.Step]
			if a.At < last || a.At < start || a.At >= start+step.Duration {
				t.Fatalf("%+v after %v, in a step from %v to %v", a, last, start, start+step.Duration)
			}
			if a.Warmup != (a.At < start+step.Warmup) {
				t.Fatalf("%+v with a warm-up until %v", a, start+step.Warmup)
			}
			if a.Journey < 0 || a.Journey > 1 || (cfg.Users > 0 && (a.User < 0 || a.User >= cfg.Users)) {
				t.Fatalf("%+v", a)
			}
			last = a.At
			counts[a.Step]++
		}
		if cfg.Arrivals == load.PoissonPinned {
			for i, s := range cfg.Steps {
				end := s.EndRate
				if end == 0 {
					end = s.Rate
				}
				want := (s.Rate + end) / 2 * s.Duration.Seconds()
				if math.Abs(float64(counts[i])-want) > 1 { // rounded in two parts
					t.Fatalf("step %d has %d arrivals, want %.1f", i, counts[i], want)
				}
			}
		}
		cfg.Journeys[0].Weight = 9
		for i, a := range schedule(t, cfg) {
			if a.At != arrivals[i].At || a.User != arrivals[i].User {
				t.Fatal("another mix gave other times")
			}
		}
	})
}

func gaps(t *testing.T, arrivals []load.Arrival) []float64 {
	t.Helper()
	out := make([]float64, 0, len(arrivals))
	last := time.Duration(0)
	for _, a := range arrivals {
		out = append(out, (a.At - last).Seconds())
		last = a.At
	}
	return out
}

// Mean, variance and distribution of the gaps are those of the exponential one.
func TestPoissonGaps(t *testing.T) {
	t.Parallel()
	for name, kind := range map[string]load.Arrivals{"poisson": load.Poisson, "pinned": load.PoissonPinned} {
		for seed := range uint64(5) {
			const rate = 200.0
			x := gaps(t, schedule(t, load.Config{
				Steps: []load.Step{{Rate: rate, Duration: 50 * time.Second}}, Seed: seed, Arrivals: kind,
				Journeys: []load.Weighted{{Run: nothing}},
			}))
			n := float64(len(x))
			mean, variance := 0.0, 0.0
			for _, g := range x {
				mean += g / n
			}
			for _, g := range x {
				variance += (g - mean) * (g - mean) / n
			}
			// Four standard errors: of the mean 1/√n, of the variance √8/√n.
			if d := mean*rate - 1; math.Abs(d) > 4/math.Sqrt(n) {
				t.Errorf("%s, seed %d: the mean gap is off by %.2f %%", name, seed, 100*d)
			}
			if d := variance*rate*rate - 1; math.Abs(d) > 4*math.Sqrt(8/n) {
				t.Errorf("%s, seed %d: the gaps' variance is off by %.2f %%", name, seed, 100*d)
			}
			slices.Sort(x)
			worst := 0.0
			for i, g := range x {
				f := 1 - math.Exp(-g*rate)
				worst = max(worst, math.Abs(f-float64(i)/n), math.Abs(f-float64(i+1)/n))
			}
			if limit := 1.63 / math.Sqrt(n); worst > limit { // Kolmogorov-Smirnov, 1 %
				t.Errorf("%s, seed %d: the gaps' distribution is off by %.4f, more than %.4f", name, seed, worst, limit)
			}
		}
	}
}

// Independent users: the counts of seconds vary as much as they are large. Pinning
// must not change that within a step.
func TestPoissonCounts(t *testing.T) {
	t.Parallel()
	for _, kind := range []load.Arrivals{load.Poisson, load.PoissonPinned} {
		const rate, seconds = 50, 1000
		counts := make([]float64, seconds)
		for _, a := range schedule(t, load.Config{
			Steps: []load.Step{{Rate: rate, Duration: seconds * time.Second}}, Seed: 7, Arrivals: kind,
			Journeys: []load.Weighted{{Run: nothing}},
		}) {
			counts[int(a.At/time.Second)]++
		}
		variance := 0.0
		for _, n := range counts {
			variance += (n - rate) * (n - rate) / seconds
		}
		if ratio := variance / rate; ratio < 0.8 || ratio > 1.2 { // 4.5 standard errors of √(2/1000)
			t.Errorf("%v: variance is %.2f of the mean", kind, ratio)
		}
	}
}

func TestRampFollowsItsRate(t *testing.T) {
	t.Parallel()
	for _, step := range []load.Step{
		{Rate: 0, EndRate: 1000, Duration: 20 * time.Second},
		{Rate: 1000, EndRate: 1, Duration: 20 * time.Second},
	} {
		half := 0
		arrivals := schedule(t, load.Config{Steps: []load.Step{step}, Journeys: []load.Weighted{{Run: nothing}}})
		for _, a := range arrivals {
			if a.At < step.Duration/2 {
				half++
			}
		}
		want := 0.25
		if step.Rate > step.EndRate {
			want = 0.75
		}
		if got := float64(half) / float64(len(arrivals)); math.Abs(got-want) > 0.02 || len(arrivals) < 9600 || len(arrivals) > 10400 {
			t.Errorf("%+v: %d arrivals, %.3f of them in the first half, want %.2f", step, len(arrivals), got, want)
		}
	}
}

func TestMixFollowsWeights(t *testing.T) {
	t.Parallel()
	n := [3]float64{}
	for _, a := range schedule(t, load.Config{
		Steps:    []load.Step{{Rate: 1000, Duration: 20 * time.Second}},
		Journeys: []load.Weighted{{Run: nothing, Weight: 0.82}, {Run: nothing, Weight: 0.1}, {Run: nothing, Weight: 0.08}},
	}) {
		n[a.Journey] += 1.0 / 20000
	}
	for i, want := range []float64{0.82, 0.1, 0.08} {
		if math.Abs(n[i]-want) > 0.02 {
			t.Errorf("journey %d has a share of %.3f, want %.2f", i, n[i], want)
		}
	}
}
