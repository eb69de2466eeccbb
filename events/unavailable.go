package events

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"time"
)

const (
	unavailableFirst = 100 * time.Millisecond
	unavailableLast  = 5 * time.Second
	// unavailableMost bounds what an error may ask for.
	unavailableMost = time.Minute
)

// unavailableError is of what a handler needs, not of its event.
type unavailableError struct{ err error }

func (u *unavailableError) Error() string   { return u.err.Error() }
func (u *unavailableError) Unwrap() error   { return u.err }
func (u *unavailableError) HTTPStatus() int { return http.StatusServiceUnavailable }

// Unavailable marks a handler's error as one of what it needs, such as a database that is
// away. No attempt is counted for it, or an outage of a minute would fill the dead letters:
// the member keeps the event, says so to the broker, and calls the handler again after 0.1 to
// 5 s, until it ends otherwise or the consumer does. Errors that say 503 by HTTPStatus() int are
// taken for such, as those of packages db and outbox do, and their RetryAfter is heeded;
// package inbox marks those of connections.
func Unavailable(err error) error { return &unavailableError{err} }

func isUnavailable(err error) bool {
	status, ok := errors.AsType[interface {
		error
		HTTPStatus() int
	}](err)
	return ok && status.HTTPStatus() == http.StatusServiceUnavailable
}

// untilAvailable calls f, and again while what it needs is away, with signs of life for what
// it is about.
func (c *Consumer) untilAvailable(ctx context.Context, about []Delivery, f func() error) error {
	alive := c.keepAlive(ctx, about...)
	defer alive.stop()
	for delay := unavailableFirst; ; delay = min(2*delay, unavailableLast) {
		alive.again()
		err := f()
		if !isUnavailable(err) {
			return err
		}
		if delay == unavailableFirst {
			c.c.Logger.WarnContext(ctx, "events: what a handler needs is away; it is called again until it is back", "type", about[0].Raw().Type, "id", about[0].Raw().ID, "group", c.c.Group, "error", err)
		}
		wait := delay/2 + rand.N(delay)
		if asking, ok := errors.AsType[interface {
			error
			RetryAfter() time.Duration
		}](err); ok {
			wait = min(max(wait, asking.RetryAfter()), unavailableMost)
		}
		select {
		case <-time.After(wait):
		case <-c.ending:
			return err
		case <-ctx.Done():
			return err
		}
	}
}
