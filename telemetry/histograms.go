package telemetry

import (
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/metric"
)

// edges are of seconds: close where services promise something, so that 112 ms and 120 ms are told apart.
var edges = []float64{
	.0005, .001, .0025, .005, .0075, .01, .015, .02, .025, .03, .04, .05, .055, .06, .067, .075, .082, .09, .1, .11, .12, .135, .15, .165, .18, .2, .225, .25, .275, .3, .335,
	.37, .41, .45, .5, .55, .6, .67, .75, .82, .9, 1, 1.25, 1.5, 2, 2.5, 5, 10, 30, 60, 300,
}

// ofRequests are the attributes of requests that have few values. The server's address is not one: it is what a client says.
var ofRequests = attribute.NewAllowKeysFilter("http.request.method", "http.route", "http.response.status_code", "url.scheme", "network.protocol.version", "error.type")

// view has all histograms be of one kind, but that classic ones of what is not in seconds keep their own edges; and what is measured of requests by
// few attributes, whoever measures it. What otelhttp measures of sizes is left out.
func view(h Histograms) metric.View {
	return func(i metric.Instrument) (metric.Stream, bool) {
		s := metric.Stream{Name: i.Name, Description: i.Description, Unit: i.Unit}
		if i.Kind == metric.InstrumentKindHistogram {
			switch {
			case i.Name == "http.server.request.body.size" || i.Name == "http.server.response.body.size":
				// Who wants to know how much is sent looks at the network's counters: each costs as much as the duration does.
				s.Aggregation = metric.AggregationDrop{}
			case h == Exponential:
				s.Aggregation = metric.AggregationBase2ExponentialHistogram{MaxSize: 160, MaxScale: 20}
			case i.Unit == "s":
				s.Aggregation = metric.AggregationExplicitBucketHistogram{Boundaries: edges}
			}
		}
		requests := strings.HasPrefix(i.Name, "http.server.") && i.Scope.Name != scope // which has no others, and need not pay for looking
		if requests {
			s.AttributeFilter = ofRequests
		}
		return s, s.Aggregation != nil || requests
	}
}
