package causal_test

import (
	"context"
	"slices"
	"testing"

	"github.com/loadlinehq/loadline/causal"
)

type after func(parts int)

func (f after) Committed(_ context.Context, parts int) { f(parts) }

func TestTransaction(t *testing.T) {
	t.Parallel()
	session := causal.NewSession(causal.Token{})
	ctx, transaction := causal.WithTransaction(causal.WithSession(t.Context(), session))
	if s, in := causal.Carried(ctx); s != session || in != transaction || causal.FromContext(ctx) != session {
		t.Error("the context carries another session or transaction")
	}
	other := causal.NewSession(causal.Token{})
	if s, in := causal.Carried(causal.WithSession(ctx, other)); s != other || in != transaction {
		t.Error("with another session it carries another transaction")
	}
	if s, in := causal.Carried(t.Context()); s != nil || in != nil {
		t.Error("an empty context carries something")
	}
	var told []int
	say := func(n int) func() causal.AfterCommit {
		return func() causal.AfterCommit { return after(func(parts int) { told = append(told, n, parts) }) }
	}
	transaction.After("a", say(1))
	transaction.After("b", say(2))
	transaction.After("a", say(3))
	transaction.Part()
	transaction.Committed(ctx)
	transaction.Part()
	transaction.Committed(ctx)
	if !slices.Equal(told, []int{1, 1, 2, 1}) || transaction.After("c", say(4)) != nil {
		t.Errorf("told %v", told)
	}
	for want, end := range map[int]func(*causal.Transaction){
		-1: func(tx *causal.Transaction) { tx.Unknown(ctx) },
		-2: (*causal.Transaction).RolledBack,
	} {
		told = []int{0, -2}
		_, tx := causal.WithTransaction(t.Context())
		tx.Part()
		tx.After("a", say(1))
		end(tx)
		if told[len(told)-1] != want {
			t.Errorf("told %v, and not %d", told, want)
		}
	}
}
