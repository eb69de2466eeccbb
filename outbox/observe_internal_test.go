package outbox

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
)

// gone is a database that is away, and counts who has asked for it.
type gone struct{ asked int }

func (g *gone) SendBatch(context.Context, *pgx.Batch) pgx.BatchResults {
	g.asked++
	return noResults{}
}

type noResults struct{ pgx.BatchResults }

func (noResults) Close() error { return errors.New("away") }

// Gauges whose database does not answer end; they do not stay as they were. It is not asked
// more often for that.
func TestGaugesStale(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		reader := metric.NewManualReader()
		g := newGauges(time.Millisecond, slog.New(slog.DiscardHandler))
		stop, err := g.register(metric.NewMeterProvider(metric.WithReader(reader)).Meter(scope))
		if err != nil {
			t.Fatal(err)
		}
		defer stop()
		shown := func() bool {
			var all metricdata.ResourceMetrics
			if err := reader.Collect(context.Background(), &all); err != nil {
				t.Fatal(err)
			}
			return len(all.ScopeMetrics) > 0
		}
		if shown() {
			t.Error("there are gauges before the first reading")
		}
		g.last.Store(&reading{Stats{Depth: 1}, time.Now()})
		db := new(gone)
		for range 29_000 {
			time.Sleep(time.Millisecond)
			g.read(context.Background(), db)
		}
		if db.asked != 29 {
			t.Errorf("%d readings in 29 s", db.asked)
		}
		if !shown() {
			t.Error("a reading of 29 s is not shown")
		}
		time.Sleep(2 * time.Second)
		if shown() {
			t.Error("a reading of 31 s is shown")
		}
	})
}
