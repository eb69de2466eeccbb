package telemetry

import "go.opentelemetry.io/otel/sdk/metric"

// edges are of seconds: close where services promise something, so that 112 ms and 120 ms are told apart.
var edges = []float64{
	.0005, .001, .0025, .005, .0075, .01, .015, .02, .025, .03, .04, .05, .055, .06, .067, .075, .082, .09, .1, .11, .12, .135, .15, .165, .18, .2, .225, .25, .275, .3, .335,
	.37, .41, .45, .5, .55, .6, .67, .75, .82, .9, 1, 1.25, 1.5, 2, 2.5, 5, 10, 30, 60, 300,
}

// view has all histograms be of one kind; classic ones of what is not in seconds keep their own edges.
func view(h Histograms) metric.View {
	if h == Exponential {
		return metric.NewView(metric.Instrument{Kind: metric.InstrumentKindHistogram}, metric.Stream{
			Aggregation: metric.AggregationBase2ExponentialHistogram{MaxSize: 160, MaxScale: 20},
		})
	}
	return metric.NewView(metric.Instrument{Kind: metric.InstrumentKindHistogram, Unit: "s"}, metric.Stream{
		Aggregation: metric.AggregationExplicitBucketHistogram{Boundaries: edges},
	})
}
