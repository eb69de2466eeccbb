package main

import (
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
)

// The command asks the instance on its own machine, whatever address that listens on.
func TestHealth(t *testing.T) {
	var code atomic.Int32
	code.Store(http.StatusOK)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/readyz" {
			t.Errorf("asked for %s", r.URL.Path)
		}
		w.WriteHeader(int(code.Load()))
	}))
	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("CONDUIT_HOST", "0.0.0.0")
	t.Setenv("PORT", port)
	if _, err := run(t, "health"); err != nil {
		t.Error(err)
	}
	code.Store(http.StatusServiceUnavailable)
	if _, err := run(t, "health"); err == nil || !strings.Contains(err.Error(), "is not ready: 503") {
		t.Errorf("not ready: %v", err)
	}
	server.Close()
	if _, err := run(t, "health"); err == nil || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("away: %v", err)
	}
}
