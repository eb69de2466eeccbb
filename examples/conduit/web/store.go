package web

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/rueidis"
)

// ErrSessions is wrapped by the errors of sessions that cannot be read or kept now.
var ErrSessions = errors.New("web: sessions are away")

const (
	// DefaultPrefix is before the keys of sessions in Redis.
	DefaultPrefix = "conduit:session:"
	// storeTimeout is long for Redis: what takes longer is away, and a page waits.
	storeTimeout = time.Second
)

// Store keeps sessions in Redis, for all instances. It is a scs.CtxStore.
type Store struct {
	redis  rueidis.Client
	prefix string
}

// NewStore has its keys begin with the prefix; "" is [DefaultPrefix].
func NewStore(redis rueidis.Client, prefix string) *Store {
	if prefix == "" {
		prefix = DefaultPrefix
	}
	return &Store{redis, prefix}
}

// FindCtx implements scs.CtxStore.
func (s *Store) FindCtx(ctx context.Context, token string) ([]byte, bool, error) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	data, err := s.redis.Do(ctx, s.redis.B().Get().Key(s.prefix+token).Build()).AsBytes()
	switch {
	case rueidis.IsRedisNil(err):
		return nil, false, nil
	case err != nil:
		return nil, false, fmt.Errorf("%w: %w", ErrSessions, err)
	}
	return data, true, nil
}

// CommitCtx implements scs.CtxStore.
func (s *Store) CommitCtx(ctx context.Context, token string, data []byte, expiry time.Time) error {
	left := time.Until(expiry)
	if left < time.Millisecond {
		return s.DeleteCtx(ctx, token)
	}
	return s.do(ctx, s.redis.B().Set().Key(s.prefix+token).Value(rueidis.BinaryString(data)).PxMilliseconds(left.Milliseconds()).Build())
}

// DeleteCtx implements scs.CtxStore.
func (s *Store) DeleteCtx(ctx context.Context, token string) error {
	return s.do(ctx, s.redis.B().Del().Key(s.prefix+token).Build())
}

func (s *Store) do(ctx context.Context, command rueidis.Completed) error {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	if err := s.redis.Do(ctx, command).Error(); err != nil {
		return fmt.Errorf("%w: %w", ErrSessions, err)
	}
	return nil
}

// Find implements scs.Store.
func (s *Store) Find(token string) ([]byte, bool, error) {
	return s.FindCtx(context.Background(), token)
}

// Commit implements scs.Store.
func (s *Store) Commit(token string, data []byte, expiry time.Time) error {
	return s.CommitCtx(context.Background(), token, data, expiry)
}

// Delete implements scs.Store.
func (s *Store) Delete(token string) error { return s.DeleteCtx(context.Background(), token) }
