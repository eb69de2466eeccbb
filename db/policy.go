package db

import "time"

// Option changes how one read, or the reads of one handle, are routed.
type Option func(*readOptions)

type readOptions struct {
	policy   policy
	maxStale time.Duration
	wait     time.Duration // 0: the router's
}

type policy uint8

const (
	session policy = iota
	strong
	bounded
	anyNode
)

// Strong reads the primary: what is committed anywhere is seen.
func Strong() Option { return func(o *readOptions) { o.policy = strong } }

// MaxStaleness reads a replica that shows all that was committed longer ago than d,
// whatever the session has seen. A bound below the poll interval mostly reads the
// primary.
func MaxStaleness(d time.Duration) Option {
	return func(o *readOptions) { o.policy, o.maxStale = bounded, d }
}

// Any reads any replica that keeps the lag limit.
func Any() Option { return func(o *readOptions) { o.policy = anyNode } }

// Wait replaces [Config.Wait]; negative does not wait.
func Wait(d time.Duration) Option { return func(o *readOptions) { o.wait = d } }
