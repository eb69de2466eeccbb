package load_test

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/loadlinehq/loadline/internal/load"
)

// What several processes have measured is, merged, what one would have.
func TestMergeEqualsAll(t *testing.T) {
	t.Parallel()
	for seed := range uint64(10) {
		random := rand.New(rand.NewPCG(seed, 1))
		var all, merged load.Histogram
		for range 1 + random.IntN(4) {
			var part load.Histogram
			for range random.IntN(500) {
				d := time.Duration(math.Exp(random.Float64()*19)) * time.Microsecond // to 178 s
				all.Record(d)
				part.Record(d)
			}
			merged.Merge(part)
		}
		same(t, merged, all)
	}
}

func same(t interface{ Errorf(string, ...any) }, got, want load.Histogram) {
	if got.Count() != want.Count() || got.Mean() != want.Mean() || got.Max() != want.Max() {
		t.Errorf("got %d values with mean %v and max %v, want %d, %v and %v",
			got.Count(), got.Mean(), got.Max(), want.Count(), want.Mean(), want.Max())
	}
	for _, q := range []float64{0, 0.3, 0.5, 0.9, 0.99} {
		if got.Quantile(q) != want.Quantile(q) {
			t.Errorf("quantile %.2f is %v, want %v", q, got.Quantile(q), want.Quantile(q))
		}
	}
}

// Between processes histograms travel as JSON, with all they hold.
func TestHistogramThroughJSON(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 1, 5000} {
		var want, got load.Histogram
		for i := range n {
			want.Record(time.Duration(i*i) * time.Microsecond)
		}
		encoded, err := json.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(encoded, &got); err != nil {
			t.Fatal(err)
		}
		same(t, got, want)
		got.Record(time.Second)
		if got.Count() != int64(n)+1 {
			t.Error("a decoded histogram does not go on")
		}
	}
}

func TestHistogramScale(t *testing.T) {
	t.Parallel()
	var h load.Histogram
	if h.Quantile(0.99) != 0 || h.Max() != 0 || h.Count() != 0 || h.Above(0) != 0 {
		t.Error("an empty histogram has values")
	}
	for i := range 1000 {
		h.Record(time.Duration(i+1) * time.Millisecond)
	}
	h.Record(time.Hour)
	h.Record(-time.Second)
	for q, want := range map[float64]time.Duration{0.5: 500 * time.Millisecond, 0.9: 901 * time.Millisecond, 0.99: 991 * time.Millisecond} {
		if got := h.Quantile(q); got < want*998/1000 || got > want*1002/1000 {
			t.Errorf("quantile %v is %v, want %v", q, got, want)
		}
	}
	if got := h.Max(); got < 120*time.Second || got > 121*time.Second {
		t.Errorf("max is %v, want the end of the scale", got)
	}
	if got := h.Above(900 * time.Millisecond); got < 100 || got > 102 {
		t.Errorf("%d values above 900 ms, want 101", got)
	}
}

func TestHistogramRefusesOthers(t *testing.T) {
	t.Parallel()
	for _, text := range []string{`{"hdr":"?"}`, `{"hdr":"AAAA"}`, `[]`} {
		var h load.Histogram
		if err := json.Unmarshal([]byte(text), &h); err == nil {
			t.Errorf("%s was accepted", text)
		}
	}
}
