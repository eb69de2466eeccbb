package cache

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/redis/rueidis"

	"github.com/loadlinehq/loadline/causal"
)

// get returns a record, or nil.
func (r *redis) get(ctx context.Context, v *view, key string) (record []byte, err error) {
	err = r.exchange(ctx, v.dials, func(ctx context.Context) error {
		record, err = r.client.Do(ctx, r.client.B().Get().Key(recordKey(v.space, key)).Build()).AsBytes()
		if rueidis.IsRedisNil(err) {
			return nil
		}
		return err
	})
	return record, err
}

// getMany returns records, nil for those that are not there.
func (r *redis) getMany(ctx context.Context, v *view, keys []string) (records [][]byte, err error) {
	commands := make([]rueidis.Completed, len(keys))
	for i, key := range keys {
		commands[i] = r.client.B().Get().Key(recordKey(v.space, key)).Build()
	}
	records = make([][]byte, len(keys))
	for first := 0; first < len(keys); first += perExchange {
		last := min(first+perExchange, len(keys))
		err := r.bulk(ctx, v.dials, func(ctx context.Context) error {
			for i, answer := range r.client.DoMulti(ctx, commands[first:last]...) {
				record, err := answer.AsBytes()
				if err != nil && !rueidis.IsRedisNil(err) {
					return err
				}
				records[first+i] = record
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return records, nil
}

// acquired is what acquire returns: a value, or the lease, or how long another has it.
type acquired struct {
	record []byte
	leased bool
	fence  causal.LSN
	asOf   uint64
	left   time.Duration
}

func newToken() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	b[0] |= 1              // not all zeros
	return string(b[:])
}

// lease is what is asked for by who has missed a key. Ignored is the soft end of a value that does not count, or 0.
type lease struct {
	key, token string
	ignored    int64
}

// acquire asks for leases, in one exchange.
func (r *redis) acquire(ctx context.Context, v *view, length time.Duration, schema uint32, ttl time.Duration, leases ...lease) ([]acquired, error) {
	var s [4]byte
	binary.BigEndian.PutUint32(s[:], schema)
	calls := make([]scriptCall, len(leases))
	for i, l := range leases {
		ignored := ""
		if l.ignored != 0 {
			ignored = bytes8(uint64(l.ignored))
		}
		calls[i] = scriptCall{r.scripts.acq, []string{recordKey(v.space, l.key), metaKey(v.space)}, []string{l.token, milliseconds(length), string(s[:]), milliseconds(ttl), ignored}}
	}
	all := make([]acquired, len(leases))
	return all, r.exchanges(ctx, v, calls, func(i int, answer rueidis.RedisResult) (err error) {
		all[i], err = parseAcquired(answer)
		return err
	})
}

// perExchange is how much one exchange has: Redis needs some microseconds for each script.
const (
	perExchange      = 128
	bytesPerExchange = 256 << 10
)

// exchanges runs scripts, many at once, and has each answer taken, up to the first that is an error.
func (r *redis) exchanges(ctx context.Context, v *view, calls []scriptCall, take func(i int, answer rueidis.RedisResult) error) error {
	exchange := r.exchange
	if len(calls) > 1 {
		exchange = r.bulk
	}
	for first := 0; first < len(calls); {
		last, size := first, 0
		for ; last < len(calls) && last-first < perExchange && (last == first || size < bytesPerExchange); last++ {
			for _, arg := range calls[last].args {
				size += len(arg)
			}
		}
		err := exchange(ctx, v.dials, func(ctx context.Context) error {
			for i, answer := range run(ctx, r.client, calls[first:last]...) {
				if err := take(first+i, answer); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		first = last
	}
	return nil
}

func parseAcquired(result rueidis.RedisResult) (a acquired, err error) {
	answer, err := result.ToArray()
	switch {
	case rueidis.IsRedisNil(err):
		return a, errClosed
	case err != nil:
		return a, err
	case len(answer) < 2:
		return a, errRecord
	}
	kind, err1 := answer[0].ToString()
	what, err2 := answer[1].AsBytes()
	if err := errors.Join(err1, err2); err != nil {
		return a, err
	}
	if kind == "value" {
		a.record = what
		return a, nil
	}
	if len(answer) < 3 || len(what) != 8 {
		return a, errRecord
	}
	n, err := answer[2].AsInt64()
	a.fence = causal.LSN(binary.BigEndian.Uint64(what))
	if a.leased = kind == "lease"; a.leased {
		a.asOf = uint64(n)
	} else {
		a.left = time.Duration(n) * time.Millisecond
	}
	return a, err
}

// setting is a value for who has the lease.
type setting struct {
	key, token string
	*value
	soft, hard time.Duration // from now
}

// set returns of each the soft end of what it has stored, by Redis's clock, and less than 2 where the lease is
// gone, or a tag is past what was read.
func (r *redis) set(ctx context.Context, v *view, need causal.LSN, ttl time.Duration, settings ...setting) (stamps []int64, err error) {
	calls := make([]scriptCall, len(settings))
	for i, s := range settings {
		args := []string{s.token, bytes8(s.asOf), milliseconds(s.soft), milliseconds(s.hard), string(s.appendRest(nil)), bytes8(uint64(need)), milliseconds(ttl)}
		for _, slot := range s.slots {
			args = append(args, strconv.Itoa(int(slot)))
		}
		calls[i] = scriptCall{r.scripts.set, []string{recordKey(v.space, s.key), metaKey(v.space), tagsKey(v.space)}, args}
	}
	stamps = make([]int64, len(settings))
	return stamps, r.exchanges(ctx, v, calls, func(i int, answer rueidis.RedisResult) (err error) {
		stamps[i], err = closedIfNil(answer.AsInt64())
		return err
	})
}

func (r *redis) release(ctx context.Context, v *view, leases ...lease) error {
	calls := make([]scriptCall, len(leases))
	for i, l := range leases {
		calls[i] = scriptCall{r.scripts.release, []string{recordKey(v.space, l.key)}, []string{l.token}}
	}
	return r.exchanges(ctx, v, calls, func(_ int, answer rueidis.RedisResult) error { return answer.Error() })
}

// slots returns the numbers of tags' last invalidations.
func (r *redis) slots(ctx context.Context, v *view, slots []uint16) (numbers []uint64, err error) {
	commands := make([]rueidis.Completed, len(slots))
	for i, slot := range slots {
		at := int64(slot)*slotSize + 8
		commands[i] = r.client.B().Getrange().Key(tagsKey(v.space)).Start(at).End(at + 7).Build()
	}
	err = r.exchange(ctx, v.dials, func(ctx context.Context) error {
		for _, answer := range r.client.DoMulti(ctx, commands...) {
			b, err := answer.AsBytes()
			if err != nil {
				return err
			}
			if len(b) != 8 {
				return errClosed // it was dropped
			}
			numbers = append(numbers, binary.BigEndian.Uint64(b))
		}
		return nil
	})
	return numbers, err
}

// invalidate applies invalidations, in one exchange, and returns the number of the last.
func (r *redis) invalidate(ctx context.Context, limit time.Duration, dials uint64, space string, fence causal.LSN, ttl time.Duration, targets []Target) (number uint64, err error) {
	calls := make([]scriptCall, len(targets))
	for i, t := range targets {
		if t.tag {
			calls[i] = scriptCall{r.scripts.tag, []string{tagsKey(space), metaKey(space)}, []string{bytes8(uint64(fence)), strconv.Itoa(int(slotOf(t.key))), channel(space)}}
		} else {
			calls[i] = scriptCall{r.scripts.inv, []string{recordKey(space, t.key), metaKey(space)}, []string{bytes8(uint64(fence)), milliseconds(ttl), channel(space), t.key}}
		}
	}
	if len(calls) == 0 {
		return 0, nil
	}
	err = r.counted(r.within(ctx, limit, dials, func(ctx context.Context) error {
		for _, answer := range run(ctx, r.client, calls...) {
			n, err := closedIfNil(answer.AsInt64())
			if err != nil {
				return err
			}
			number = max(number, uint64(n))
		}
		return nil
	}))
	return number, err
}

func milliseconds(d time.Duration) string {
	return strconv.FormatInt(max(1, int64((d+time.Millisecond-1)/time.Millisecond)), 10)
}

// later is the greater of positions.
func later(lsns ...causal.LSN) causal.LSN { return slices.Max(lsns) }
