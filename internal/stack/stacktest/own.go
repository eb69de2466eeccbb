package stacktest

import (
	"context"
	"net/url"
	"os"
	"sync"
	"testing"

	"github.com/loadlinehq/loadline/internal/stack"
	"github.com/loadlinehq/loadline/internal/stack/faultproxy"
)

// Own starts servers of the test's own, which it may break, and ends them after it. Dir,
// PortBase and NATSCommand of the configuration are set here. The test binary has to call
// [stack.ServeNATS] first in its TestMain.
func Own(t testing.TB, c stack.Config) *stack.Stack {
	t.Helper()
	if testing.Short() {
		t.Skip("stacktest: starts servers; skipped by -short")
	}
	dir, err := os.MkdirTemp("", "loadline-own-")
	if err != nil {
		t.Fatal(err)
	}
	// PostgreSQL's own user has to get in when the tests run as root, which it does not
	// into t.TempDir.
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := stack.Wipe(dir); err != nil {
			t.Error(err)
		}
	})
	c.Dir, c.PortBase, c.NATSCommand = dir, stack.AnyPortBase, []string{os.Args[0], "nats-server"}
	s, err := stack.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Kill)
	return s
}

// Proxied puts a proxy that can be told to break before a server, for as long as the test
// runs, and returns the server's URL through it.
func Proxied(t testing.TB, serverURL string) (string, *faultproxy.Proxy) {
	t.Helper()
	u, err := url.Parse(serverURL)
	if err != nil {
		t.Fatal(err)
	}
	p := faultproxy.New("127.0.0.1:0", u.Host)
	if err := p.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wait sync.WaitGroup
	wait.Go(func() { _ = p.Run(ctx) })
	t.Cleanup(func() { cancel(); wait.Wait() })
	u.Host = p.Addr()
	return u.String(), p
}
