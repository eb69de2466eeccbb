package redisstore

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/redis/rueidis"

	"github.com/loadlinehq/loadline/edge"
)

//go:embed claim.lua
var claimLua string

//go:embed settle.lua
var settleLua string

// Defaults of [Config].
const (
	DefaultPrefix  = "idempotency:"
	DefaultTTL     = 24 * time.Hour
	DefaultLease   = 30 * time.Second
	DefaultTimeout = 100 * time.Millisecond
)

// keepTries is how often keeping an answer is tried again, while its request waits.
const keepTries = 4

// Config has a usable zero value.
type Config struct {
	// Prefix begins all keys. Default [DefaultPrefix].
	Prefix string
	// TTL is how long an answer is kept. Default 24 h, as Stripe's.
	TTL time.Duration
	// Lease is how long a request has its key without renewing that, which it does each third of it: how long a key is not to
	// be had after a process has died. Default 30 s.
	Lease time.Duration
	// Timeout bounds each wait for Redis. Default 100 ms.
	Timeout time.Duration
	// Logger is told of answers that could not be kept. Default slog.Default().
	Logger *slog.Logger
}

// Store is an [edge.IdempotencyStore]. It may be used by several goroutines.
type Store struct {
	client        rueidis.Client
	c             Config
	claim, settle *rueidis.Lua
}

var _ edge.IdempotencyStore = (*Store)(nil)

// New returns a store that uses the client, and does not close it.
func New(client rueidis.Client, c Config) (*Store, error) {
	var errs []error
	if client == nil {
		errs = append(errs, errors.New("redisstore: the client is nil"))
	}
	for _, d := range []struct {
		name     string
		at       *time.Duration
		def, min time.Duration
	}{
		{"TTL", &c.TTL, DefaultTTL, time.Second}, {"Lease", &c.Lease, DefaultLease, 100 * time.Millisecond}, {"Timeout", &c.Timeout, DefaultTimeout, time.Millisecond},
	} {
		if *d.at == 0 {
			*d.at = d.def
		}
		if *d.at < d.min {
			errs = append(errs, fmt.Errorf("redisstore: Config.%s is %v, less than %v", d.name, *d.at, d.min))
		}
	}
	if c.Timeout > c.Lease/3 {
		errs = append(errs, fmt.Errorf("redisstore: Config.Timeout is %v, and a third of Lease %v: a lease could not be renewed in time", c.Timeout, c.Lease/3))
	}
	if c.Prefix == "" {
		c.Prefix = DefaultPrefix
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return &Store{client: client, c: c, claim: rueidis.NewLuaScript("#!lua\n" + claimLua), settle: rueidis.NewLuaScript("#!lua\n" + settleLua)}, errors.Join(errs...)
}

// errLost: the lease has ended, and another may run.
var errLost = errors.New("redisstore: the lease of the key was lost, and another request may have it")

// Do implements [edge.IdempotencyStore]. The context that run gets ends when the lease is lost.
func (s *Store) Do(ctx context.Context, a edge.Attempt, run func(context.Context) (*edge.Answer, error)) (*edge.Answer, bool, error) {
	owner := uuid.NewString()
	key := s.key(a)
	var over atomic.Bool // of the claim and who waits for it, one is the first to end
	said, err := s.ask(ctx, func(ctx context.Context) ([]string, error) {
		said, err := s.claim.Exec(ctx, s.client, []string{key}, []string{string(a.Fingerprint[:]), owner, ms(s.c.Lease)}).AsStrSlice()
		if over.Swap(true) || err != nil { // it may have been claimed all the same
			s.settleLater(context.WithoutCancel(ctx), key, owner)
		}
		return said, err
	})
	if err != nil {
		if over.Swap(true) { // it has just been claimed, perhaps
			go s.settleLater(context.WithoutCancel(ctx), key, owner)
		}
		if ctx.Err() != nil { // who asks has gone, and that says nothing of Redis
			return nil, false, context.Cause(ctx)
		}
		return nil, false, fmt.Errorf("%w: redisstore: %w", edge.ErrStoreAway, err)
	}
	switch {
	case len(said) == 1 && said[0] == "new":
	case len(said) == 1 && said[0] == "busy":
		return nil, false, edge.ErrKeyInFlight
	case len(said) == 1 && said[0] == "reused":
		return nil, false, edge.ErrKeyReused
	case len(said) == 2 && said[0] == "done":
		kept := new(edge.Answer)
		if err := json.Unmarshal([]byte(said[1]), kept); err != nil {
			return nil, false, fmt.Errorf("redisstore: what is kept is no answer: %w", err)
		}
		return kept, true, nil
	default:
		return nil, false, fmt.Errorf("redisstore: Redis has answered %d other things", len(said))
	}
	return s.run(ctx, key, owner, run)
}

func (s *Store) run(ctx context.Context, key, owner string, run func(context.Context) (*edge.Answer, error)) (*edge.Answer, bool, error) {
	within, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var lost atomic.Bool
	renewing := make(chan struct{})
	go func() {
		defer close(renewing)
		s.renew(within, key, owner, func() { lost.Store(true); cancel(errLost) })
	}()
	returned := false
	defer func() {
		if !returned { // it panics
			cancel(nil)
			<-renewing
			s.settleLater(context.WithoutCancel(ctx), key, owner)
		}
	}()
	answer, err := run(within)
	returned = true
	cancel(nil)
	<-renewing
	after := context.WithoutCancel(ctx) // the client may have gone, and will come again
	if err != nil || !answer.Kept() {
		s.settleLater(after, key, owner)
		return answer, false, err
	}
	text, err := json.Marshal(answer)
	if err != nil { // texts and bytes
		return nil, false, err
	}
	ok, err := s.tell(after, key, owner, "keep", s.c.TTL, string(text))
	for range keepTries {
		if err == nil {
			break
		}
		time.Sleep(s.c.Timeout / 2)
		ok, err = s.tell(after, key, owner, "keep", s.c.TTL, string(text))
	}
	switch {
	case err != nil:
		s.c.Logger.ErrorContext(ctx, "redisstore: an answer could not be kept: a repetition may run again when the lease has ended", "error", err, "lease", s.c.Lease)
	case !ok || lost.Load():
		s.c.Logger.ErrorContext(ctx, "redisstore: the lease was lost while the request ran: another with the same key may have run as well")
	}
	return answer, false, nil
}

// renew keeps the lease until ctx is done.
func (s *Store) renew(ctx context.Context, key, owner string, lost func()) {
	until := time.Now().Add(s.c.Lease)
	ticker := time.NewTicker(s.c.Lease / 3)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		now := time.Now()
		ok, err := s.tell(ctx, key, owner, "renew", s.c.Lease, "")
		switch {
		case err == nil && ok:
			until = now.Add(s.c.Lease)
		case err == nil, ctx.Err() == nil && time.Now().After(until.Add(-s.c.Timeout)):
			lost()
			return
		}
	}
}

