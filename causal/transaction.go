package causal

import (
	"context"
	"sync"
)

// Transaction is what a transaction that a context carries means to packages that know no database: what is read with
// that context is seen by nobody else yet, or is older than it seems, and what is said of it counts after the commit.
// Package db puts one into the contexts of InTx and ReadTx. Its methods may be called by several goroutines.
type Transaction struct {
	mu    sync.Mutex
	parts int
	after []afterCommit
	ended bool
}

type afterCommit struct {
	key any
	do  AfterCommit
}

// AfterCommit is what waits for a transaction's commit. It gets the context that the transaction was begun with, whose
// session has seen the commit, and how many writes of the transaction are such as would have been
// transactions of their own; -1 where nobody knows whether it has been committed.
type AfterCommit interface {
	Committed(ctx context.Context, parts int)
}

// inTransaction stands under the session's key, so that both are found by one search.
type inTransaction struct {
	session     *Session
	transaction *Transaction
}

// WithTransaction returns a context that carries a transaction, for who begins one.
func WithTransaction(ctx context.Context) (context.Context, *Transaction) {
	t := new(Transaction)
	return context.WithValue(ctx, sessionKey{}, &inTransaction{FromContext(ctx), t}), t
}

// Carried returns the context's session and transaction, each of which may be nil.
func Carried(ctx context.Context) (*Session, *Transaction) {
	switch v := ctx.Value(sessionKey{}).(type) {
	case *Session:
		return v, nil
	case *inTransaction:
		return v.session, v.transaction
	}
	return nil, nil
}

// After returns what waits for the commit under a key, and makes it at the first call. What waits is told in the order
// in which it was made, and forgotten where the transaction is rolled back. It returns nil after the end.
func (t *Transaction) After(key any, makeIt func() AfterCommit) AfterCommit {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ended {
		return nil
	}
	for _, a := range t.after {
		if a.key == key {
			return a.do
		}
	}
	do := makeIt()
	t.after = append(t.after, afterCommit{key, do})
	return do
}

// Part counts a write that would be a transaction of its own, if there was not this one.
func (t *Transaction) Part() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.ended {
		t.parts++
	}
}

// Parts returns how many there are so far; see [Transaction.Part].
func (t *Transaction) Parts() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.parts
}

// Committed tells all that waits, for who has committed.
func (t *Transaction) Committed(ctx context.Context) {
	after := t.end()
	tell(ctx, after, t.parts)
}

// Unknown tells all that waits that the transaction may have been committed.
func (t *Transaction) Unknown(ctx context.Context) { tell(ctx, t.end(), -1) }

// RolledBack forgets what waits. It does nothing after the end.
func (t *Transaction) RolledBack() { t.end() }

func (t *Transaction) end() []afterCommit {
	t.mu.Lock()
	defer t.mu.Unlock()
	after := t.after
	t.after, t.ended = nil, true
	return after
}

func tell(ctx context.Context, after []afterCommit, parts int) {
	for _, a := range after {
		a.do.Committed(ctx, parts)
	}
}
