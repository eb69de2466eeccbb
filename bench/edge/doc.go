// Package edge measures packages edge and edge/ratelimit beside peers, chi with its usual middleware and redis_rate, in
// one run: go test -bench . ./bench/edge. What the figures say is in docs/edge.md.
package edge
