package shared

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/loadlinehq/loadline/internal/stack"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serveLeases answers in a directory as a running stack does, and says when it ends.
func serveLeases(t *testing.T, ctx context.Context, dir string, linger time.Duration) <-chan error {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := stack.WriteJSON(serversPath(dir), Servers{Primary: "primary", LeaseAddr: listener.Addr().String()}); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- keepLeases(ctx, listener, linger) }()
	return ended
}

func TestServersLiveAsLongAsALease(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	const linger = 100 * time.Millisecond
	ended := serveLeases(t, t.Context(), dir, linger)
	nobody := func(context.Context) ([]string, error) { return nil, errors.New("started again") }

	first, err := Join(t.Context(), dir, nobody)
	if err != nil {
		t.Fatal(err)
	}
	if first.Primary != "primary" {
		t.Errorf("got %+v", first)
	}
	second, err := Join(t.Context(), dir, nobody)
	if err != nil {
		t.Fatal(err)
	}
	_ = first.Close()
	select {
	case <-ended:
		t.Fatal("the servers ended while a lease was held")
	case <-time.After(5 * linger):
	}
	_ = second.Close()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("the servers outlive the last lease")
	}
}

func TestServersEndWithTheirContext(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	ended := serveLeases(t, ctx, dir, time.Hour)
	lease, err := Join(t.Context(), dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer lease.Close()
	cancel()
	select {
	case <-ended:
	case <-time.After(5 * time.Second):
		t.Fatal("the servers wait for a lease")
	}
}

// Who cannot start the servers says why, with what they printed.
func TestJoinReportsWhy(t *testing.T) {
	t.Parallel()
	_, err := Join(t.Context(), filepath.Join(t.TempDir(), "stack"), func(context.Context) ([]string, error) {
		return []string{"sh", "-c", "echo no such server; exit 3"}, nil
	})
	if err == nil || !strings.Contains(err.Error(), "no such server") || !strings.Contains(err.Error(), "status 3") {
		t.Errorf("got %v", err)
	}
}
