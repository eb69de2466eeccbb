package cache

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"github.com/loadlinehq/loadline/causal"
)

const (
	// silence is three of the relay's ticks: after it the relay, or Redis, is taken for gone.
	silence      = 3 * time.Second
	silenceCheck = 200 * time.Millisecond
	// maxEarly bounds announcements that come before the counter is known.
	maxEarly             = 10_000
	rejoinMin, rejoinMax = 20 * time.Millisecond, time.Second
)

// listen keeps the store in an epoch until ctx is done: without one nothing is read from any
// tier.
func (s *Store) listen(ctx context.Context) {
	delay, away := rejoinMin, false
	for {
		began := time.Now()
		err := s.takePart(ctx)
		s.view.Store(nil)
		if ctx.Err() != nil {
			return
		}
		lasted := time.Since(began)
		if lasted > time.Minute {
			delay = rejoinMin
		}
		if lasted > 5*time.Second { // it was in an epoch, and this is another outage
			away = false
		}
		if !away {
			away = true
			s.log.WarnContext(ctx, "cache: nothing is cached until Redis and the relay are back", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(delay):
		}
		delay = min(2*delay, rejoinMax)
	}
}

// takePart joins the epoch that is open and hears what is announced, until something is
// wrong.
func (s *Store) takePart(ctx context.Context) error {
	if err := s.check(ctx); err != nil {
		return err
	}
	server, dials, err := s.redis.server(ctx)
	if err != nil {
		return err
	}
	epoch, err := s.redis.opened(ctx, dials, server.replid)
	if err != nil {
		return err
	}
	if s.c.WithoutRelay {
		if epoch, err = s.openAlone(ctx, dials, server.replid, epoch); err != nil {
			return err
		}
	}
	if epoch == 0 {
		return errors.New("cache: no epoch is open: the relay opens one, see Store.Tick")
	}
	space := s.redis.space(epoch)
	l := &listener{s: s, subscribed: make(chan struct{}), trouble: make(chan error, 1)}
	receiving, stop := context.WithCancel(ctx)
	var wait sync.WaitGroup
	defer wait.Wait()
	defer stop()
	wait.Go(func() {
		hooked := rueidis.WithOnSubscriptionHook(receiving, func(p rueidis.PubSubSubscription) {
			if p.Kind == "subscribe" {
				l.confirmed()
			}
		})
		err := s.redis.client.Receive(hooked, s.redis.client.B().Subscribe().Channel(channel(space)).Build(), func(m rueidis.PubSubMessage) { l.hear(m.Message) })
		l.fail(fmt.Errorf("%w: the subscription has ended: %w", errAway, err))
	})
	select {
	case <-l.subscribed:
	case err := <-l.trouble:
		return err
	case <-time.After(max(s.redis.timeout, patience)):
		return fmt.Errorf("%w: the subscription is not confirmed", errAway)
	case <-ctx.Done():
		return ctx.Err()
	}
	// After the subscription, on its connection: what is announced later is heard.
	asked := time.Now()
	m, err := s.redis.meta(ctx, dials, space)
	if err != nil {
		return err
	}
	if took := time.Since(asked); took > s.redis.timeout {
		return fmt.Errorf("%w: it took %v to answer, more than StoreConfig.Timeout", errAway, took.Round(time.Millisecond))
	}
	v := newView(s.views.Add(1), epoch, m)
	v.dials, v.space = dials, space
	v.clock = m.clock - s.since().Milliseconds()
	v.heard.Store(int64(s.since()))
	if err := l.begin(v); err != nil {
		return err
	}
	s.view.Store(v)
	s.metrics.entered(ctx)
	s.log.InfoContext(ctx, "cache: in an epoch", "epoch", epoch, "announcements", m.n)
	check := time.NewTicker(silenceCheck)
	defer check.Stop()
	checked := time.Now()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-l.trouble:
			return err
		case <-s.suspect: // an exchange has failed in a way that says so
			if s.redis.dials.Load() != v.dials {
				return errClosed
			}
			if err := s.stillOpen(ctx, v); err != nil {
				return err
			}
			if s.view.Load() != v {
				return errClosed
			}
		case <-check.C:
			if s.redis.dials.Load() != v.dials || s.view.Load() != v {
				return errClosed
			}
			if s.since()-time.Duration(v.heard.Load()) > silence && !s.c.WithoutRelay {
				return fmt.Errorf("%w: nothing was announced for %v, not even the relay's mark", errAway, silence)
			}
			if s.c.WithoutRelay && time.Since(checked) > time.Second {
				if err := s.stillOpen(ctx, v); err != nil {
					return err
				}
				checked = time.Now()
			}
		}
	}
}

