package natsjs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// maxOldest bounds how many questions are asked for the age of a subscription's oldest
// message: one for each filter.
const maxOldest = 16

// Run makes room and measures, each Config.Interval, until ctx is done; it returns nil then.
// When the stream is used by more than PurgeAt, it deletes what all subscriptions have
// settled. One process that runs it is enough, and several do no harm.
func (d *Driver) Run(ctx context.Context) error {
	ticker := time.NewTicker(d.c.Interval)
	defer ticker.Stop()
	failing, full := false, false
	for {
		s, purged, err := d.tend(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case d.isClosed():
			return ErrClosed
		case err != nil && !failing:
			failing = true
			d.log.WarnContext(ctx, "natsjs: the stream cannot be looked after", "stream", d.c.Stream, "error", err)
		case err == nil:
			failing = false
		}
		if purged > 0 {
			d.log.InfoContext(ctx, "natsjs: deleted what all subscriptions have settled", "stream", d.c.Stream, "messages", purged, "used", s.used)
		}
		if err == nil {
			above := d.c.PurgeAt > 0 && s.used > d.c.PurgeAt && purged == 0
			if above && !full {
				d.log.WarnContext(ctx, "natsjs: the stream is nearly full of what a subscription has not settled", "stream", d.c.Stream, "used", s.used, "slowest", s.slowest())
			}
			full = above
		}
		select {
		case <-ctx.Done():
			return nil
		case <-d.closed:
			return ErrClosed
		case <-ticker.C:
		}
	}
}

func (s *survey) slowest() string {
	name, least := "", s.last+1
	for _, c := range s.consumers {
		if c.floor < least {
			name, least = c.name, c.floor
		}
	}
	return name
}

// tend does Run's work once.
func (d *Driver) tend(ctx context.Context) (*survey, uint64, error) {
	s, err := d.survey(ctx)
	if err != nil {
		return nil, 0, err
	}
	d.metrics.saw(ctx, s)
	if d.c.PurgeAt < 0 || s.used <= d.c.PurgeAt {
		return s, 0, nil
	}
	purged, err := d.purge(ctx, s)
	return s, purged, err
}

func (d *Driver) survey(ctx context.Context) (*survey, error) {
	ctx, cancel := d.asking(ctx, max(d.c.Interval, requestLimit))
	defer cancel()
	stream, err := d.js.Stream(ctx, d.c.Stream)
	if err != nil {
		return nil, unavailable(err)
	}
	info := stream.CachedInfo()
	s := &survey{at: info.TimeStamp, messages: info.State.Msgs, bytes: info.State.Bytes, last: info.State.LastSeq}
	if s.at.IsZero() {
		s.at = time.Now()
	}
	if most := info.Config.MaxBytes; most > 0 {
		s.used = float64(s.bytes) / float64(most)
	}
	if most := info.Config.MaxMsgs; most > 0 {
		s.used = max(s.used, float64(s.messages)/float64(most))
	}
	list := stream.ListConsumers(ctx)
	for c := range list.Info() {
		if c.Config.Durable == "" {
			continue // somebody looks at the stream
		}
		one := surveyed{
			name: strings.TrimPrefix(c.Config.Description, "Loadline: "), filters: filters(c.Config), floor: c.AckFloor.Stream,
			pending: int64(c.NumPending) + int64(c.NumAckPending), redelivered: c.NumRedelivered,
		}
		if one.name == "" {
			one.name = c.Name
		}
		if len(one.filters) == 0 {
			one.filters = []string{">"}
		}
		s.consumers = append(s.consumers, one)
	}
	if err := list.Err(); err != nil && !errors.Is(err, jetstream.ErrEndOfData) {
		return nil, unavailable(err)
	}
	for i := range s.consumers {
		c := &s.consumers[i]
		if c.pending == 0 {
			continue
		}
		for _, filter := range c.filters[:min(len(c.filters), maxOldest)] {
			m, err := d.message(ctx, fmt.Sprintf(`{"seq":%d,"next_by_subj":%q}`, c.floor+1, filter))
			if err != nil {
				return nil, err
			}
			if m != nil && (c.oldest.IsZero() || m.Time.Before(c.oldest)) {
				c.oldest = m.Time
			}
		}
	}
	return s, nil
}

// purge deletes what all durable consumers have settled, and only that. Where a consumer has
// nothing left to do, its floor stays at the last message that was for it: it has settled all
// if there is no later one, which the stream is asked for. The consumer's own count of
// messages is not: it learns of new ones late.
func (d *Driver) purge(ctx context.Context, s *survey) (uint64, error) {
	if len(s.consumers) == 0 {
		return 0, nil
	}
	ctx, cancel := d.asking(ctx, max(d.c.Interval, requestLimit))
	defer cancel()
	floor := s.last
	for _, c := range s.consumers {
		if c.floor >= floor {
			continue
		}
		later := false
		for _, filter := range c.filters {
			m, err := d.message(ctx, fmt.Sprintf(`{"last_by_subj":%q}`, filter))
			if err != nil {
				return 0, err
			}
			if m != nil && m.Sequence > c.floor {
				later = true
				break
			}
		}
		if later {
			floor = c.floor
		}
	}
	if floor == 0 {
		return 0, nil
	}
	stream, err := d.js.Stream(ctx, d.c.Stream)
	if err != nil {
		return 0, unavailable(err)
	}
	before := stream.CachedInfo().State.FirstSeq
	if floor < before {
		return 0, nil
	}
	if err := stream.Purge(ctx, jetstream.WithPurgeSequence(floor+1)); err != nil {
		return 0, unavailable(err)
	}
	return floor + 1 - before, nil
}

type stored struct {
	Sequence uint64    `json:"seq"`
	Time     time.Time `json:"time"`
}

// message asks the stream's leader for a message; a replica, which nats.go asks where the
// stream allows it, may not have the last one yet. It returns nil when there is none.
func (d *Driver) message(ctx context.Context, question string) (*stored, error) {
	answer, err := d.conn.RequestWithContext(ctx, "$JS.API.STREAM.MSG.GET."+d.c.Stream, []byte(question))
	if err != nil {
		return nil, unavailable(err)
	}
	var a struct {
		Message *stored             `json:"message"`
		Error   *jetstream.APIError `json:"error"`
	}
	if err := json.Unmarshal(answer.Data, &a); err != nil {
		return nil, fmt.Errorf("natsjs: the answer is not understood: %w", err)
	}
	if a.Error != nil {
		if a.Error.ErrorCode == jetstream.JSErrCodeMessageNotFound {
			return nil, nil
		}
		return nil, unavailable(a.Error)
	}
	return a.Message, nil
}
