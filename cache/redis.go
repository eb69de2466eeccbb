package cache

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"github.com/loadlinehq/loadline/causal"
)

var (
	// errAway: Redis does not answer, or not in time.
	errAway = errors.New("cache: Redis is away")
	// errClosed: the epoch is gone, or what answers is another server than before.
	errClosed = errors.New("cache: the epoch has ended")
)

// redis is the connection to a Redis server, and what is asked of it. All goes over one connection,
// so that what is heard on it and what is answered have one order, and come from one server.
type redis struct {
	option rueidis.ClientOption

	connecting sync.Mutex
	client     rueidis.Client // nil until connect has returned without an error
	closed     bool

	prefix  string
	timeout time.Duration // of one exchange
	scripts scripts
	// dials counts connections: an answer counts only while there was none since its server was
	// looked at.
	dials atomic.Uint64
	// connections counts those that are there, or being made. While a Sentinel leads to another server, the one
	// before answers until the new one has said that it is a primary.
	connections atomic.Int64
	sentinels   bool
	// missed counts exchanges in sequence that have failed.
	missed atomic.Int64
}

func newRedis(option rueidis.ClientOption, prefix string, timeout time.Duration) *redis {
	r := &redis{prefix: prefix, timeout: timeout, scripts: newScripts()}
	dial := option.DialCtxFn
	if dial == nil {
		dial = func(ctx context.Context, dst string, dialer *net.Dialer, config *tls.Config) (net.Conn, error) {
			if config != nil {
				return (&tls.Dialer{NetDialer: dialer, Config: config}).DialContext(ctx, "tcp", dst)
			}
			network := "tcp"
			if strings.HasPrefix(dst, "/") {
				network = "unix"
			}
			return dialer.DialContext(ctx, network, dst)
		}
	}
	var sentinels []string // these answer nothing that counts
	if option.Sentinel.MasterSet != "" {
		sentinels = option.InitAddress
	}
	r.sentinels = sentinels != nil
	option.DialCtxFn = func(ctx context.Context, dst string, dialer *net.Dialer, config *tls.Config) (net.Conn, error) {
		if slices.Contains(sentinels, dst) {
			return dial(ctx, dst, dialer, config)
		}
		r.connections.Add(1)
		r.dials.Add(1)
		conn, err := dial(ctx, dst, dialer, config)
		if err != nil {
			r.connections.Add(-1)
			return nil, err
		}
		return &counted{Conn: conn, open: &r.connections}, nil
	}
	option.PipelineMultiplex = -1 // one connection
	option.DisableCache = true
	option.DisableRetry = true // on another connection
	option.BlockingPipeline = -1
	option.DisableAutoPipelining, option.AlwaysPipelining, option.AlwaysRESP2 = false, false, false
	option.ConnLifetime, option.ReplicaOnly, option.SendToReplicas, option.ReadNodeSelector = 0, false, nil, nil
	option.ForceSingleClient = option.Sentinel.MasterSet == ""
	if option.Dialer.Timeout == 0 {
		option.Dialer.Timeout = time.Second
	}
	if option.ConnWriteTimeout == 0 {
		option.ConnWriteTimeout = time.Second // rueidis's 10 s is long for a cache
	}
	r.option = option
	return r
}

// counted is a connection while it is open.
type counted struct {
	net.Conn
	closed atomic.Bool
	open   *atomic.Int64
}

func (c *counted) Close() error {
	err := c.Conn.Close()
	if !c.closed.Swap(true) {
		c.open.Add(-1)
	}
	return err
}

// connect makes the client. One of a single server is there though that is away; one of Sentinels is not.
func (r *redis) connect() error {
	r.connecting.Lock()
	defer r.connecting.Unlock()
	switch {
	case r.closed:
		return errors.New("cache: the store is closed")
	case r.client != nil:
		return nil
	}
	client, err := rueidis.NewClient(r.option)
	if client == nil {
		return fmt.Errorf("%w: %w", errAway, err)
	}
	r.client = client
	return nil
}

func (r *redis) close() {
	r.connecting.Lock()
	defer r.connecting.Unlock()
	r.closed = true
	if r.client != nil {
		r.client.Close()
	}
}

func (r *redis) space(epoch uint64) string {
	return r.prefix + strconv.FormatUint(epoch, 36) + ":"
}

func (r *redis) openKey(replid string) string { return r.prefix + "open:" + replid }

