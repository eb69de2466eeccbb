package cache

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/loadlinehq/loadline/causal"
)

// relay is what the store does for the one relay of the outbox.
type relay struct {
	mu        sync.Mutex
	epoch     uint64 // that it has led last; 0: none
	replid    string
	dials     uint64 // of the connection; 0: look at the server first
	connected uint64 // the same, kept
	space     string
	applied   causal.Mark // fence of what was applied last
}

// Apply invalidates what records of the outbox name; it is for package outbox's relay, whose Invalidator a
// Store is. It opens an epoch where there is none. What it does not understand, of a later version, say, it
// logs and leaves.
func (s *Store) Apply(ctx context.Context, fence causal.Mark, records [][]byte) (causal.Mark, error) {
	of := make([]Target, 0, len(records))
	for _, record := range records {
		t, err := parseTarget(record)
		if err != nil {
			s.log.ErrorContext(ctx, "cache: an invalidation is not understood; what it names is kept until its time is over", "record", fmt.Sprintf("%.80q", record))
			continue
		}
		of = append(of, t)
	}
	r := &s.relay
	r.mu.Lock()
	defer r.mu.Unlock()
	if s.redis == nil {
		return s.applyLocally(fence, of), nil
	}
	if err := s.lead(ctx, fence); err != nil {
		return causal.Mark{}, err
	}
	// Before, since what fails may have been applied.
	r.saw(fence)
	number, err := s.redis.invalidate(ctx, max(s.redis.timeout, patience), r.dials, r.space, fence.LSN, s.c.tomb(), of)
	if err != nil {
		r.dials = 0
		return causal.Mark{}, err
	}
	fence.Epoch, fence.Number = r.epoch, number
	return fence, nil
}

// Drained says that the invalidations of all commits up to a position have been applied.
func (s *Store) Drained(ctx context.Context, upTo causal.Mark) error {
	r := &s.relay
	r.mu.Lock()
	defer r.mu.Unlock()
	if s.redis == nil {
		if v := s.view.Load(); v.epoch == upTo.Epoch && v.system == upTo.System && v.timeline == upTo.Timeline {
			raise(&v.d, uint64(upTo.LSN))
		}
		return nil
	}
	return s.announceDrained(ctx, upTo)
}

// Tick says that the relay is there, at a position past all that was applied. It is when a new server, or one
// that has lost its data, is found, and gets an epoch.
func (s *Store) Tick(ctx context.Context, now causal.Mark) (epoch uint64, err error) {
	r := &s.relay
	r.mu.Lock()
	defer r.mu.Unlock()
	if s.redis == nil {
		return s.localView(now, true).epoch, nil
	}
	r.dials = 0 // look at the server
	if err := s.lead(ctx, now); err != nil {
		return 0, err
	}
	return r.epoch, s.announceDrained(ctx, causal.Mark{System: now.System, Timeline: now.Timeline, Epoch: r.epoch})
}

// announceDrained announces the drained mark, the old one where that is later: processes hear by it that the
// relay is there.
func (s *Store) announceDrained(ctx context.Context, upTo causal.Mark) error {
	r := &s.relay
	if r.dials == 0 || r.epoch != upTo.Epoch || r.applied.System != upTo.System || r.applied.Timeline != upTo.Timeline {
		return fmt.Errorf("%w: the relay has not looked at it", errAway)
	}
	err := s.redis.drained(ctx, r.dials, r.space, upTo.LSN)
	if err != nil {
		r.dials = 0
	}
	return err
}

// saw notes the latest position that was a fence.
func (r *relay) saw(m causal.Mark) {
	if m.System != r.applied.System || m.Timeline != r.applied.Timeline {
		r.applied = m
	}
	r.applied.LSN = max(r.applied.LSN, m.LSN)
}

// lead makes sure that what is applied goes to the epoch of the server that answers, and opens one where
// there is none, or another than that in which was applied what the outbox does not have any more: what that
// one's server has lost, or was never told, does not matter then. An epoch belongs to a timeline of the database.
func (s *Store) lead(ctx context.Context, at causal.Mark) error {
	r := &s.relay
	if r.dials != 0 && r.dials == s.redis.dials.Load() && r.epoch == at.Epoch && r.applied.System == at.System && r.applied.Timeline == at.Timeline {
		return nil
	}
	server, dials, err := s.redis.server(ctx)
	if err != nil {
		return err
	}
	seen, err := s.redis.opened(ctx, dials, server.replid)
	if err != nil {
		return err
	}
	if at.Epoch != 0 && at.Epoch == r.epoch && seen == 0 && server.replid != r.replid && r.sameServer(dials, server) {
		// Its first replica has come, or its last has been gone for long: it has lost nothing.
		if err := s.redis.reopen(ctx, dials, server.replid, r.epoch); err != nil {
			return err
		}
		seen = r.epoch
	}
	r.saw(at)
	if seen != 0 && seen == at.Epoch {
		space := s.redis.space(seen)
		m, err := s.redis.meta(ctx, dials, space)
		switch {
		case err == nil && m.system == at.System && m.timeline == at.Timeline:
			r.lead(seen, server.replid, space, dials)
			return nil
		case err != nil && !errors.Is(err, errClosed):
			return err
		}
	}
	epoch, err := s.redis.open(ctx, dials, server.replid, seen, at.Epoch, r.applied)
	if err != nil {
		return err
	}
	if epoch == 0 {
		return fmt.Errorf("%w: another relay has opened an epoch", errAway)
	}
	s.log.InfoContext(ctx, "cache: a new epoch: nothing of before is read", "epoch", epoch, "floor", r.applied.LSN.String())
	r.lead(epoch, server.replid, s.redis.space(epoch), dials)
	return nil
}

func (r *relay) lead(epoch uint64, replid, space string, dials uint64) {
	r.epoch, r.replid, r.space, r.dials = epoch, replid, space, dials
	r.connected = dials
}

// sameServer reports whether a new name is that of the server on the same connection, which has not
// taken over another's history.
func (r *relay) sameServer(dials uint64, now server) bool {
	return dials == r.connected && strings.Trim(now.replid2, "0") == ""
}
