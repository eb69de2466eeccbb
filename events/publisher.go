package events

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// DefaultPublishTimeout bounds a publication: less than a request may take.
const DefaultPublishTimeout = 5 * time.Second

// Publisher publishes directly, without a transaction: what it returns nil for is stored,
// and what it never got to is lost with the process. Events that must not be lost go through
// package outbox. It may be used by several goroutines.
type Publisher struct {
	driver  Driver
	source  string
	timeout time.Duration
}

// PublisherConfig has a usable zero value.
type PublisherConfig struct {
	// Source says who writes the events: a URI reference such as /conduit. Default "/".
	Source string
	// Timeout bounds a call. Default 5 s. Too short, and what a busy broker has stored
	// counts as failed; too long, and callers wait for one that is away.
	Timeout time.Duration
}

// NewPublisher returns a publisher to the broker.
func NewPublisher(driver Driver, c PublisherConfig) (*Publisher, error) {
	if c.Timeout < 0 {
		return nil, fmt.Errorf("events: PublisherConfig.Timeout is %v, less than nothing", c.Timeout)
	}
	if c.Timeout == 0 {
		c.Timeout = DefaultPublishTimeout
	}
	if c.Source == "" {
		c.Source = "/"
	}
	return &Publisher{driver, c.Source, c.Timeout}, nil
}

// Publish stores events in the broker, with the tenant, the trace and what the session of
// the context has seen. It returns nil when all are stored. Otherwise its error says which
// are not, and is an [ErrMessage], [ErrBackpressure], [ErrUnavailable] or [ErrRejected] by
// what [errors.Is] finds in it; after ErrUnavailable one may be stored all the same.
func (p *Publisher) Publish(ctx context.Context, messages ...Message) error {
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	raws := make([]Raw, 0, len(messages))
	for i := range messages {
		m := messages[i].From(ctx)
		raw, err := Encode(&m, p.source)
		if err != nil {
			return fmt.Errorf("events: publish %s %s: %w", m.Type, m.ID, err)
		}
		raws = append(raws, raw)
	}
	var errs []error
	for i, err := range p.driver.Publish(ctx, raws) {
		if err != nil {
			errs = append(errs, fmt.Errorf("events: publish %s %s: %w", raws[i].Type, raws[i].ID, err))
		}
	}
	return errors.Join(errs...)
}
