package live

import (
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"go.opentelemetry.io/otel/sdk/metric"

	exporter "go.opentelemetry.io/otel/exporters/prometheus"
	otelmetric "go.opentelemetry.io/otel/metric"
)

// measured is a histogram as an instance serves it.
type measured struct {
	t        *testing.T
	record   otelmetric.Float64Histogram
	registry *prometheus.Registry
}

func newMeasured(t *testing.T, a metric.Aggregation) *measured {
	t.Helper()
	registry := prometheus.NewRegistry()
	reader, err := exporter.New(exporter.WithRegisterer(registry))
	if err != nil {
		t.Fatal(err)
	}
	provider := metric.NewMeterProvider(metric.WithReader(reader), metric.WithView(metric.NewView(metric.Instrument{Name: "*"}, metric.Stream{Aggregation: a})))
	t.Cleanup(func() { _ = provider.Shutdown(t.Context()) })
	h, err := provider.Meter("test").Float64Histogram("took", otelmetric.WithUnit("s"))
	if err != nil {
		t.Fatal(err)
	}
	return &measured{t, h, registry}
}

func (m *measured) now() *histogram {
	m.t.Helper()
	families, err := m.registry.Gather()
	if err != nil {
		m.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "took_seconds" {
			return histogramOf(f.GetMetric()[0].GetHistogram())
		}
	}
	return nil
}

var exponential = metric.AggregationBase2ExponentialHistogram{MaxSize: 160, MaxScale: 20}

// Two instances together say what all requests say, whatever each has seen, and what was before a window does not count.
func TestMergedQuantiles(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 1))
	one, two := newMeasured(t, exponential), newMeasured(t, exponential)
	ctx := t.Context()
	for range 5000 { // before: an hour of hanging
		one.record.Record(ctx, 60+random.Float64())
	}
	two.record.Record(ctx, 0.000_001) // and scales that are not alike
	before1, before2 := one.now(), two.now()
	var all []float64
	for range 9000 {
		v := 0.020 * math.Exp(random.NormFloat64()/2)
		all = append(all, v)
		one.record.Record(ctx, v)
	}
	for range 1000 {
		v := 0.700 * math.Exp(random.NormFloat64()/4)
		all = append(all, v)
		two.record.Record(ctx, v)
	}
	now1, now2 := one.now(), two.now()
	if now1.schema == now2.schema {
		t.Logf("both have schema %d", now1.schema)
	}
	merged := now1.since(before1).plus(now2.since(before2), 1)
	slices.Sort(all)
	for _, q := range []float64{0.5, 0.8, 0.95, 0.99} {
		want, have := all[int(q*float64(len(all)))], merged.quantile(q)
		width := math.Exp2(math.Exp2(-float64(merged.schema))) // of a bucket, as a factor
		if have < want/width/1.01 || have > want*width*1.01 {
			t.Errorf("seed %d: p%g is %.4f, and %.4f by schema %d", seed, 100*q, want, have, merged.schema)
		}
	}
	if merged.count != 10_000 {
		t.Errorf("it counts %v", merged.count)
	}
	averaged := (now1.since(before1).quantile(0.95) + now2.since(before2).quantile(0.95)) / 2
	if p95 := merged.quantile(0.95); math.Abs(averaged-p95) < p95/10 {
		t.Errorf("p95 %v is the mean of both, %v: this test cannot tell", p95, averaged)
	}
	if restarted := before2.since(now2); restarted.count != 1 {
		t.Errorf("after a new start it counts %v", restarted.count)
	}
}

// A coarser histogram is that which would have counted the same values.
func TestCoarser(t *testing.T) {
	t.Parallel()
	counted := func(schema int32, values []float64) *histogram {
		h := &histogram{count: float64(len(values)), schema: schema, native: make(map[int32]float64)}
		for _, v := range values {
			h.native[int32(math.Ceil(math.Log2(v)*math.Exp2(float64(schema))))]++
		}
		return h
	}
	var values []float64
	for range 1000 {
		values = append(values, math.Exp2(20*rand.Float64()-15)) // below one second, and above
	}
	fine := counted(maxSchema, values)
	for schema := int32(maxSchema); schema >= minSchema; schema-- {
		if got, want := fine.coarser(schema), counted(schema, values); got.schema != schema || !maps.Equal(got.native, want.native) {
			t.Errorf("schema %d: %v, want %v", schema, got.native, want.native)
		}
	}
}

func TestClassicQuantiles(t *testing.T) {
	t.Parallel()
	one, two := newMeasured(t, metric.AggregationExplicitBucketHistogram{Boundaries: []float64{0.1, 0.2, 0.4}}), newMeasured(t, metric.AggregationExplicitBucketHistogram{Boundaries: []float64{0.1, 0.2, 0.4}})
	for range 50 {
		one.record.Record(t.Context(), 0.05)
		two.record.Record(t.Context(), 0.3)
	}
	merged := one.now().plus(two.now(), 1)
	for q, want := range map[float64]float64{0.25: 0.05, 0.5: 0.1, 0.75: 0.3, 1: 0.4} {
		if have := merged.quantile(q); math.Abs(have-want) > 1e-9 {
			t.Errorf("quantile %v is %v, want %v", q, have, want)
		}
	}
	one.record.Record(t.Context(), 9)
	if have := one.now().since(one.now()); have.count != 0 || have.quantile(0.5) != 0 {
		t.Errorf("nothing has been counted, and it says %+v", have)
	}
	if have := one.now().quantile(1); have != 0.4 {
		t.Errorf("above all edges it is %v", have)
	}
	other := newMeasured(t, metric.AggregationExplicitBucketHistogram{Boundaries: []float64{1}})
	other.record.Record(t.Context(), 0.5)
	if have := merged.plus(other.now(), 1); have.count != 100 {
		t.Errorf("one of other edges was added: %v", have.count)
	}
}

// A neighbour's answer is not trusted to be whole.
func TestBrokenHistogram(t *testing.T) {
	t.Parallel()
	offset, length, schema := int32(0), uint32(1<<30), int32(3)
	h := histogramOf(&dto.Histogram{Schema: &schema, PositiveSpan: []*dto.BucketSpan{{Offset: &offset, Length: &length}}, PositiveDelta: []int64{1}})
	if len(h.native) != 1 {
		t.Errorf("%+v", h)
	}
	schema, length = 2_000_000_000, 1
	h = histogramOf(&dto.Histogram{Schema: &schema, PositiveSpan: []*dto.BucketSpan{{Offset: &offset, Length: &length}}, PositiveDelta: []int64{1}})
	if h.native != nil || h.quantile(0.5) != 0 {
		t.Errorf("%+v", h)
	}
	schema, offset, length = 0, 1<<30, 1
	h = histogramOf(&dto.Histogram{Schema: &schema, PositiveSpan: []*dto.BucketSpan{{Offset: &offset, Length: &length}}, PositiveDelta: []int64{1}})
	if q := h.quantile(0.5); math.IsInf(q, 0) || math.IsNaN(q) {
		t.Errorf("%v of %+v", q, h)
	}
}
