package live

import (
	"math"
	"slices"

	dto "github.com/prometheus/client_model/go"
)

// histogram is one that Prometheus calls native, whose bucket i ends at 2^(i·2^-schema), or a classic one, by its edges.
// What it counts is what has been counted since, or in a window.
type histogram struct {
	count  float64
	zero   float64
	schema int32
	native map[int32]float64 // nil: a classic one
	edges  []float64         // upper, without the infinite one
	counts []float64         // of each edge, and of what is above
}

// Schemas that Prometheus has, and the largest power of 2 that a bucket ends at.
const (
	minSchema, maxSchema = -4, 8
	maxPower             = 1000
)

func histogramOf(h *dto.Histogram) *histogram {
	if h.Schema == nil || h.GetSchema() < minSchema || h.GetSchema() > maxSchema { // a classic one, or nothing that is understood
		return classicOf(h)
	}
	out := &histogram{count: float64(h.GetSampleCount()), zero: float64(h.GetZeroCount()), schema: h.GetSchema(), native: make(map[int32]float64)}
	at, index, count := 0, int32(0), int64(0)
	for _, span := range h.GetPositiveSpan() {
		index += span.GetOffset()
		for range span.GetLength() {
			if at >= len(h.GetPositiveDelta()) || math.Abs(float64(index)*math.Exp2(-float64(out.schema))) > maxPower {
				return out // of a broken message
			}
			count += h.GetPositiveDelta()[at]
			out.native[index] = float64(count)
			at++
			index++
		}
	}
	return out
}

func classicOf(h *dto.Histogram) *histogram {
	out := &histogram{count: float64(h.GetSampleCount())}
	before := 0.0
	for _, b := range h.GetBucket() {
		if math.IsInf(b.GetUpperBound(), 1) {
			break
		}
		out.edges = append(out.edges, b.GetUpperBound())
		out.counts = append(out.counts, float64(b.GetCumulativeCount())-before)
		before = float64(b.GetCumulativeCount())
	}
	out.counts = append(out.counts, out.count-before)
	return out
}

// coarser merges neighbours until the schema is that.
func (h *histogram) coarser(schema int32) *histogram {
	if h.native == nil || h.schema <= schema {
		return h
	}
	out := *h
	out.schema, out.native = schema, make(map[int32]float64, len(h.native))
	for i, n := range h.native {
		for range h.schema - schema {
			i = (i + 1) >> 1
		}
		out.native[i] += n
	}
	return &out
}

// plus adds sign times another. Classic ones of other edges, of a version that is being replaced, are left out.
func (h *histogram) plus(other *histogram, sign float64) *histogram {
	if h == nil || h.count == 0 && sign > 0 {
		return other
	}
	if other == nil || (h.native == nil) != (other.native == nil) || !slices.Equal(h.edges, other.edges) {
		return h
	}
	schema := min(h.schema, other.schema)
	a, b := h.coarser(schema), other.coarser(schema)
	out := &histogram{count: a.count + sign*b.count, zero: a.zero + sign*b.zero, schema: schema, edges: a.edges}
	if a.native == nil {
		out.counts = slices.Clone(a.counts)
		for i, n := range b.counts {
			out.counts[i] += sign * n
		}
		return out
	}
	out.native = make(map[int32]float64, len(a.native))
	for i, n := range a.native {
		out.native[i] += n
	}
	for i, n := range b.native {
		out.native[i] += sign * n
	}
	return out
}

// since is what has been counted after another, earlier one of the same instance.
func (h *histogram) since(earlier *histogram) *histogram {
	if earlier == nil || h.count < earlier.count { // the process has started again
		return h
	}
	return h.plus(earlier, -1)
}

// quantile is in the unit of the histogram, and 0 of an empty one. Within a bucket it is where Prometheus has it: values are taken to be spread evenly,
// on a logarithmic scale in native ones.
func (h *histogram) quantile(q float64) float64 {
	if h == nil || h.count <= 0 {
		return 0
	}
	rank := q * h.count
	if h.native == nil {
		return h.classicQuantile(rank)
	}
	if rank -= h.zero; rank <= 0 {
		return 0
	}
	indexes := make([]int32, 0, len(h.native))
	for i := range h.native {
		indexes = append(indexes, i)
	}
	slices.Sort(indexes)
	end := 0.0
	for _, i := range indexes {
		n := h.native[i]
		if n <= 0 {
			continue
		}
		width := math.Exp2(-float64(h.schema))
		end = math.Exp2(float64(i) * width)
		if rank <= n {
			return math.Exp2((float64(i-1) + rank/n) * width)
		}
		rank -= n
	}
	return end
}

func (h *histogram) classicQuantile(rank float64) float64 {
	low := 0.0
	for i, edge := range h.edges {
		if n := h.counts[i]; n > 0 && rank <= n {
			return low + (edge-low)*rank/n
		}
		rank -= h.counts[i]
		low = edge
	}
	return low // above all edges
}
