package stack

import (
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"
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

func balance(t testing.TB, backends func() []string) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := newBalancer(listener, backends)
	t.Cleanup(b.close)
	return listener.Addr().String()
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
	addr := balance(t, func() []string { return []string{a, b} })
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
	addr := balance(t, func() []string { return []string{gone.Addr().String(), b} })
	for range 4 {
		if got := ask(t, addr, "hello"); got != "b hello" {
			t.Errorf("got %q, want the answer of b", got)
		}
	}
}

func TestBalancerWithoutBackends(t *testing.T) {
	t.Parallel()
	addr := balance(t, func() []string { return nil })
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
	b := newBalancer(listener, func() []string { dialled.Add(1); return []string{silent.Addr().String()} })
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
