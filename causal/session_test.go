package causal_test

import (
	"context"
	"sync"
	"testing"

	"github.com/loadlinehq/loadline/causal"
)

func TestSession(t *testing.T) {
	t.Parallel()
	old := causal.Mark{System: 1, Timeline: 1, LSN: 5}
	s := causal.NewSession(causal.NewToken(old))
	if s.Changed() {
		t.Error("changed from the start")
	}
	s.Add(causal.Mark{System: 1, Timeline: 1, LSN: 4})
	if s.Changed() {
		t.Error("changed by what had been seen")
	}
	newer := causal.Mark{System: 1, Timeline: 2, LSN: 6}
	s.Add(newer)
	if m, ok, incomplete := s.Mark(1); m != newer || !ok || incomplete || !s.Changed() {
		t.Errorf("%v, %t, %t, changed: %t", m, ok, incomplete, s.Changed())
	}
	s.Forget(causal.Mark{System: 1, Timeline: 1, LSN: 3}) // it has grown since
	if s.Token().Equal(causal.NewToken(newer)) {
		t.Error("a mark is forgotten that nobody has looked at")
	}
	s.Forget(old)
	if !s.Token().Equal(causal.NewToken(newer)) {
		t.Errorf("%v", s.Token())
	}
	s.Merge(causal.Unknown())
	if _, _, incomplete := s.Mark(1); !incomplete {
		t.Error("not incomplete")
	}
	if causal.FromContext(context.Background()) != nil {
		t.Error("a session from nowhere")
	}
	if causal.FromContext(causal.WithSession(t.Context(), s)) != s {
		t.Error("another session")
	}
}

// Nothing that is added at the same time is lost.
func TestSessionConcurrently(t *testing.T) {
	t.Parallel()
	s := causal.NewSession(causal.Token{})
	var wait sync.WaitGroup
	for i := range 4 {
		wait.Go(func() {
			for lsn := range causal.LSN(1000) {
				s.Add(causal.Mark{System: uint64(i), Timeline: 1, LSN: lsn + 1})
			}
		})
	}
	wait.Wait()
	for i := range 4 {
		if m, _, _ := s.Mark(uint64(i)); m.LSN != 1000 {
			t.Errorf("cluster %d: %v", i, m)
		}
	}
}

func BenchmarkMark(b *testing.B) {
	ctx := causal.WithSession(b.Context(), causal.NewSession(causal.NewToken(causal.Mark{System: 7, Timeline: 1, LSN: 900})))
	b.ReportAllocs()
	for b.Loop() {
		if _, ok, _ := causal.FromContext(ctx).Mark(7); !ok {
			b.Fatal("no mark")
		}
	}
}
