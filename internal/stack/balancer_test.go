package stack

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/loadlinehq/loadline/internal/stack/faultproxy"
)

// backend answers each connection with its name and then with what it got, when the
// client has sent all.
func backend(t testing.TB, name string) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				sent, _ := io.ReadAll(conn)
				fmt.Fprintf(conn, "%s %s", name, sent)
			}()
		}
	}()
	return listener.Addr().String()
}

// balance returns the address of a balancer in front of the proxies of some addresses.
func balance(t testing.TB, addrs ...string) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	proxies := runProxies(t, addrs...)
	b := newBalancer(listener, func() []*faultproxy.Proxy { return proxies })
	t.Cleanup(b.close)
	return listener.Addr().String()
}

func runProxies(t testing.TB, addrs ...string) []*faultproxy.Proxy {
	t.Helper()
	var proxies []*faultproxy.Proxy
	for _, addr := range addrs {
		p := faultproxy.New("127.0.0.1:0", addr)
		if err := p.Listen(); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_ = p.Run(ctx)
		}()
		t.Cleanup(func() {
			cancel()
			<-ended
		})
		proxies = append(proxies, p)
	}
	return proxies
}

func ask(t *testing.T, addr, text string) string {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	// The end of one direction must pass while the other stays open.
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	return string(answer)
}

func TestBalancerTakesTurns(t *testing.T) {
	t.Parallel()
	a, b := backend(t, "a"), backend(t, "b")
	addr := balance(t, a, b)
	counts := make(map[string]int)
	for range 10 {
		counts[ask(t, addr, "hello")]++
	}
	if counts["a hello"] != 5 || counts["b hello"] != 5 {
		t.Errorf("answers are %v, want five of each", counts)
	}
}

func TestBalancerLeavesOutWhoRefuses(t *testing.T) {
	t.Parallel()
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = gone.Close()
	b := backend(t, "b")
	addr := balance(t, gone.Addr().String(), b)
	for range 4 {
		if got := ask(t, addr, "hello"); got != "b hello" {
			t.Errorf("got %q, want the answer of b", got)
		}
	}
}

// An instance whose proxy refuses is left out like one that does so itself.
func TestBalancerLeavesOutRefusingProxy(t *testing.T) {
	t.Parallel()
	proxies := runProxies(t, backend(t, "a"), backend(t, "b"))
	if err := proxies[0].Add("1", faultproxy.Fault{Kind: faultproxy.Refuse}); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := newBalancer(listener, func() []*faultproxy.Proxy { return proxies })
	t.Cleanup(b.close)
	for range 4 {
		if got := ask(t, listener.Addr().String(), "hello"); got != "b hello" {
			t.Errorf("got %q, want the answer of b", got)
		}
	}
}

func TestBalancerWithoutBackends(t *testing.T) {
	t.Parallel()
	addr := balance(t)
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	if n, err := conn.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("got %d bytes, %v; want the connection closed", n, err)
	}
}

// close ends connections that hang on both sides.
func TestBalancerClose(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var dialled atomic.Int64
	proxies := runProxies(t, silent.Addr().String())
	b := newBalancer(listener, func() []*faultproxy.Proxy { dialled.Add(1); return proxies })
	for range 20 {
		conn, err := net.Dial("tcp", listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	waitFor(t, "twenty connections", func() bool { return dialled.Load() == 20 })
	closed := make(chan struct{})
	go func() {
		b.close()
		close(closed)
	}()
	select {
	case <-closed:
	case <-time.After(5 * time.Second):
		t.Fatal("close hangs")
	}
}
