package auth

import (
	"context"
	"errors"
	"testing"
	"time"
)

// With all turns taken, as many wait as the queue holds, and the next is refused at
// once instead of waiting for nothing.
func TestQueueIsBounded(t *testing.T) {
	t.Parallel()
	h := NewHasher()
	turns := h.maxWaiting / (1 + maxWaitersPerTurn)
	for range turns {
		if err := h.acquire(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	waiters := make(chan error)
	for range h.maxWaiting - turns {
		go func() { waiters <- h.acquire(ctx) }()
	}
	for limit := time.Now().Add(5 * time.Second); h.waiting.Load() < h.maxWaiting; time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("%d wait, want %d", h.waiting.Load(), h.maxWaiting)
		}
	}
	if _, err := h.Hash(t.Context(), "one too many"); !errors.Is(err, ErrBusy) {
		t.Errorf("got %v, want %v", err, ErrBusy)
	}
	cancel()
	for range h.maxWaiting - turns {
		if err := <-waiters; !errors.Is(err, ErrBusy) {
			t.Errorf("a waiter whose context ended got %v, want %v", err, ErrBusy)
		}
	}
	for range turns {
		h.release()
	}
	if n := h.waiting.Load(); n != 0 {
		t.Errorf("%d wait at the end", n)
	}
	if _, err := h.Hash(t.Context(), "afterwards"); err != nil {
		t.Error(err)
	}
}
