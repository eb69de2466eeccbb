// Package ormtest gives the examples' tests a router on real servers, and clients with
// sessions of their own.
package ormtest

import (
	"context"
	"log/slog"
	"sync"
	"testing"

	"github.com/loadlinehq/loadline/causal"
	"github.com/loadlinehq/loadline/db"
	"github.com/loadlinehq/loadline/internal/stack/stacktest"
)

// Router runs until the test ends.
func Router(t *testing.T) *db.Router {
	t.Helper()
	d := stacktest.Postgres(t)
	router, err := db.Open(t.Context(), db.Config{Primary: d.URL, Replicas: d.ReplicaURLs, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wait sync.WaitGroup
	wait.Go(func() {
		if err := router.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		cancel()
		wait.Wait()
		router.Close()
	})
	return router
}

// Client is a context with a session of its own.
func Client(t *testing.T) context.Context {
	return causal.WithSession(t.Context(), causal.NewSession(causal.Token{}))
}