// openAlone is for processes without a relay: whoever finds that there is no epoch opens one.
func (s *Store) openAlone(ctx context.Context, dials uint64, replid string, epoch uint64) (uint64, error) {
	if epoch != 0 {
		_, err := s.redis.meta(ctx, dials, s.redis.space(epoch))
		if !errors.Is(err, errClosed) {
			return epoch, err
		}
	}
	opened, err := s.redis.open(ctx, dials, replid, epoch, 0, causal.Mark{})
	if err == nil && opened == 0 {
		err = errors.New("cache: another has opened an epoch")
	}
	return opened, err
}

// stillOpen asks whether the epoch is there, and, where no relay announces another, still the one that is
// open.
func (s *Store) stillOpen(ctx context.Context, v *view) error {
	if s.c.WithoutRelay {
		server, dials, err := s.redis.server(ctx)
		if err != nil {
			return err
		}
		if epoch, err := s.redis.opened(ctx, dials, server.replid); err != nil || epoch != v.epoch {
			return errors.Join(errClosed, err)
		}
	}
	heard := v.w.Load()
	m, err := s.redis.meta(ctx, v.dials, v.space)
	if err != nil {
		return err
	}
	if m.n < heard {
		return errClosed
	}
	return nil
}

// listener hears announcements, in Redis's order.
type listener struct {
	s          *Store
	once       sync.Once
	subscribed chan struct{}
	trouble    chan error

	mu    sync.Mutex
	v     *view // nil until the counter is known
	early []string
}

func (l *listener) confirmed() { l.once.Do(func() { close(l.subscribed) }) }

func (l *listener) fail(err error) {
	select {
	case l.trouble <- err:
	default:
	}
}

// begin takes what has come early.
func (l *listener) begin(v *view) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.early) > maxEarly {
		return fmt.Errorf("%w: too much was announced at the beginning", errAway)
	}
	for _, m := range l.early {
		if err := l.s.heard(v, m); err != nil {
			return err
		}
	}
	l.v, l.early = v, nil
	return nil
}

// hear is called by the connection's reader: it must be quick.
func (l *listener) hear(m string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.v == nil {
		if len(l.early) <= maxEarly {
			l.early = append(l.early, m)
		}
		return
	}
	if err := l.s.heard(l.v, m); err != nil {
		// At once: what was missed may be what the next reader must not see.
		l.s.view.CompareAndSwap(l.v, nil)
		l.fail(err)
	}
}

// heard takes one announcement. First the key, then the number: who is covered by the
// number sees the key's.
func (s *Store) heard(v *view, m string) error {
	if len(m) < 9 {
		return fmt.Errorf("cache: an announcement of %d bytes", len(m))
	}
	n, rest := binary.BigEndian.Uint64([]byte(m[1:9])), m[9:]
	w := v.w.Load()
	switch {
	case n <= w: // of before the beginning; a counter never goes back within an epoch
		return nil
	case n > w+1:
		return fmt.Errorf("%w: announcements %d to %d were missed", errAway, w+1, n-1)
	}
	switch m[0] {
	case 'k':
		v.keys.heard(stripeOf(rest), n)
	case 't':
		slot, err := strconv.ParseUint(rest[min(8, len(rest)):], 10, 16)
		if err != nil || slot >= tagSlots {
			return fmt.Errorf("cache: an announcement of the tag %q", rest)
		}
		raise(&v.tagFence, binary.BigEndian.Uint64([]byte(rest[:8])))
		v.tags.heard(uint32(slot), n)
	case 'd':
		if len(rest) != 8 {
			return fmt.Errorf("cache: a drained mark of %d bytes", len(rest))
		}
		if d := binary.BigEndian.Uint64([]byte(rest)); d > v.d.Load() {
			v.d.Store(d)
		}
	default: // of a later version: it has a number
	}
	v.w.Store(n)
	v.heard.Store(int64(s.since()))
	return nil
}