// settleLater gives a key back, so that a repetition need not wait for the lease to end.
func (s *Store) settleLater(ctx context.Context, key, owner string) {
	if _, err := s.tell(ctx, key, owner, "release", 0, ""); err != nil {
		s.c.Logger.DebugContext(ctx, "redisstore: a key was not given back, and is free when its lease ends", "error", err)
	}
}

func (s *Store) tell(ctx context.Context, key, owner, what string, d time.Duration, answer string) (ok bool, err error) {
	said, err := s.ask(ctx, func(ctx context.Context) ([]string, error) {
		n, err := s.settle.Exec(ctx, s.client, []string{key}, []string{owner, what, ms(d), answer}).AsInt64()
		return []string{fmt.Sprint(n)}, err
	})
	return err == nil && said[0] == "1", err
}

// ask returns within the timeout: Redis's client may wait longer, for a connection, than the context that it is given.
func (s *Store) ask(ctx context.Context, f func(context.Context) ([]string, error)) ([]string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, s.c.Timeout, fmt.Errorf("no answer within %v", s.c.Timeout))
	type answer struct {
		said []string
		err  error
	}
	defer cancel()
	done := make(chan answer, 1)
	go func() {
		said, err := f(ctx)
		done <- answer{said, err}
	}()
	select {
	case a := <-done:
		return a.said, a.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (s *Store) key(a edge.Attempt) string {
	sum := sha256.Sum256(append(a.Scope[:], a.Key...))
	return s.c.Prefix + base64.RawURLEncoding.EncodeToString(sum[:])
}

func ms(d time.Duration) string { return fmt.Sprint(d.Milliseconds()) }
