package causal

import (
	"context"
	"sync/atomic"
)

// Session collects what a client has seen during one request, or a program during
// one piece of work. Its methods may be called by several goroutines.
type Session struct {
	seen      atomic.Pointer[seen]
	changed   atomic.Bool
	doubt     atomic.Bool
	principal atomic.Pointer[string]
}

// NewSession returns a session that has seen what the token says.
func NewSession(t Token) *Session {
	s := new(Session)
	s.seen.Store(&seen{token: t, settled: t})
	return s
}

// seen is what a session has seen. Writes of its own that no cache has acknowledged are in the
// token alone.
type seen struct {
	token, settled Token
	own            int  // such writes
	last           Mark // of the last of them
}

// Token returns what has been seen.
func (s *Session) Token() Token { return s.seen.Load().token }

// Doubt says that the client may have seen more than the session knows, for now: it
// reads primaries, and no cache. Other than [Unknown], it is not told to the client, and
// ends with the session.
func (s *Session) Doubt() { s.doubt.Store(true) }

// Mark is [Token.Mark] of the session's token, and whether there may be more.
func (s *Session) Mark(system uint64) (m Mark, ok, incomplete bool) {
	now := s.seen.Load()
	m, ok = now.token.Mark(system)
	return m, ok, now.token.incomplete || s.doubt.Load()
}

// Add notes that m has been seen.
func (s *Session) Add(m Mark) {
	s.change(func(now seen) seen {
		now.token = now.token.Add(m)
		switch {
		case m.LSN == 0:
		case m.Number > 0:
			now.settled = now.settled.Add(m)
		default:
			now.own, now.last = now.own+1, m
		}
		return now
	})
}

// Acknowledge notes that caches have been told of the session's last write, at m's position, with
// m's number. It does nothing where the session has made other writes that they were not told of: the number
// would speak for those, too.
func (s *Session) Acknowledge(m Mark) {
	s.change(func(now seen) seen {
		last := now.last
		if last.Epoch, last.Number = m.Epoch, m.Number; now.own != 1 || m.Number == 0 || last != m {
			return now
		}
		now.settled = now.settled.Add(m)
		return seen{token: now.settled, settled: now.settled}
	})
}

// Merge notes that all that the token says has been seen.
func (s *Session) Merge(u Token) { s.update(func(t Token) Token { return t.Merge(u) }) }

// Forget drops the mark of m's log if it has stayed as it was; see [Token.Without].
func (s *Session) Forget(m Mark) {
	s.update(func(t Token) Token {
		for have := range t.Marks() {
			if have == m {
				return t.Without(m)
			}
		}
		return t
	})
}

// Changed reports whether the token is another than that which the session began
// with: then the client must be told.
func (s *Session) Changed() bool { return s.changed.Load() }

// Identify says who the client has turned out to be: a registration or a login, whose
// request came from nobody and whose client comes back as somebody. What the session has
// seen is then stored for that principal, too; see [HTTPConfig.Store].
func (s *Session) Identify(principal string) { s.principal.Store(&principal) }

// identified is what Identify was called with, or empty.
func (s *Session) identified() string {
	if p := s.principal.Load(); p != nil {
		return *p
	}
	return ""
}

func (s *Session) update(change func(Token) Token) {
	s.change(func(now seen) seen {
		now.token, now.settled = change(now.token), change(now.settled)
		return now
	})
}

func (s *Session) change(f func(seen) seen) {
	for {
		old := s.seen.Load()
		next := f(*old)
		same := next.token.Equal(old.token)
		if same && next.settled.Equal(old.settled) && next.own == old.own {
			return
		}
		if !same {
			// First, so that who sees the token sees that it has changed.
			s.changed.Store(true)
		}
		if s.seen.CompareAndSwap(old, &next) {
			return
		}
	}
}

type sessionKey struct{}

// WithSession returns a context that carries the session.
func WithSession(ctx context.Context, s *Session) context.Context {
	if _, t := Carried(ctx); t != nil {
		return context.WithValue(ctx, sessionKey{}, &inTransaction{s, t})
	}
	return context.WithValue(ctx, sessionKey{}, s)
}

// FromContext returns the context's session, or nil.
func FromContext(ctx context.Context) *Session {
	s, _ := Carried(ctx)
	return s
}
