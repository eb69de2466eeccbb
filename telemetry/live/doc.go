// Package live is a page that shows what a service does now, without any other server: where requests go, how full each hop of their way is and which one is the
// tightest, rates, errors and durations by route, replicas, pools, caches, events, and the latest traces that have failed or were slow, with their SQL
// and what was logged in them.
//
// A [Page] looks at instances, one of them or all of a service, once a second while somebody watches. It reads what they serve to Prometheus, so that it shows what
// alerts go by, and merges histograms: a percentile over several instances is that of all requests. An instance keeps its traces in a [Recorder].
//
// It keeps ten minutes, in memory, from when somebody began to watch. For anything before that there are Prometheus and a store for traces.
package live
