package causal

import (
	"context"
	"sync/atomic"
)

// Session collects what a client has seen during one request, or a program during
// one piece of work. Its methods may be called by several goroutines.
type Session struct {
	token     atomic.Pointer[Token]
	changed   atomic.Bool
	doubt     atomic.Bool
	principal atomic.Pointer[string]
}

// NewSession returns a session that has seen what the token says.
func NewSession(t Token) *Session {
	s := new(Session)
	s.token.Store(&t)
	return s
}

// Token returns what has been seen.
func (s *Session) Token() Token { return *s.token.Load() }

// Doubt says that the client may have seen more than the session knows, for now: it
// reads primaries, and no cache. Other than [Unknown], it is not told to the client, and
// ends with the session.
func (s *Session) Doubt() { s.doubt.Store(true) }

// Mark is [Token.Mark] of the session's token, and whether there may be more.
func (s *Session) Mark(system uint64) (m Mark, ok, incomplete bool) {
	t := s.token.Load()
	m, ok = t.Mark(system)
	return m, ok, t.incomplete || s.doubt.Load()
}

// Add notes that m has been seen.
func (s *Session) Add(m Mark) { s.update(func(t Token) Token { return t.Add(m) }) }

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
	for {
		old := s.token.Load()
		next := change(*old)
		if next.Equal(*old) {
			return
		}
		// First, so that who sees the token sees that it has changed.
		s.changed.Store(true)
		if s.token.CompareAndSwap(old, &next) {
			return
		}
	}
}

type sessionKey struct{}

// WithSession returns a context that carries the session.
func WithSession(ctx context.Context, s *Session) context.Context {
	return context.WithValue(ctx, sessionKey{}, s)
}

// FromContext returns the context's session, or nil.
func FromContext(ctx context.Context) *Session {
	s, _ := ctx.Value(sessionKey{}).(*Session)
	return s
}
