package causal

import (
	"context"
	"errors"
	"sync"
	"time"
)

// Store keeps the last token of each principal, for clients that keep neither cookie
// nor header. Its methods may be called by several goroutines, and return when their
// context is done.
type Store interface {
	// Load returns what the principal has seen: the zero token if that is nothing that
	// replicas could still lack, and [Unknown] if the store cannot tell, because it has
	// lost tokens that somebody may need.
	Load(ctx context.Context, principal string) (Token, error)
	// Save merges t into what is kept.
	Save(ctx context.Context, principal string, t Token) error
}

// Defaults of [MemoryConfig].
const (
	// DefaultStoreTTL is ten times what db lets a replica lag and still be read.
	DefaultStoreTTL = 5 * time.Minute
	// DefaultStoreEntries takes some 20 MB.
	DefaultStoreEntries = 100_000
)

// MemoryConfig bounds a [Memory].
type MemoryConfig struct {
	// TTL is how long a token is kept at least. Default 5 min. When replicas may lag longer,
	// their readers see the past.
	TTL time.Duration
	// MaxEntries bounds the tokens. Default 100 000. When more come within the TTL,
	// principals that are not found read the primary until it has passed.
	MaxEntries int
}

// Memory is a [Store] for an application that runs in one instance, and for tests:
// what one process saves another does not find. What an earlier process had is gone, so
// until the TTL has passed no token of its is complete.
type Memory struct {
	ttl time.Duration
	max int

	mu sync.Mutex
	// Tokens are saved in young. When that is full or a TTL old, it becomes the old, whose
	// tokens are gone then: all at once, and without looking at each.
	young, old map[string]Token
	turned     time.Time // when young was begun
	doubt      time.Time // until then, a token may have gone before its time
}

// NewMemory returns an empty store.
func NewMemory(c MemoryConfig) (*Memory, error) {
	if c.TTL < 0 || c.MaxEntries < 0 || c.MaxEntries == 1 {
		return nil, errors.New("causal: MemoryConfig.TTL and MaxEntries must be positive, and MaxEntries at least 2")
	}
	m := &Memory{ttl: c.TTL, max: c.MaxEntries, young: make(map[string]Token), turned: time.Now()}
	if m.ttl == 0 {
		m.ttl = DefaultStoreTTL
	}
	m.doubt = m.turned.Add(m.ttl)
	if m.max == 0 {
		m.max = DefaultStoreEntries
	}
	return m, nil
}

// Load never fails.
func (m *Memory) Load(_ context.Context, principal string) (Token, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	t, _ := m.find(principal)
	if time.Now().Before(m.doubt) {
		t = t.Merge(Unknown()) // what is there may not be all
	}
	return t, nil
}

// Save never fails.
func (m *Memory) Save(_ context.Context, principal string, t Token) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	was, _ := m.find(principal)
	if _, there := m.young[principal]; !there {
		m.turn(time.Now())
	}
	m.young[principal] = was.Merge(t)
	return nil
}

func (m *Memory) find(principal string) (Token, bool) {
	t, ok := m.young[principal]
	if !ok {
		t, ok = m.old[principal]
	}
	return t, ok
}

func (m *Memory) turn(now time.Time) {
	if len(m.young) < m.max/2 && now.Sub(m.turned) < m.ttl {
		return
	}
	// All in old was saved before young was begun.
	if until := m.turned.Add(m.ttl); len(m.old) > 0 && now.Before(until) {
		m.doubt = until
	}
	m.old, m.young, m.turned = m.young, make(map[string]Token), now
}
