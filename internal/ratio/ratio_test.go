package ratio

import (
	"errors"
	"math/rand/v2"
	"testing"
	"time"
)

// The ranks are those of published tables of the sign test's interval.
func TestIntervalRanks(t *testing.T) {
	t.Parallel()
	for n, rank := range map[int]int{20: 6, 25: 8, 30: 10, 50: 18, 100: 40} {
		values := make([]float64, n)
		for i := range values {
			values[i] = float64(i + 1)
		}
		got := summarize(values)
		if got.Low != float64(rank) || got.High != float64(n+1-rank) || got.Median != float64(n+1)/2 {
			t.Errorf("of 1 to %d got %+v, want ranks %d and %d", n, got, rank, n+1-rank)
		}
	}
}

// In 95 of 100 measurements the interval holds the true ratio, however skewed the
// noise is, if it is the same for both.
func TestCoverage(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	noisy := func(base float64) func() (time.Duration, error) {
		return func() (time.Duration, error) {
			return time.Duration(base * 1e6 * (1 + random.ExpFloat64())), nil
		}
	}
	const runs = 400
	held := 0
	for range runs {
		r, err := Measure(30, noisy(10), noisy(15))
		if err != nil {
			t.Fatal(err)
		}
		if r.Low <= 1.5 && 1.5 <= r.High {
			held++
		}
	}
	if held < runs*93/100 {
		t.Errorf("the interval held the true ratio %d times of %d", held, runs)
	}
}

func TestOrderAlternates(t *testing.T) {
	t.Parallel()
	var order string
	side := func(name string) func() (time.Duration, error) {
		return func() (time.Duration, error) {
			order += name
			return time.Second, nil
		}
	}
	r, err := Measure(0, side("a"), side("b"))
	if err != nil || r.Pairs != MinPairs || r.Median != 1 {
		t.Errorf("got %+v, %v", r, err)
	}
	if order[:8] != "abbaabba" {
		t.Errorf("the order is %s", order[:8])
	}
}

func TestErrorEndsMeasurement(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	fine := func() (time.Duration, error) { return time.Second, nil }
	if _, err := Measure(20, fine, func() (time.Duration, error) { return 0, broken }); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
}
