// Package ratio compares two variants of one thing on a machine that is shared and
// noisy, where neither absolute figures nor a single comparison mean much.
//
// The variants run in turn, in pairs, so that what slows the machine down meets
// both; of the pairs' quotients the median is given, with the interval that holds
// the true median with 95 % confidence, whatever the distribution. It does not
// remove a bias that one variant has over the other by going first: the order
// alternates for that.
package ratio

import (
	"fmt"
	"slices"
	"time"
)

// MinPairs is the fewest pairs whose interval is narrower than all of them.
const MinPairs = 20

// Result is how much longer the variant takes than the baseline.
type Result struct {
	Median    float64
	Low, High float64 // the 95 % interval of the median
	Pairs     int
}

// String is for people: "1.04 (95 %: 1.02 to 1.07, 30 pairs)".
func (r Result) String() string {
	return fmt.Sprintf("%.2f (95 %%: %.2f to %.2f, %d pairs)", r.Median, r.Low, r.High, r.Pairs)
}

// Measure runs both functions in turn, at least [MinPairs] times and once before
// that to warm up. Each returns how long it took, so that it can leave out its
// preparations. An error ends the measurement.
func Measure(pairs int, baseline, variant func() (time.Duration, error)) (Result, error) {
	pairs = max(pairs, MinPairs)
	quotients := make([]float64, 0, pairs)
	for i := range pairs + 1 {
		first, second := baseline, variant
		if i%2 == 1 {
			first, second = variant, baseline
		}
		a, err := first()
		if err != nil {
			return Result{}, err
		}
		b, err := second()
		if err != nil {
			return Result{}, err
		}
		if i%2 == 1 {
			a, b = b, a
		}
		if i > 0 {
			quotients = append(quotients, float64(b)/float64(a))
		}
	}
	return summarize(quotients), nil
}

// summarize takes the interval from the sign test: the median lies below the k-th
// smallest of n values with the probability that fewer than k of n coins show
// heads (Conover, Practical Nonparametric Statistics, 3rd edition, section 3.2).
func summarize(values []float64) Result {
	slices.Sort(values)
	n := len(values)
	median := (values[(n-1)/2] + values[n/2]) / 2
	k, below, term := 0, 0.0, 1.0
	for range n {
		term /= 2 // of one value: C(n, 0) / 2^n
	}
	for below+term <= 0.025 {
		below += term
		term *= float64(n-k) / float64(k+1)
		k++
	}
	k = max(k, 1)
	return Result{Median: median, Low: values[k-1], High: values[n-k], Pairs: n}
}