func metaKey(space string) string { return space + "meta" }
func tagsKey(space string) string { return space + "tags" }
func channel(space string) string { return space + "inv" }
func recordKey(space, key string) string {
	return space + "r:" + key
}

// exchange runs f within the time that one exchange has, on the view's connection and no other.
func (r *redis) exchange(ctx context.Context, dials uint64, f func(ctx context.Context) error) error {
	return r.counted(r.within(ctx, r.timeout, dials, f))
}

// bulk is an exchange of much: that it takes long says little of Redis.
func (r *redis) bulk(ctx context.Context, dials uint64, f func(ctx context.Context) error) error {
	return r.within(ctx, r.timeout, dials, f)
}

// patient is exchange for who nobody waits for.
func (r *redis) patient(ctx context.Context, dials uint64, f func(ctx context.Context) error) error {
	return r.counted(r.within(ctx, max(r.timeout, patience), dials, f))
}

// patience is how long what goes on in the background waits for Redis.
const patience = time.Second

// errGone: not Redis was away, but who has asked.
var errGone = fmt.Errorf("%w, or was not waited for", errAway)

func (r *redis) within(ctx context.Context, limit time.Duration, dials uint64, f func(ctx context.Context) error) error {
	if r.dials.Load() != dials {
		return errClosed
	}
	within, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err := f(within)
	switch {
	case r.dials.Load() != dials:
		return errClosed
	case err != nil && ctx.Err() != nil:
		return fmt.Errorf("%w: %w", errGone, context.Cause(ctx))
	case err == nil, errors.Is(err, errClosed):
		return err
	}
	return fmt.Errorf("%w: %w", errAway, err)
}

// counted counts exchanges in sequence that have failed.
func (r *redis) counted(err error) error {
	switch {
	case errors.Is(err, errGone):
	case errors.Is(err, errAway):
		r.missed.Add(1)
	default:
		r.missed.Store(0)
	}
	return err
}

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

func (r *redis) drained(ctx context.Context, dials uint64, space string, upTo causal.LSN) error {
	return r.patient(ctx, dials, func(ctx context.Context) error {
		_, err := closedIfNil(run(ctx, r.client, scriptCall{r.scripts.drained, []string{metaKey(space), tagsKey(space)}, []string{bytes8(uint64(upTo)), channel(space)}})[0].AsInt64())
		return err
	})
}

func closedIfNil(n int64, err error) (int64, error) {
	if rueidis.IsRedisNil(err) {
		return 0, errClosed
	}
	return n, err
}

// server says which history of data a server has: a failover, a restart and some changes of its
// replicas begin a new one.
type server struct {
	master  bool
	replid  string
	replid2 string
}

func (r *redis) server(ctx context.Context) (s server, dials uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, max(r.timeout, patience))
	defer cancel()
	if err := r.connect(); err != nil {
		return s, 0, err
	}
	// Without a connection there is none to count.
	if err := r.client.Do(ctx, r.client.B().Ping().Build()).Error(); err != nil {
		return s, 0, fmt.Errorf("%w: %w", errAway, err)
	}
	dials = r.dials.Load()
	if n := r.connections.Load(); r.sentinels && n != 1 {
		return s, 0, fmt.Errorf("%w: there are %d connections, and one of them is to be left", errClosed, n)
	}
	text, err := r.client.Do(ctx, r.client.B().Info().Section("replication").Build()).ToString()
	if err != nil {
		return s, 0, fmt.Errorf("%w: INFO: %w", errAway, err)
	}
	if r.dials.Load() != dials {
		return s, 0, errClosed
	}
	for line := range strings.SplitSeq(text, "\n") {
		name, what, _ := strings.Cut(strings.TrimSpace(line), ":")
		switch name {
		case "role":
			s.master = what == "master"
		case "master_replid":
			s.replid = what
		case "master_replid2":
			s.replid2 = what
		}
	}
	switch {
	case s.replid == "":
		return s, 0, errors.New("cache: Redis does not say its master_replid: the user needs the permission for INFO")
	case !s.master:
		return s, 0, fmt.Errorf("%w: it is a replica", errAway)
	}
	return s, dials, nil
}

// opened returns which epoch a server's history belongs to, 0 if none was opened.
func (r *redis) opened(ctx context.Context, dials uint64, replid string) (epoch uint64, err error) {
	err = r.patient(ctx, dials, func(ctx context.Context) error {
		text, err := r.client.Do(ctx, r.client.B().Get().Key(r.openKey(replid)).Build()).ToString()
		switch {
		case rueidis.IsRedisNil(err):
			return nil
		case err != nil:
			return err
		}
		epoch, err = strconv.ParseUint(text, 36, 64)
		return err
	})
	return epoch, err
}

