package natsjs

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/loadlinehq/loadline/events"
)

const headerKey = "ce-partitionkey"

// Codes of the server that are no constants of the client.
const (
	codeStoreFailed     = 10077 // the stream is full
	codeNoResources     = 10023
	codeNoStorage       = 10047
	codeMessageTooLarge = 10054
)

// Publish implements [events.Driver]. Of the events of a key one is sent at a time, and
// none after one that was not stored: what is stored is in order.
func (d *Driver) Publish(ctx context.Context, messages []events.Raw) []error {
	errs := make([]error, len(messages))
	if d.c.AtomicBatches && len(messages) > 1 && d.publishBatch(ctx, messages) {
		return errs
	}
	left := make([]int, len(messages))
	for i := range left {
		left[i] = i
	}
	failed := make(map[string]bool)
	type sent struct {
		i      int
		future jetstream.PubAckFuture
	}
	for len(left) > 0 {
		busy := make(map[string]bool)
		var later []int
		var flying []sent
		for _, i := range left {
			key := orderOf(&messages[i])
			switch {
			case key != "" && failed[key]:
				errs[i] = fmt.Errorf("%w: not sent, since an earlier event of its key was not stored", events.ErrUnavailable)
			case key != "" && busy[key]:
				later = append(later, i)
			default:
				busy[key] = key != ""
				future, err := d.js.PublishMsgAsync(d.message(&messages[i]), jetstream.WithMsgID(messages[i].ID))
				if err != nil {
					errs[i] = named(err)
					failed[key] = key != ""
					continue
				}
				flying = append(flying, sent{i, future})
			}
		}
		for _, s := range flying {
			select {
			case <-s.future.Ok():
				continue
			case err := <-s.future.Err():
				errs[s.i] = named(err)
			case <-ctx.Done():
				errs[s.i] = fmt.Errorf("%w: %w", events.ErrUnavailable, context.Cause(ctx))
			}
			if key := orderOf(&messages[s.i]); key != "" {
				failed[key] = true
			}
		}
		left = later
	}
	return errs
}

// orderOf is what a message is in order with; empty for none.
func orderOf(m *events.Raw) string {
	if m.Partition < 0 {
		return ""
	}
	if key := m.Header[headerKey]; key != "" {
		return key
	}
	return fmt.Sprint("partition ", m.Partition)
}

func (d *Driver) message(raw *events.Raw) *nats.Msg {
	m := nats.NewMsg(d.subject(raw.Type, raw.Partition))
	for name, value := range raw.Header {
		m.Header[name] = []string{value}
	}
	m.Data = raw.Body
	return m
}

// named gives an error of the client the name that package events has for it.
func named(err error) error {
	if api, ok := errors.AsType[*jetstream.APIError](err); ok {
		switch api.ErrorCode {
		case codeStoreFailed, codeNoResources, codeNoStorage:
			return fmt.Errorf("%w: %w", events.ErrBackpressure, err)
		case codeMessageTooLarge:
			return fmt.Errorf("%w: %w", events.ErrRejected, err)
		}
		if api.Code == 503 {
			return fmt.Errorf("%w: %w", events.ErrUnavailable, err)
		}
		return fmt.Errorf("%w: %w", events.ErrRejected, err)
	}
	switch {
	case errors.Is(err, nats.ErrMaxPayload), errors.Is(err, nats.ErrBadSubject), errors.Is(err, nats.ErrHeadersNotSupported):
		return fmt.Errorf("%w: %w", events.ErrRejected, err)
	case errors.Is(err, jetstream.ErrTooManyStalledMsgs):
		return fmt.Errorf("%w: %w", events.ErrBackpressure, err)
	}
	return fmt.Errorf("%w: %w", events.ErrUnavailable, err)
}
