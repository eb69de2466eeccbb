package ratelimit

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"
)

//go:embed take.lua
var takeLua string

const (
	// maxFailures in sequence, and Redis is taken for away. Guess.
	maxFailures = 3
	// probeEvery is how often it is then looked for, beside the requests.
	probeEvery = 500 * time.Millisecond
	probeLimit = 2 * time.Second
	// askers ask Redis at one time, each for no more than maxBatch requests: while one waits, the next batch grows. What is
	// asked together is one script, which takes half of the time that one for each does (bench/edge, BenchmarkLimitByRedis). So
	// no more than askers times maxBatch are decided in the time of one trip.
	askers   = 2
	maxBatch = 64
	// maxWaiting requests wait to be asked for. Guess.
	maxWaiting = 10_000
)

// shared counts in Redis.
type shared struct {
	client  rueidis.Client
	script  *rueidis.Lua
	prefix  string
	names   []string // of policies
	timeout time.Duration

	mu      sync.Mutex
	waiting []*question
	asking  int

	failures atomic.Int64
	began    time.Time
	probed   atomic.Int64 // when it was looked for last, since began: the clock may go back
}

func newShared(client rueidis.Client, prefix string, names []string, timeout time.Duration) *shared {
	return &shared{client: client, script: rueidis.NewLuaScript("#!lua\n" + takeLua), prefix: prefix, names: names, timeout: timeout, began: time.Now()}
}

// away reports whether Redis is not to be asked; then it is looked for now and then, and nobody waits for that.
func (s *shared) away() bool {
	if s.failures.Load() < maxFailures {
		return false
	}
	last, now := s.probed.Load(), int64(time.Since(s.began))
	if now-last > int64(probeEvery) && s.probed.CompareAndSwap(last, now) {
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), probeLimit)
			defer cancel()
			began := time.Now()
			if s.client.Do(ctx, s.client.B().Ping().Build()).Error() == nil && time.Since(began) < s.timeout {
				s.failures.Store(0)
			}
		}()
	}
	return true
}

// question is what one request asks.
type question struct {
	keys, args []string
	left       atomic.Bool   // nobody waits for the answer any more
	done       chan struct{} // has room for one
	ok         bool
	ahead      [maxPolicies]int64
	err        error
}

// take returns an error when Redis has not answered in time: its client may wait longer, for a connection, than the
// context that it is given, and who asks here does not.
func (s *shared) take(ctx context.Context, cells []cell, states []state) (ok bool, err error) {
	q := &question{keys: make([]string, len(cells)), args: make([]string, 0, 2*len(cells)+1), done: make(chan struct{}, 1)}
	q.args = append(q.args, strconv.Itoa(len(cells)))
	for i, c := range cells {
		q.keys[i] = s.prefix + s.names[c.policy] + ":" + c.key
		q.args = append(q.args, strconv.FormatInt(c.cost, 10), strconv.FormatInt(c.ahead, 10))
	}
	timer := time.NewTimer(s.timeout)
	defer timer.Stop()
	if err = s.ask(q); err == nil {
		select {
		case <-q.done:
			err = q.err
		case <-timer.C:
			q.left.Store(true)
			s.failures.Add(1)
			err = fmt.Errorf("ratelimit: Redis has not answered within %v", s.timeout)
		case <-ctx.Done(): // who asks has gone, and that says nothing of Redis
			q.left.Store(true)
			return false, ctx.Err()
		}
	}
	if err != nil {
		return false, err
	}
	s.failures.Store(0)
	for i := range cells {
		states[i] = cells[i].after(q.ahead[i])
		if wait := q.ahead[i] + cells[i].cost - cells[i].ahead; !q.ok && wait > 0 {
			states[i].retry = wait
		}
	}
	return q.ok, nil
}

// ask has the question answered, together with those of others.
func (s *shared) ask(q *question) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.waiting) >= maxWaiting {
		return fmt.Errorf("ratelimit: %d requests wait for Redis", len(s.waiting))
	}
	s.waiting = append(s.waiting, q)
	if s.asking < askers {
		s.asking++
		go s.answerAll()
	}
	return nil
}

// answerAll ends when no question is left.
func (s *shared) answerAll() {
	batch := make([]*question, 0, maxBatch)
	for {
		s.mu.Lock()
		n := min(len(s.waiting), maxBatch)
		batch = append(batch[:0], s.waiting[:n]...)
		s.waiting = slices.Delete(s.waiting, 0, n)
		if n == 0 {
			s.asking--
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
		// Who has left has counted for himself.
		if batch = slices.DeleteFunc(batch, func(q *question) bool { return q.left.Load() }); len(batch) > 0 {
			s.answer(batch)
		}
	}
}

func (s *shared) answer(batch []*question) {
	ctx, cancel := context.WithTimeout(context.Background(), s.timeout)
	defer cancel()
	var keys, args []string
	if len(batch) == 1 {
		keys, args = batch[0].keys, batch[0].args
	} else {
		for _, q := range batch {
			keys, args = append(keys, q.keys...), append(args, q.args...)
		}
	}
	numbers, err := s.script.Exec(ctx, s.client, keys, args).AsIntSlice()
	if err == nil && len(numbers) != len(keys)+len(batch) {
		err = errors.New("ratelimit: Redis has answered something else")
	}
	if err != nil {
		s.failures.Add(1) // once: it was one call
	}
	for _, q := range batch {
		if q.err = err; err == nil {
			q.ok = numbers[0] == 1
			numbers = numbers[1+copy(q.ahead[:len(q.keys)], numbers[1:]):]
		}
		q.done <- struct{}{}
	}
}
