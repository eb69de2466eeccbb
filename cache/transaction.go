package cache

import (
	"context"
	"errors"
	"runtime/debug"
	"sync"

	"github.com/loadlinehq/loadline/causal"
)

// inTransaction is a read in a transaction: what its load sees may never be committed, or be of a snapshot that is older
// than an invalidation, so nothing of it is kept; and what is cached may be older than what the transaction has written.
// It runs here, for a transaction's connection is one goroutine's, and takes no place, for it has a connection.
func (c *Cache[K, V]) inTransaction(ctx context.Context, load func(context.Context) (V, error)) (V, error) {
	c.metrics.read(inside)
	value, err := direct(ctx, load)
	if errors.Is(err, ErrNotFound) {
		err = ErrNotFound
	}
	return value, err
}

func (c *Cache[K, V]) manyInTransaction(ctx context.Context, keys []K, load loadMany[K, V]) (map[K]V, error) {
	c.metrics.reads(inside, len(keys))
	values, err := direct(ctx, func(ctx context.Context) (map[K]V, error) { return load(ctx, unique(keys)) })
	if errors.Is(err, ErrNotFound) {
		err = nil
	}
	return values, err
}

func direct[V any](ctx context.Context, load func(context.Context) (V, error)) (value V, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &PanicError{v, debug.Stack()}
		}
	}()
	return load(withoutPlace(ctx)) // whose tags are not those of a load around it
}

// pending is what a transaction will have invalidated.
type pending struct {
	s           *Store
	transaction *causal.Transaction

	mu      sync.Mutex
	parts   int // writes that were spoken for
	targets []Target
	told    int  // calls that named all that a write has changed
	partly  bool // there was one that did not
}

// pending returns what waits for the commit of the context's transaction, or nil if there is none.
func (s *Store) pending(ctx context.Context) *pending {
	_, transaction := causal.Carried(ctx)
	if transaction == nil {
		return nil
	}
	p, _ := transaction.After(s, func() causal.AfterCommit { return &pending{s: s, transaction: transaction} }).(*pending)
	return p
}

func (p *pending) add(of []Target, all bool) (err error) {
	for _, t := range of {
		err = errors.Join(err, t.err)
	}
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.targets = append(p.targets, of...)
	parts := p.transaction.Parts()
	// Each call is for the write before it. The statements of the transaction's own function are one, without a part.
	if !all || parts != p.parts+1 && (parts > 0 || p.told > 0) {
		p.partly = true
	}
	p.parts, p.told = parts, p.told+1
	return nil
}

// Committed implements causal.AfterCommit. A write that nobody has spoken for is not taken for known: its session reads the
// database until the relay has invalidated it.
func (p *pending) Committed(ctx context.Context, parts int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	mark, err := p.s.invalidate(ctx, p.targets)
	if err != nil {
		p.s.log.WarnContext(ctx, "cache: what a transaction has changed was not invalidated; the relay's invalidation is awaited", "error", err)
		return
	}
	if session := causal.FromContext(ctx); session != nil && mark.Number != 0 && parts >= 0 && !p.partly && p.told == max(1, parts) {
		session.Acknowledge(mark)
	}
}
