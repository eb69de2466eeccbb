package load_test

import (
	"context"
	"net/http"
	"runtime"
	"testing"
	"time"

	"github.com/loadlinehq/loadline/internal/load"
)

// BenchmarkRun sends to a server in the same process, so that the processor time per
// request is that of both; BenchmarkJourney is the generator alone.
func BenchmarkRun(b *testing.B) {
	target := serve(b, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	benchmark(b, lenient(target, get), 1000)
}

func BenchmarkJourney(b *testing.B) {
	benchmark(b, lenient("", func(ctx context.Context, u *load.User) error {
		return u.Time(ctx, "nothing", func(context.Context) error { return nil })
	}), 1000)
}

func cores() int { return min(runtime.GOMAXPROCS(0), runtime.NumCPU()) }

func benchmark(b *testing.B, cfg load.Config, rate float64) {
	cfg.Steps = []load.Step{{Rate: rate, Duration: 3 * time.Second, Warmup: time.Second}}
	cfg.Journeys = append([]load.Weighted(nil), cfg.Journeys...)
	for b.Loop() {
		report, err := load.Run(b.Context(), cfg)
		if err != nil {
			b.Fatal(err)
		}
		s := report.Steps[0]
		b.ReportMetric(s.CPU*1e6*float64(cores())*s.Measured.Seconds()/float64(s.Sent), "cpu-µs/request")
		b.ReportMetric(float64(s.Lag.Quantile(0.5).Microseconds()), "lag-p50-µs")
		b.ReportMetric(float64(s.Lag.Quantile(0.99).Microseconds()), "lag-p99-µs")
	}
}
