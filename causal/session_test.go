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

// A number stands for the last write alone: it is not taken where there were others that no cache was told
// of.
func TestAcknowledge(t *testing.T) {
	t.Parallel()
	mark := func(lsn causal.LSN, number uint64) causal.Mark {
		m := causal.Mark{System: 1, Timeline: 1, LSN: lsn, Number: number}
		if number > 0 {
			m.Epoch = 9
		}
		return m
	}
	for name, c := range map[string]struct {
		has  causal.Token
		does func(s *causal.Session)
		want causal.Mark
	}{
		"one write": {does: func(s *causal.Session) {
			s.Add(mark(5, 0))
			s.Acknowledge(mark(5, 3))
		}, want: mark(5, 3)},
		"after one that was acknowledged in another request": {has: causal.NewToken(mark(4, 2)), does: func(s *causal.Session) {
			s.Add(mark(5, 0))
			s.Acknowledge(mark(5, 3))
		}, want: mark(5, 3)},
		"after one that was not": {has: causal.NewToken(mark(4, 0)), does: func(s *causal.Session) {
			s.Add(mark(5, 0))
			s.Acknowledge(mark(5, 3))
		}, want: mark(5, 0)},
		"two writes, each acknowledged": {does: func(s *causal.Session) {
			s.Add(mark(5, 0))
			s.Acknowledge(mark(5, 3))
			s.Add(mark(6, 0))
			s.Acknowledge(mark(6, 4))
		}, want: mark(6, 4)},
		"two writes, the first of which was not": {does: func(s *causal.Session) {
			s.Add(mark(5, 0))
			s.Add(mark(6, 0))
			s.Acknowledge(mark(6, 4))
		}, want: mark(6, 0)},
		"another write came while the first was told": {does: func(s *causal.Session) {
			s.Add(mark(5, 0))
			s.Add(mark(6, 0))
			s.Acknowledge(mark(5, 3))
		}, want: mark(6, 0)},
		"another position": {does: func(s *causal.Session) {
			s.Add(mark(5, 0))
			s.Acknowledge(mark(4, 3))
		}, want: mark(5, 0)},
		"no number": {does: func(s *causal.Session) {
			s.Add(mark(5, 0))
			s.Acknowledge(mark(5, 0))
		}, want: mark(5, 0)},
		"twice": {does: func(s *causal.Session) {
			s.Add(mark(5, 0))
			s.Acknowledge(mark(5, 3))
			s.Acknowledge(mark(5, 4))
		}, want: mark(5, 3)},
		"what has been merged stays": {does: func(s *causal.Session) {
			s.Add(mark(5, 0))
			s.Merge(causal.NewToken(mark(7, 0)))
			s.Acknowledge(mark(5, 3))
		}, want: mark(7, 0)},
	} {
		t.Run(name, func(t *testing.T) {
			s := causal.NewSession(c.has)
			c.does(s)
			if m, _, _ := s.Mark(1); m != c.want {
				t.Errorf("the mark is %+v, want %+v", m, c.want)
			}
			if !s.Changed() {
				t.Error("the session has not changed")
			}
		})
	}
}
