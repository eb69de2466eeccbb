package ratelimit

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"strconv"
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
)

// shared counts in Redis.
type shared struct {
	client  rueidis.Client
	script  *rueidis.Lua
	prefix  string
	names   []string // of policies
	timeout time.Duration

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

// take returns an error when Redis has not answered in time: its client may wait longer, for a connection, than the
// context that it is given, and who asks here does not.
func (s *shared) take(ctx context.Context, cells []cell, states []state) (ok bool, err error) {
	within, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	type answer struct {
		ok    bool
		ahead []int64
		err   error
	}
	keys, args := make([]string, len(cells)), make([]string, 0, 2*len(cells))
	for i, c := range cells {
		keys[i] = s.prefix + s.names[c.policy] + ":" + c.key
		args = append(args, strconv.FormatInt(c.cost, 10), strconv.FormatInt(c.ahead, 10))
	}
	done := make(chan answer, 1)
	go func() {
		numbers, err := s.script.Exec(within, s.client, keys, args).AsIntSlice()
		if err == nil && len(numbers) != len(keys)+1 {
			err = errors.New("ratelimit: Redis has answered something else")
		}
		if err != nil {
			done <- answer{err: err}
			return
		}
		done <- answer{ok: numbers[0] == 1, ahead: numbers[1:]}
	}()
	var a answer
	select {
	case a = <-done:
	case <-within.Done():
		a.err = fmt.Errorf("ratelimit: Redis has not answered within %v", s.timeout)
	}
	switch {
	case a.err == nil:
		s.failures.Store(0)
	case ctx.Err() != nil: // who asks has gone, and that says nothing of Redis
		return false, a.err
	default:
		s.failures.Add(1)
		return false, a.err
	}
	for i := range cells {
		states[i] = cells[i].after(a.ahead[i])
		if wait := a.ahead[i] + cells[i].cost - cells[i].ahead; !a.ok && wait > 0 {
			states[i].retry = wait
		}
	}
	return a.ok, nil
}
