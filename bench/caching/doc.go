// Package caching measures package cache beside the libraries below it, otter and rueidis, and a peer, sturdyc, in
// one run: go test -bench . ./bench/caching. What the figures say is in docs/cache.md.
package caching