// meta is what an epoch has beside its records.
type meta struct {
	n        uint64
	clock    int64 // Redis's, in ms of Unix
	d, floor causal.LSN
	system   uint64
	timeline uint32
}

func (r *redis) meta(ctx context.Context, dials uint64, space string) (m meta, err error) {
	err = r.patient(ctx, dials, func(ctx context.Context) error {
		answers := r.client.DoMulti(ctx, r.client.B().Time().Build(), r.client.B().Hmget().Key(metaKey(space)).Field("n", "d", "floor", "system", "timeline").Build(),
			r.client.B().Strlen().Key(tagsKey(space)).Build())
		clock, err1 := answers[0].AsIntSlice()
		answer, err2 := answers[1].ToArray()
		tags, err3 := answers[2].AsInt64()
		if err := errors.Join(err1, err2, err3); err != nil {
			return err
		}
		if tags != tagSlots*slotSize {
			return errClosed // it was dropped, and with it what was invalidated
		}
		if len(clock) == 2 {
			m.clock = clock[0]*1000 + clock[1]/1000
		}
		texts := make([]string, len(answer))
		for i := range answer {
			if texts[i], err = answer[i].ToString(); err != nil {
				if rueidis.IsRedisNil(err) {
					return errClosed
				}
				return err
			}
		}
		if len(texts) != 5 || len(texts[1]) != 8 || len(texts[2]) != 8 {
			return errRecord
		}
		m.d, m.floor = causal.LSN(binary.BigEndian.Uint64([]byte(texts[1]))), causal.LSN(binary.BigEndian.Uint64([]byte(texts[2])))
		var errs [3]error
		m.n, errs[0] = strconv.ParseUint(texts[0], 10, 64)
		m.system, errs[1] = strconv.ParseUint(texts[3], 10, 64)
		timeline, err := strconv.ParseUint(texts[4], 10, 32)
		m.timeline, errs[2] = uint32(timeline), err
		return errors.Join(errs[:]...)
	})
	return m, err
}

// open begins a new epoch for a server's history, in place of the one that the opener has
// seen, and drops what is left of that and of an older one. It returns 0 when another was quicker.
func (r *redis) open(ctx context.Context, dials uint64, replid string, seen, old uint64, floor causal.Mark) (epoch uint64, err error) {
	for epoch == 0 {
		var b [8]byte
		_, _ = rand.Read(b[:])
		epoch = binary.BigEndian.Uint64(b[:])
	}
	was := ""
	if seen != 0 {
		was = strconv.FormatUint(seen, 36)
	}
	space := r.space(epoch)
	err = r.patient(ctx, dials, func(ctx context.Context) error {
		done, err := run(ctx, r.client, scriptCall{r.scripts.open, []string{r.openKey(replid), metaKey(space), tagsKey(space)}, []string{
			was, strconv.FormatUint(epoch, 36), bytes8(uint64(floor.LSN)), strconv.FormatUint(floor.System, 10), strconv.FormatUint(uint64(floor.Timeline), 10), strconv.Itoa(tagSlots * slotSize),
		}})[0].AsInt64()
		if done == 0 {
			epoch = 0
		}
		return err
	})
	if err != nil {
		return 0, err
	}
	// Whoever is still there finds it closed. Records go by their time to live.
	ended := []string{metaKey(r.space(seen)), tagsKey(r.space(seen)), metaKey(r.space(old)), tagsKey(r.space(old))}
	if epoch != 0 {
		_ = r.patient(ctx, dials, func(ctx context.Context) error {
			return r.client.Do(ctx, r.client.B().Unlink().Key(ended...).Build()).Error()
		})
	}
	return epoch, nil
}

// reopen says that an epoch belongs to another history as well: that of the same server, whose name has
// changed.
func (r *redis) reopen(ctx context.Context, dials uint64, replid string, epoch uint64) error {
	return r.patient(ctx, dials, func(ctx context.Context) error {
		return r.client.Do(ctx, r.client.B().Set().Key(r.openKey(replid)).Value(strconv.FormatUint(epoch, 36)).Build()).Error()
	})
}

func milliseconds(d time.Duration) string {
	return strconv.FormatInt(max(1, int64((d+time.Millisecond-1)/time.Millisecond)), 10)
}

// later is the greater of positions.
func later(lsns ...causal.LSN) causal.LSN { return slices.Max(lsns) }
