package httpapi

import (
	"context"
	"net/http"
	"sync/atomic"
	"time"
)

// readyTimeout bounds the question whether the server is ready.
const readyTimeout = time.Second

// Health answers /healthz, whether the process lives, and /readyz, whether it
// should be sent requests. The second depends on the database and the first
// must not: no restart of this process would mend the database.
type Health struct {
	ping     func(context.Context) error
	draining atomic.Bool
}

// NewHealth returns a Health that is ready while ping returns nil.
func NewHealth(ping func(context.Context) error) *Health {
	return &Health{ping: ping}
}

// Drain makes the server not ready for the rest of its life.
func (h *Health) Drain() { h.draining.Store(true) }

type healthView struct {
	Status string `json:"status"` // ok or unavailable
	Reason string `json:"reason,omitempty"`
}

func (h *Health) live(w http.ResponseWriter, _ *http.Request) error {
	writeJSON(w, http.StatusOK, healthView{Status: "ok"})
	return nil
}

func (h *Health) ready(w http.ResponseWriter, r *http.Request) error {
	if h.draining.Load() {
		writeJSON(w, http.StatusServiceUnavailable, healthView{"unavailable", "the server is shutting down"})
		return nil
	}
	ctx, cancel := context.WithTimeout(r.Context(), readyTimeout)
	defer cancel()
	// The details of the error, such as the address, are not for everyone.
	if h.ping(ctx) != nil {
		writeJSON(w, http.StatusServiceUnavailable, healthView{"unavailable", "the database does not answer"})
		return nil
	}
	writeJSON(w, http.StatusOK, healthView{Status: "ok"})
	return nil
}
