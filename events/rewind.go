package events

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
)

// ErrCauseLost is what [ConsumerConfig.Cause] says of an event that tells of what is not:
// the database has failed over to a server that had not got the writer's transaction.
var ErrCauseLost = errors.New("events: what the event tells of was lost in a failover")

// ErrNoRewind: the broker, or its driver, cannot deliver again what was settled.
var ErrNoRewind = errors.New("events: what was settled cannot be delivered again")

// Floors says how far the group has come: for each of its subscriptions, a position in the
// broker's stream up to which it has settled all that is for it. Its error is an [ErrNoRewind]
// when [Consumer.Rewind] could not work.
func (c *Consumer) Floors(ctx context.Context) (map[string]uint64, error) {
	r, err := c.rewinder()
	if err != nil {
		return nil, err
	}
	return r.Floors(ctx, c.Subscriptions())
}

// Subscriptions names the group's subscriptions, as its handlers make them.
func (c *Consumer) Subscriptions() []string {
	var names []string
	for _, p := range c.parts() {
		names = append(names, p.Name)
	}
	return names
}

// Rewind has the group's subscriptions, those that are named, get again what comes after
// the positions, whether it was settled or not: for when the effects are lost and the
// broker does not know. Package inbox calls it after a failover, and absorbs what is not
// lost; handlers without an inbox have their effects twice.
func (c *Consumer) Rewind(ctx context.Context, floors map[string]uint64) error {
	r, err := c.rewinder()
	if err != nil {
		return err
	}
	var errs []error
	for _, p := range c.parts() {
		if floor, named := floors[p.Name]; named {
			errs = append(errs, r.Rewind(ctx, p.Name, floor))
		}
	}
	return errors.Join(errs...)
}

func (c *Consumer) rewinder() (Rewinder, error) {
	if r, ok := c.driver.(Rewinder); ok {
		return r, nil
	}
	return nil, fmt.Errorf("%w by the driver %s", ErrNoRewind, c.driver.Capabilities().Name)
}

// caused asks whether an event's cause is there.
func (c *Consumer) caused(ctx context.Context, m *Message) (err error) {
	if c.c.Cause == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, c.c.HandlerTimeout)
	defer cancel()
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("events: ConsumerConfig.Cause panicked: %v\n%s", v, debug.Stack())
		}
	}()
	return c.c.Cause(ctx, m)
}
