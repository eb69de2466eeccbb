package natsjs

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

const (
	housekeepingEvery = 10 * time.Second
	// purgeAbove is the share of a bound above which what all have acknowledged goes.
	purgeAbove = 0.8
)

// stats are what the server has said last.
type stats struct {
	known     bool
	messages  uint64
	bytes     uint64
	share     float64 // of the tighter bound
	dead      uint64
	consumers []consumerStats
}

type consumerStats struct {
	name                          string
	pending, unsettled, redeliver int64
}

// Run keeps house until ctx is done, and returns nil then: it asks the server how full the
// stream is, for the metrics, and purges what all consumers have acknowledged when it is
// above 80 % of a bound. Several instances may run it.
func (d *Driver) Run(ctx context.Context) error {
	ticker := time.NewTicker(housekeepingEvery)
	defer ticker.Stop()
	down := false
	for {
		err := d.keepHouse(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if (err != nil) != down { // once per change
			down = err != nil
			if down {
				d.log.WarnContext(ctx, "natsjs: the server does not answer the housekeeping", "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

func (d *Driver) keepHouse(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, housekeepingEvery)
	defer cancel()
	info, err := d.stream.Info(ctx)
	if err != nil {
		return err
	}
	now := stats{known: true, messages: info.State.Msgs, bytes: info.State.Bytes}
	now.share = float64(info.State.Bytes) / float64(d.c.MaxBytes)
	if d.c.MaxMessages > 0 {
		now.share = max(now.share, float64(info.State.Msgs)/float64(d.c.MaxMessages))
	}
	floor, all := info.State.LastSeq, d.stream.ListConsumers(ctx)
	for c := range all.Info() {
		floor = min(floor, c.AckFloor.Stream)
		now.consumers = append(now.consumers, consumerStats{c.Name, int64(c.NumPending), int64(c.NumAckPending), int64(c.NumRedelivered)})
	}
	if err := all.Err(); err != nil {
		return err
	}
	if dead, err := d.js.Stream(ctx, d.deadName()); err == nil {
		now.dead = dead.CachedInfo().State.Msgs
	}
	d.mu.Lock()
	d.stats = now
	d.mu.Unlock()
	if now.share < purgeAbove || len(now.consumers) == 0 || floor < info.State.FirstSeq {
		return nil
	}
	if err := d.stream.Purge(ctx, jetstream.WithPurgeSequence(floor+1)); err != nil {
		return fmt.Errorf("purge: %w", err)
	}
	d.log.InfoContext(ctx, "natsjs: the stream was nearly full; what all have acknowledged is purged", "share", now.share, "up_to", floor)
	return nil
}

// Lag is how many messages a subscription has not settled yet: those that wait, and those
// that its members have.
func (d *Driver) Lag(ctx context.Context, subscription string) (int64, error) {
	consumer, err := d.js.Consumer(ctx, d.eventsName(), durable(subscription))
	if err != nil {
		return 0, fmt.Errorf("natsjs: subscription %s: %w", subscription, err)
	}
	info := consumer.CachedInfo()
	return int64(info.NumPending) + int64(info.NumAckPending), nil
}

// observe registers the metrics, which Run feeds:
//
//	loadline.events.stream.messages, .bytes     what is kept
//	loadline.events.stream.share                of the tighter bound; 1 refuses events
//	loadline.events.lag{subscription}           messages that are not settled
//	loadline.events.redelivered{subscription}   of them, those that were delivered before
//	loadline.events.dead_letters
func (d *Driver) observe() error {
	meter := d.c.MeterProvider.Meter("github.com/loadlinehq/loadline/events/natsjs")
	messages, err1 := meter.Int64ObservableGauge("loadline.events.stream.messages", metric.WithUnit("{message}"))
	bytes, err2 := meter.Int64ObservableGauge("loadline.events.stream.bytes", metric.WithUnit("By"))
	share, err3 := meter.Float64ObservableGauge("loadline.events.stream.share", metric.WithUnit("1"), metric.WithDescription("Of the tighter bound of the stream."))
	lag, err4 := meter.Int64ObservableGauge("loadline.events.lag", metric.WithUnit("{message}"), metric.WithDescription("Messages that a subscription has not settled."))
	redelivered, err5 := meter.Int64ObservableGauge("loadline.events.redelivered", metric.WithUnit("{message}"))
	dead, err6 := meter.Int64ObservableGauge("loadline.events.dead_letters", metric.WithUnit("{message}"))
	if err := errors.Join(err1, err2, err3, err4, err5, err6); err != nil {
		return err
	}
	var err error
	d.metrics, err = meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		d.mu.Lock()
		now := d.stats
		d.mu.Unlock()
		if !now.known {
			return nil
		}
		o.ObserveInt64(messages, int64(now.messages))
		o.ObserveInt64(bytes, int64(now.bytes))
		o.ObserveFloat64(share, now.share)
		o.ObserveInt64(dead, int64(now.dead))
		for _, c := range now.consumers {
			name := metric.WithAttributes(attribute.String("subscription", c.name))
			o.ObserveInt64(lag, c.pending+c.unsettled, name)
			o.ObserveInt64(redelivered, c.redeliver, name)
		}
		return nil
	}, messages, bytes, share, lag, redelivered, dead)
	return err
}
