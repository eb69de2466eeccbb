package load

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Histogram holds durations up to 120 s in microseconds, each exact to 0.1 %, and
// merges with others without loss: percentiles of several processes or steps are
// percentiles of all their requests, and not means of percentiles. The zero value is
// empty and takes its memory, 150 kB, with the first value. It is not safe for
// concurrent use.
type Histogram struct {
	hdr *hdrhistogram.Histogram
}

const significantDigits = 3

// Record adds a duration. What lies beyond the scale counts as its end.
func (h *Histogram) Record(d time.Duration) {
	if h.hdr == nil {
		h.hdr = hdrhistogram.New(1, maxLatency.Microseconds(), significantDigits)
	}
	// Cannot fail: the value is within the scale.
	_ = h.hdr.RecordValue(min(max(d, 0), maxLatency).Microseconds())
}

// Merge adds the values of another one.
func (h *Histogram) Merge(from Histogram) {
	if from.hdr == nil {
		return
	}
	if h.hdr == nil {
		h.hdr = from.hdr.Clone()
		return
	}
	h.hdr.Merge(from.hdr)
}

// Count is the number of values.
func (h Histogram) Count() int64 {
	if h.hdr == nil {
		return 0
	}
	return h.hdr.TotalCount()
}

// Quantile is the value that a share q of all values does not exceed; 0 without any.
func (h Histogram) Quantile(q float64) time.Duration {
	if h.hdr == nil {
		return 0
	}
	return time.Duration(h.hdr.ValueAtQuantile(q*100)) * time.Microsecond
}

// Max is the largest value.
func (h Histogram) Max() time.Duration {
	if h.hdr == nil {
		return 0
	}
	return time.Duration(h.hdr.Max()) * time.Microsecond
}

// Mean is the mean.
func (h Histogram) Mean() time.Duration {
	if h.hdr == nil {
		return 0
	}
	return time.Duration(h.hdr.Mean() * float64(time.Microsecond))
}

// Above is how many values exceed d.
func (h Histogram) Above(d time.Duration) int64 {
	if h.hdr == nil {
		return 0
	}
	var n int64
	for _, bar := range h.hdr.Distribution() {
		if bar.From > d.Microseconds() {
			n += bar.Count
		}
	}
	return n
}

// summary is the JSON form: figures for people and other programs, and the histogram
// itself, in HdrHistogram's compressed form, to merge.
type summary struct {
	Count int64  `json:"count"`
	Mean  int64  `json:"mean_us"`
	P50   int64  `json:"p50_us"`
	P90   int64  `json:"p90_us"`
	P95   int64  `json:"p95_us"`
	P99   int64  `json:"p99_us"`
	P999  int64  `json:"p999_us"`
	Max   int64  `json:"max_us"`
	HDR   string `json:"hdr,omitempty"`
}

// MarshalJSON writes the usual percentiles in microseconds, and all counts.
func (h Histogram) MarshalJSON() ([]byte, error) {
	s := summary{
		Count: h.Count(), Mean: h.Mean().Microseconds(), P50: h.Quantile(0.5).Microseconds(),
		P90: h.Quantile(0.9).Microseconds(), P95: h.Quantile(0.95).Microseconds(),
		P99: h.Quantile(0.99).Microseconds(), P999: h.Quantile(0.999).Microseconds(), Max: h.Max().Microseconds(),
	}
	if h.hdr != nil {
		encoded, err := h.hdr.Encode(hdrhistogram.V2CompressedEncodingCookieBase)
		if err != nil {
			return nil, fmt.Errorf("load: encode histogram: %w", err)
		}
		s.HDR = string(encoded)
	}
	return json.Marshal(s)
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (h *Histogram) UnmarshalJSON(data []byte) error {
	var s summary
	if err := json.Unmarshal(data, &s); err != nil {
		return err
	}
	h.hdr = nil
	if s.HDR == "" {
		return nil
	}
	decoded, err := hdrhistogram.Decode([]byte(s.HDR))
	if err != nil {
		return fmt.Errorf("load: decode histogram: %w", err)
	}
	if decoded.HighestTrackableValue() > maxLatency.Microseconds() || decoded.SignificantFigures() != significantDigits {
		return fmt.Errorf("load: a histogram of another scale (to %d µs, %d digits)",
			decoded.HighestTrackableValue(), decoded.SignificantFigures())
	}
	h.hdr = decoded
	return nil
}
