package manifests

import (
	"slices"
	"time"
)

// edges are those of telemetry's classic histograms, in seconds. They are not imported:
// that package links an SDK, which is for programs to choose. A test compares them.
var edges = []float64{
	.0005, .001, .0025, .005, .0075, .01, .015, .02, .025, .03, .04, .05, .055, .06, .067, .075, .082, .09, .1, .11, .12, .135, .15, .165, .18, .2, .225, .25, .275, .3, .335,
	.37, .41, .45, .5, .55, .6, .67, .75, .82, .9, 1, 1.25, 1.5, 2, 2.5, 5, 10, 30, 60, 300,
}

func isEdge(d time.Duration) bool { return slices.Contains(edges, d.Seconds()) }

func nearestEdge(d time.Duration) time.Duration {
	nearest := slices.MinFunc(edges, func(a, b float64) int {
		return int(1e9 * (distance(a, d.Seconds()) - distance(b, d.Seconds())))
	})
	return time.Duration(nearest * float64(time.Second)).Round(time.Microsecond)
}

func distance(a, b float64) float64 { return max(a-b, b-a) }
