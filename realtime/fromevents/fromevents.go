// Package fromevents tells clients of package realtime what events of package events say: one consumer group of all gateways publishes each event
// into the channels that the application names, and Redis brings it to those gateways that have somebody who listens.
//
//	fromevents.Handle(consumer, gateway, CommentPosted, func(ctx context.Context, e events.Event[Comment]) ([]realtime.Publication, error) {
//		return []realtime.Publication{{Channel: realtime.ChannelOf(ctx, "article", e.Payload.Slug), Data: e.Payload}}, nil
//	})
//
// An event that is delivered twice is told once, those of a key in their order, each with the token of its writer, so that who reads anew what has
// changed does not read it as it was before. What comes late, from the dead letters, say, is not told as news: clients are told to read anew.
package fromevents

import (
	"context"
	"errors"
	"fmt"

	"github.com/loadlinehq/loadline/events"
	"github.com/loadlinehq/loadline/realtime"
)

// Publisher is a [realtime.Gateway].
type Publisher interface {
	Publish(ctx context.Context, p realtime.Publication) error
}

// Handle publishes what tell makes of each event of a type; none is nothing to tell. Give all gateways the same group, of a consumer that has
// StartAt in its configuration: a new group has nothing to tell of what is long over.
//
// Publications have the event's time, tenant and token, and an ID by it. For a namespace with State, tell gives the Version: the row's, or the event's
// KeyVersion, where its writer counts. While Redis is away events wait; what can never be published, or is
// of another tenant than the event, goes to the dead letters.
func Handle[T any](c *events.Consumer, to Publisher, t events.Type[T], tell func(ctx context.Context, e events.Event[T]) ([]realtime.Publication, error)) {
	events.Handle(c, t, func(ctx context.Context, e events.Event[T]) error {
		all, err := tell(ctx, e)
		if err != nil {
			return err
		}
		for i, p := range all {
			if p.Channel.Tenant == "" {
				p.Channel.Tenant = e.Tenant
			}
			if p.Channel.Tenant != e.Tenant {
				return events.Permanent(fmt.Errorf("fromevents: an event of tenant %q is to be told to tenant %q", e.Tenant, p.Channel.Tenant))
			}
			if p.ID == "" {
				p.ID = fmt.Sprintf("%s/%d", e.ID, i) // the same of each delivery
			}
			if p.At.IsZero() {
				p.At = e.Time
			}
			if p.Token.IsZero() {
				p.Token = e.Token
			}
			switch err := to.Publish(ctx, p); {
			case errors.Is(err, realtime.ErrPublication), errors.Is(err, realtime.ErrChannel):
				return events.Permanent(err)
			case err != nil:
				return events.Unavailable(err)
			}
		}
		return nil
	})
}
