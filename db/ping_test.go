package db_test

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/loadlinehq/loadline/db"
	"github.com/loadlinehq/loadline/internal/stack/faultproxy"
	"github.com/loadlinehq/loadline/internal/stack/stacktest"
)

// Who can answer reads is ready, whatever the primary does and however busy the pools
// are.
func TestPing(t *testing.T) {
	t.Parallel()
	d := stacktest.Postgres(t)
	primary, toPrimary := stacktest.Proxied(t, d.URL)
	replica, toReplica := stacktest.Proxied(t, d.ReplicaURLs[0])
	router, err := db.Open(t.Context(), db.Config{Primary: primary, Replicas: []string{replica}, PrimaryPool: db.Pool{MaxConns: 1, Queue: -1}})
	if err != nil {
		t.Fatal(err)
	}
	defer router.Close()
	if err := router.Ping(t.Context()); err != nil {
		t.Errorf("without Run: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- router.Run(ctx) }()
	defer func() { cancel(); <-ended }()
	ping := func(bound time.Duration) error {
		ctx, cancel := context.WithTimeout(t.Context(), bound)
		defer cancel()
		return router.Ping(ctx)
	}
	within(t, 5*time.Second, func() error { return ping(time.Second) })
	rows, err := router.Read(ctx, db.Strong()).Query(ctx, "SELECT pg_sleep(0)") // the only connection
	if err != nil {
		t.Fatal(err)
	}
	if err := ping(5 * time.Second); err != nil {
		t.Errorf("with a full pool: %v", err)
	}
	rows.Close()

	stall := faultproxy.Fault{Kind: faultproxy.Stall}
	if err := toPrimary.Add("silent", stall); err != nil {
		t.Fatal(err)
	}
	if err := ping(5 * time.Second); err != nil {
		t.Errorf("with a silent primary: %v", err)
	}
	if err := toReplica.Add("silent", stall); err != nil {
		t.Fatal(err)
	}
	if err := ping(200 * time.Millisecond); !errors.Is(err, db.ErrNoEligibleNode) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("with all of them silent: %v", err)
	}
	if err := ping(20 * time.Second); !errors.Is(err, db.ErrNoEligibleNode) {
		t.Errorf("with all of them silent, and time: %v", err)
	}
	for _, proxy := range []*faultproxy.Proxy{toPrimary, toReplica} {
		if err := proxy.Remove("silent"); err != nil {
			t.Fatal(err)
		}
	}
	within(t, 10*time.Second, func() error { return ping(time.Second) })
}

// Ping without a deadline ends when Run does.
func TestPingEnds(t *testing.T) {
	t.Parallel()
	d := stacktest.Postgres(t)
	dsn, proxy := stacktest.Proxied(t, d.URL)
	router, err := db.Open(t.Context(), db.Config{Primary: dsn, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	rctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = router.Run(rctx) })
	time.Sleep(400 * time.Millisecond)
	if err := proxy.Add("silent", faultproxy.Fault{Kind: faultproxy.Stall}); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- router.Ping(context.Background()) }()
	time.Sleep(100 * time.Millisecond)
	stop()
	wg.Wait()
	router.Close()
	proxy.Remove("silent")
	select {
	case <-done:
	case <-time.After(8 * time.Second):
		t.Error("Ping waits for ever after Run and Close")
	}
}
