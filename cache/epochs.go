package cache

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/redis/rueidis"

	"github.com/loadlinehq/loadline/causal"
)

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
