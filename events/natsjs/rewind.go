package natsjs

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/loadlinehq/loadline/events"
)

var _ events.Rewinder = (*Driver)(nil)

// Floors says how far subscriptions have come; see [events.Rewinder].
func (d *Driver) Floors(ctx context.Context, subscriptions []string) (map[string]uint64, error) {
	if err := d.mayRewind(); err != nil {
		return nil, err
	}
	ctx, cancel := d.asking(ctx, requestLimit)
	defer cancel()
	stream, err := d.js.Stream(ctx, d.c.Stream)
	if err != nil {
		return nil, fmt.Errorf("natsjs: floors: %w", unavailable(err))
	}
	wanted := make(map[string]string, len(subscriptions))
	for _, s := range subscriptions {
		wanted[Durable(s)] = s
	}
	floors := make(map[string]uint64, len(subscriptions))
	list := stream.ListConsumers(ctx)
	for c := range list.Info() {
		if s, is := wanted[c.Name]; is {
			floors[s] = c.AckFloor.Stream
		}
	}
	if err := list.Err(); err != nil && !errors.Is(err, jetstream.ErrEndOfData) {
		return nil, fmt.Errorf("natsjs: floors: %w", unavailable(err))
	}
	return floors, nil
}

// Rewind delivers to a subscription again what comes after a position; see
// [events.Rewinder]. What the stream does not have any more it does not deliver, and logs:
// the outbox's archive may have it. It needs nats-server 2.14 or later.
func (d *Driver) Rewind(ctx context.Context, subscription string, floor uint64) error {
	if err := d.mayRewind(); err != nil {
		return err
	}
	ctx, cancel := d.asking(ctx, requestLimit)
	defer cancel()
	log := d.log.With("subscription", subscription, "stream", d.c.Stream)
	stream, err := d.js.Stream(ctx, d.c.Stream)
	if err != nil {
		return fmt.Errorf("natsjs: rewind %s: %w", subscription, unavailable(err))
	}
	// Of a consumer that is not there, nothing answers.
	consumer, err := stream.Consumer(ctx, Durable(subscription))
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("natsjs: rewind %s: %w", subscription, unavailable(err))
	}
	if is := consumer.CachedInfo().AckFloor.Stream; is < floor {
		// A reset forwards would pass over what nobody has handled.
		log.WarnContext(ctx, "natsjs: the subscription has not come as far as it is rewound to; it, or the stream, was made anew, or the server has lost what it knew", "position", floor, "is_at", is)
		floor = is
	}
	config, state := consumer.CachedInfo().Config, stream.CachedInfo().State
	startsLater := config.OptStartTime != nil && state.Msgs > 0 && state.FirstTime.Before(*config.OptStartTime)
	if floor+1 < state.FirstSeq && !startsLater {
		log.WarnContext(ctx, "natsjs: some of what has to be delivered again may not be in the stream any more; `loadline events republish` has it", "position", floor, "first", state.FirstSeq)
	}
	if floor, err = d.reset(ctx, config, floor); err != nil {
		return fmt.Errorf("natsjs: rewind %s: %w", subscription, unavailable(err))
	}
	log.InfoContext(ctx, "natsjs: a subscription was rewound", "position", floor)
	return nil
}

// reset has the server deliver what comes after a position, and returns that. To one that began
// at a time, the server refuses what is before the first message that it has of then: before its
// beginning, or behind what has been deleted since.
func (d *Driver) reset(ctx context.Context, c jetstream.ConsumerConfig, floor uint64) (uint64, error) {
	for range 5 { // that message may be deleted meanwhile
		_, err := d.js.ResetConsumerToSequence(ctx, d.c.Stream, c.Durable, floor+1)
		if err == nil || c.OptStartTime == nil || !errors.Is(err, jetstream.ErrConsumerInvalidReset) {
			return floor, err
		}
		first, err := d.message(ctx, fmt.Sprintf(`{"start_time":%q,"next_by_subj":">"}`, c.OptStartTime.Format(time.RFC3339Nano)))
		if err != nil || first == nil { // nil: there is nothing to deliver again
			return floor, err
		}
		floor = max(floor, first.Sequence-1)
	}
	return floor, errors.New("the stream loses its first messages faster than the subscription can be reset to them")
}

func (d *Driver) mayRewind() error {
	if v := d.conn.ConnectedServerVersion(); !knowsReset(v) {
		return fmt.Errorf("natsjs: %w: the server is nats-server %s, and 2.14 is the first that can", events.ErrNoRewind, v)
	}
	return nil
}

// knowsReset takes a version that is not known for a new one.
func knowsReset(version string) bool {
	var major, minor int
	if _, err := fmt.Sscanf(version, "%d.%d", &major, &minor); err != nil {
		return true
	}
	return major > 2 || major == 2 && minor >= 14
}
