package natsjs

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
)

// hintEvery is how often a process sends a hint at most.
const hintEvery = time.Millisecond

// Hints tell processes that there is something to look for, such as rows of an outbox for
// its relay. They are core NATS messages on the subject hints.<name>: nobody stores them,
// they may be lost, and who needs all looks by himself as well.
type Hints struct {
	d       *Driver
	subject string
	state   atomic.Int32
}

const (
	hintIdle int32 = iota
	hintSending
	hintAgain // one has come since
)

// Hints returns those of a name, by which unrelated ones are told apart.
func (d *Driver) Hints(name string) *Hints {
	return &Hints{d: d, subject: d.c.SubjectPrefix + "hints." + Durable(name)}
}

// Send sends a hint to all that receive, this process among them. It does not block; many within a
// millisecond are as one.
func (h *Hints) Send() {
	for !h.d.isClosed() {
		switch state := h.state.Load(); {
		case state == hintIdle && h.state.CompareAndSwap(hintIdle, hintSending):
			h.d.publisher.writers.Go(h.send)
			return
		case state == hintSending && h.state.CompareAndSwap(hintSending, hintAgain), state == hintAgain:
			return
		}
	}
}

// send may be blocked by a server that takes nothing, for as long as the connection lasts.
func (h *Hints) send() {
	for {
		h.state.Store(hintSending)
		if h.d.conn.Status() == nats.CONNECTED {
			_ = h.d.conn.Publish(h.subject, nil) // it may be lost
		}
		select {
		case <-h.d.closed:
		case <-time.After(hintEvery):
		}
		if h.state.CompareAndSwap(hintSending, hintIdle) {
			return
		}
	}
}

// Receive calls f after hints, one call at a time, until ctx is done; it returns nil then.
// It goes on by itself when the server was away.
func (h *Hints) Receive(ctx context.Context, f func()) error {
	came := make(chan struct{}, 1)
	sub, err := h.d.conn.Subscribe(h.subject, func(*nats.Msg) {
		select {
		case came <- struct{}{}:
		default:
		}
	})
	if err != nil {
		return fmt.Errorf("natsjs: hints on %s: %w", h.subject, err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-h.d.closed:
			return ErrClosed
		case <-came:
			f()
		}
	}
}
