package db

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Ping asks all servers how they are and returns nil when the first has answered: then
// there is something to read, even if writes wait for a failover. It uses the
// connections that watch the servers, so that it says nothing of the pools: an overload is
// no dead server, and an instance that leaves its load balancer for it only moves its
// share to the others. Before [Router.Run] is called it asks the primary, as a read does.
//
// It returns [ErrNoEligibleNode] when none answers.
func (r *Router) Ping(ctx context.Context) error {
	start := time.Now()
	for {
		if r.closed.Load() {
			return ErrClosed
		}
		if !r.running.Load() {
			_, err := r.Read(ctx, Strong()).Exec(ctx, "SELECT")
			return err
		}
		news := *r.news.Load()
		asked := 0
		var errs []error
		for _, n := range r.nodes {
			s := n.state.Load()
			if s.at.Before(start) {
				continue
			}
			if s.err == nil {
				return nil
			}
			asked++
			errs = append(errs, fmt.Errorf("%s: %w", n.name, s.err))
		}
		if asked == len(r.nodes) {
			return because(ErrNoEligibleNode, errors.Join(errs...), "none of %d servers answers", asked)
		}
		r.askAll()
		select {
		case <-news:
		case <-r.closing:
		case <-ctx.Done():
			return because(ErrNoEligibleNode, errors.Join(append(errs, context.Cause(ctx))...), "no server has answered in time")
		}
	}
}
