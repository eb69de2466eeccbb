package natsjs

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/loadlinehq/loadline/events"
)

// consumerConfig is a subscription as the server has it. There is no BackOff: its first
// value would replace AckWait.
func (d *Driver) consumerConfig(s events.Subscription) (jetstream.ConsumerConfig, error) {
	var errs []error
	if s.Name == "" || len(s.Filters) == 0 {
		errs = append(errs, fmt.Errorf("natsjs: the subscription %q has no name or no filters", s.Name))
	}
	maxDeliver := s.MaxDeliveries
	if maxDeliver < 1 {
		maxDeliver = -1
	}
	c := jetstream.ConsumerConfig{
		Name: Durable(s.Name), Durable: Durable(s.Name), Description: "Loadline: " + s.Name,
		DeliverPolicy: jetstream.DeliverAllPolicy, AckPolicy: jetstream.AckExplicitPolicy, ReplayPolicy: jetstream.ReplayInstantPolicy,
		AckWait: s.AckWait, MaxDeliver: maxDeliver, MaxAckPending: max(s.MaxInFlight, 1),
	}
	if !s.StartAt.IsZero() {
		c.DeliverPolicy, c.OptStartTime = jetstream.DeliverByStartTimePolicy, new(s.StartAt.UTC())
	}
	for _, f := range s.Filters {
		subject, err := d.subject(f.Type, f.Partition)
		if err != nil {
			errs = append(errs, err)
		}
		c.FilterSubjects = append(c.FilterSubjects, subject)
	}
	slices.Sort(c.FilterSubjects)
	c.FilterSubjects = slices.Compact(c.FilterSubjects)
	return c, errors.Join(errs...)
}

// begins reports whether a consumer gets all from some point on. Where that was is of its making
// alone.
func begins(c jetstream.ConsumerConfig) bool {
	return c.DeliverPolicy == jetstream.DeliverAllPolicy || c.DeliverPolicy == jetstream.DeliverByStartTimePolicy
}

func filters(c jetstream.ConsumerConfig) []string {
	if c.FilterSubject != "" {
		return []string{c.FilterSubject}
	}
	return slices.Sorted(slices.Values(c.FilterSubjects))
}

// prepareConsumer makes a consumer, or checks the one that is there. Filters are added to
// it and, unless Config.Update, never taken away: while a new version of a program is
// brought out, members of the old one begin again too, and what they would take away would
// be passed over.
func (d *Driver) prepareConsumer(ctx context.Context, want jetstream.ConsumerConfig) (jetstream.Consumer, error) {
	ctx, cancel := d.asking(ctx, requestLimit)
	defer cancel()
	for range 5 { // another member may do the same at the same time
		consumer, err := d.js.Consumer(ctx, d.c.Stream, want.Durable)
		if errors.Is(err, jetstream.ErrConsumerNotFound) {
			consumer, err = d.js.CreateConsumer(ctx, d.c.Stream, want)
			if errors.Is(err, jetstream.ErrConsumerExists) {
				continue
			}
		}
		if err != nil {
			return nil, err
		}
		is := consumer.CachedInfo().Config
		changed, drifts := d.consumerChange(is, want)
		if len(drifts) > 0 && !d.c.Update {
			return nil, &DriftError{drifts}
		}
		if len(drifts) == 0 && slices.Equal(filters(is), filters(changed)) {
			return consumer, nil
		}
		d.log.InfoContext(ctx, "natsjs: a subscription is changed", "consumer", want.Durable, "filters", filters(changed), "had", filters(is), "settings", drifts)
		if _, err := d.js.UpdateConsumer(ctx, d.c.Stream, changed); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("natsjs: the subscription %s is changed by others at the same time", want.Durable)
}

// consumerChange returns a consumer as it should be, and where it is not.
func (d *Driver) consumerChange(is, want jetstream.ConsumerConfig) (changed jetstream.ConsumerConfig, drifts []Drift) {
	changed = is
	differ := func(field string, is, want any) bool {
		if is == want {
			return false
		}
		drifts = append(drifts, Drift{d.c.Stream + "/" + changed.Durable, field, fmt.Sprint(is), fmt.Sprint(want), true})
		return true
	}
	if differ("ack_policy", is.AckPolicy, want.AckPolicy) {
		changed.AckPolicy = want.AckPolicy
	}
	if !(begins(is) && begins(want)) && differ("deliver_policy", is.DeliverPolicy, want.DeliverPolicy) {
		changed.DeliverPolicy = want.DeliverPolicy
	}
	if differ("ack_wait", is.AckWait, want.AckWait) {
		changed.AckWait = want.AckWait
	}
	if differ("max_deliver", is.MaxDeliver, want.MaxDeliver) {
		changed.MaxDeliver = want.MaxDeliver
	}
	if differ("max_ack_pending", is.MaxAckPending, want.MaxAckPending) {
		changed.MaxAckPending = want.MaxAckPending
	}
	if differ("inactive_threshold", is.InactiveThreshold, want.InactiveThreshold) {
		changed.InactiveThreshold = want.InactiveThreshold
	}
	if differ("headers_only", is.HeadersOnly, want.HeadersOnly) {
		changed.HeadersOnly = want.HeadersOnly
	}
	// Requests for more, or for longer, would be refused one after the other.
	if differ("max_batch", is.MaxRequestBatch, want.MaxRequestBatch) {
		changed.MaxRequestBatch = want.MaxRequestBatch
	}
	if differ("max_expires", is.MaxRequestExpires, want.MaxRequestExpires) {
		changed.MaxRequestExpires = want.MaxRequestExpires
	}
	if differ("max_bytes", is.MaxRequestMaxBytes, want.MaxRequestMaxBytes) {
		changed.MaxRequestMaxBytes = want.MaxRequestMaxBytes
	}
	if differ("backoff", len(is.BackOff), len(want.BackOff)) {
		changed.BackOff = want.BackOff
	}
	all := filters(want)
	if !d.c.Update {
		all = append(all, filters(is)...)
		slices.Sort(all)
		all = slices.Compact(all)
	}
	changed.FilterSubject, changed.FilterSubjects = "", all
	return changed, drifts
}
