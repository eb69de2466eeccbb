package db

import "time"

// Option changes how one call, or those of one handle, are made.
type Option func(*callOptions)

type callOptions struct {
	policy   policy
	maxStale time.Duration
	wait     time.Duration // 0: the router's
	timeout  time.Duration // 0: the router's
}

func (o *callOptions) waitOr(d time.Duration) time.Duration {
	if o.wait != 0 {
		return o.wait
	}
	return d
}

type policy uint8

const (
	session policy = iota
	strong
	bounded
	anyNode
)

// Strong reads the primary: what is committed anywhere is seen.
func Strong() Option { return func(o *callOptions) { o.policy = strong } }

// MaxStaleness reads a replica that shows all that was committed longer ago than d,
// whatever the session has seen. A bound below the poll interval mostly reads the
// primary.
func MaxStaleness(d time.Duration) Option {
	return func(o *callOptions) { o.policy, o.maxStale = bounded, d }
}

// Any reads any replica that keeps the lag limit.
func Any() Option { return func(o *callOptions) { o.policy = anyNode } }

// Wait replaces [Config.Wait]; negative does not wait.
func Wait(d time.Duration) Option { return func(o *callOptions) { o.wait = d } }

// Timeout has the server end the statement after d, instead of [Pool.QueryTimeout]: the
// connection lives on, which it does not when the context ends the wait for it. It is
// for single statements, and costs another one in the same round trip; a transaction can
// SET LOCAL statement_timeout.
func Timeout(d time.Duration) Option { return func(o *callOptions) { o.timeout = d } }
