package faultproxy_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/loadlinehq/loadline/internal/stack/faultproxy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// echo sends back what it gets, and ends when its client has ended.
func echo(t testing.TB) string {
	return server(t, func(conn net.Conn) { _, _ = io.Copy(conn, conn) })
}

func server(t testing.TB, serve func(net.Conn)) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var conns sync.WaitGroup
	done, stop := context.WithCancel(context.Background())
	conns.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			conns.Go(func() {
				defer conn.Close()
				defer context.AfterFunc(done, func() { _ = conn.Close() })()
				serve(conn)
			})
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		stop()
		conns.Wait()
	})
	return listener.Addr().String()
}

func run(t testing.TB, target string) *faultproxy.Proxy {
	t.Helper()
	p := faultproxy.New("127.0.0.1:0", target)
	if err := p.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		select {
		case err := <-ended:
			if err != nil || p.Connections() != 0 {
				t.Errorf("Run: %v, with %d connections", err, p.Connections())
			}
		case <-time.After(10 * time.Second):
			t.Error("Run does not end")
		}
	})
	return p
}

func dial(t testing.TB, p *faultproxy.Proxy) *net.TCPConn {
	t.Helper()
	conn, err := net.Dial("tcp", p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	return conn.(*net.TCPConn)
}

func add(t testing.TB, p *faultproxy.Proxy, id string, f faultproxy.Fault) {
	t.Helper()
	began := time.Now()
	if err := p.Add(id, f); err != nil {
		t.Fatal(err)
	}
	quick(t, began)
}

func remove(t testing.TB, p *faultproxy.Proxy, id string) {
	t.Helper()
	began := time.Now()
	if err := p.Remove(id); err != nil {
		t.Fatal(err)
	}
	quick(t, began)
}

// quick: on a busy machine a goroutine may wait for its turn; a client is waited for
// much longer.
func quick(t testing.TB, began time.Time) {
	t.Helper()
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("a fault took %s to change", took)
	}
}

// roundTrip sends some bytes and waits until they have come back.
func roundTrip(t testing.TB, conn net.Conn, size int) time.Duration {
	t.Helper()
	sent := make([]byte, size)
	for i := range sent {
		sent[i] = byte(rand.Uint32())
	}
	began := time.Now()
	var writer sync.WaitGroup
	writer.Go(func() { _, _ = conn.Write(sent) })
	got := make([]byte, size)
	_, err := io.ReadFull(conn, got)
	writer.Wait()
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, sent) {
		t.Fatal("other bytes came back")
	}
	return time.Since(began)
}

func silent(t testing.TB, conn net.Conn, d time.Duration) {
	t.Helper()
	_ = conn.SetReadDeadline(time.Now().Add(d))
	if n, err := conn.Read(make([]byte, 1)); n > 0 || !isTimeout(err) {
		t.Errorf("got %d bytes, %v; want silence", n, err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
}

func isTimeout(err error) bool {
	timeout, ok := errors.AsType[net.Error](err)
	return ok && timeout.Timeout()
}

func TestNoFault(t *testing.T) {
	t.Parallel()
	p := run(t, echo(t))
	conn := dial(t, p)
	roundTrip(t, conn, 1)
	roundTrip(t, conn, 3<<20)
	// The end of one direction passes, and the other goes on.
	if _, err := conn.Write([]byte("last")); err != nil {
		t.Fatal(err)
	}
	if err := conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(conn); err != nil || string(rest) != "last" {
		t.Errorf("got %q, %v", rest, err)
	}
}

func TestServerIsAway(t *testing.T) {
	t.Parallel()
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = gone.Close()
	p := run(t, gone.Addr().String())
	conn, err := net.Dial("tcp", p.Addr())
	if err == nil { // it may be reset before we know that it was made
		_, err = conn.Read(make([]byte, 1))
		_ = conn.Close()
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %v, want %v", err, syscall.ECONNRESET)
	}
}

// A reset by the server is not taken for an orderly end.
func TestResetPassesOn(t *testing.T) {
	t.Parallel()
	p := run(t, server(t, func(conn net.Conn) {
		_, _ = conn.Read(make([]byte, 1))
		_ = conn.(*net.TCPConn).SetLinger(0)
	}))
	conn := dial(t, p)
	if _, err := conn.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %v, want %v", err, syscall.ECONNRESET)
	}
}

func TestLatency(t *testing.T) {
	t.Parallel()
	p := run(t, echo(t))
	conn := dial(t, p)
	add(t, p, "slow", faultproxy.Fault{Kind: faultproxy.Latency, Delay: 60 * time.Millisecond})
	if took := roundTrip(t, conn, 1); took < 120*time.Millisecond {
		t.Errorf("there and back took %s, want 60 ms each way", took)
	}
	add(t, p, "slower", faultproxy.Fault{Kind: faultproxy.Latency, Delay: 60 * time.Millisecond, Direction: faultproxy.ToClient})
	if took := roundTrip(t, conn, 1); took < 180*time.Millisecond {
		t.Errorf("with another delay to the client it took %s, want 180 ms", took)
	}
	// Many chunks are under way at a time: one after the other would take minutes.
	if took := roundTrip(t, conn, 8<<20); took > 8*time.Second {
		t.Errorf("8 MB took %s", took)
	}
	began := time.Now()
	fresh := dial(t, p)
	roundTrip(t, fresh, 1)
	if took := time.Since(began); took < 360*time.Millisecond {
		t.Errorf("a new connection's round trip took %s, want two of 180 ms", took)
	}
	remove(t, p, "slow")
	remove(t, p, "slower")
	fastest := time.Hour // a busy machine is slow now and then, and a delay is always there
	for range 20 {
		fastest = min(fastest, roundTrip(t, conn, 1))
	}
	if fastest > 60*time.Millisecond {
		t.Errorf("without delay it took %s", fastest)
	}
}

// What a delay keeps back goes at once when it ends, with the end of the direction.
func TestLatencyRemoved(t *testing.T) {
	t.Parallel()
	p := run(t, echo(t))
	conn := dial(t, p)
	roundTrip(t, conn, 1)
	add(t, p, "hour", faultproxy.Fault{Kind: faultproxy.Latency, Delay: time.Hour})
	if _, err := conn.Write([]byte("kept back")); err != nil {
		t.Fatal(err)
	}
	if err := conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	silent(t, conn, 50*time.Millisecond)
	remove(t, p, "hour")
	if got, err := io.ReadAll(conn); err != nil || string(got) != "kept back" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestJitterKeepsOrder(t *testing.T) {
	t.Parallel()
	p := run(t, echo(t))
	conn := dial(t, p)
	add(t, p, "rough", faultproxy.Fault{Kind: faultproxy.Latency, Delay: 5 * time.Millisecond, Jitter: 5 * time.Millisecond})
	roundTrip(t, conn, 4<<20) // compares the bytes
}

func TestBandwidth(t *testing.T) {
	t.Parallel()
	p := run(t, echo(t))
	one, two := dial(t, p), dial(t, p)
	add(t, p, "narrow", faultproxy.Fault{Kind: faultproxy.Bandwidth, BytesPerSecond: 200_000, Direction: faultproxy.ToServer})
	began := time.Now()
	var both sync.WaitGroup
	both.Go(func() { roundTrip(t, one, 60_000) })
	roundTrip(t, two, 60_000)
	both.Wait()
	// Together 120 kB, less the burst, at 200 kB/s.
	if took := time.Since(began); took < 450*time.Millisecond || took > 10*time.Second {
		t.Errorf("it took %s, want 0.6 s", took)
	}
	add(t, p, "narrower", faultproxy.Fault{Kind: faultproxy.Bandwidth, BytesPerSecond: 1})
	if _, err := one.Write(make([]byte, 10_000)); err != nil {
		t.Fatal(err)
	}
	silent(t, two, 20*time.Millisecond)
	remove(t, p, "narrower")
	remove(t, p, "narrow")
	if _, err := io.ReadFull(one, make([]byte, 10_000)); err != nil {
		t.Fatal(err)
	}
	if took := roundTrip(t, one, 2_000_000); took > 9*time.Second { // limited, it would take 10 s
		t.Errorf("without limit 2 MB took %s", took)
	}
}

func TestStall(t *testing.T) {
	t.Parallel()
	p := run(t, echo(t))
	conn := dial(t, p)
	roundTrip(t, conn, 1)
	add(t, p, "stall", faultproxy.Fault{Kind: faultproxy.Stall})
	fresh := dial(t, p) // accepted, and then nothing
	for _, c := range []net.Conn{conn, fresh} {
		if _, err := c.Write([]byte("held")); err != nil {
			t.Fatal(err)
		}
		silent(t, c, 50*time.Millisecond)
	}
	remove(t, p, "stall")
	for _, c := range []net.Conn{conn, fresh} {
		got := make([]byte, 4)
		if _, err := io.ReadFull(c, got); err != nil || string(got) != "held" {
			t.Errorf("got %q, %v", got, err)
		}
	}
}

func TestCut(t *testing.T) {
	t.Parallel()
	received := make(chan byte, 10)
	p := run(t, server(t, func(conn net.Conn) {
		for one := make([]byte, 1); ; {
			if _, err := conn.Read(one); err != nil {
				return
			}
			received <- one[0]
			_, _ = conn.Write(one)
		}
	}))
	conn := dial(t, p)
	roundTrip(t, conn, 1)
	<-received
	add(t, p, "cut", faultproxy.Fault{Kind: faultproxy.Cut, Direction: faultproxy.ToClient})
	if _, err := conn.Write([]byte("a")); err != nil {
		t.Fatal(err)
	}
	if got := <-received; got != 'a' {
		t.Errorf("the server got %q", got)
	}
	silent(t, conn, 50*time.Millisecond)
	remove(t, p, "cut")
	add(t, p, "cut", faultproxy.Fault{Kind: faultproxy.Cut, Direction: faultproxy.ToServer})
	if got := make([]byte, 1); readOne(conn, got) != nil || got[0] != 'a' {
		t.Errorf("the client got %q", got)
	}
	if _, err := conn.Write([]byte("b")); err != nil {
		t.Fatal(err)
	}
	select {
	case got := <-received:
		t.Errorf("the server got %q", got)
	case <-time.After(50 * time.Millisecond):
	}
	remove(t, p, "cut")
	if got := <-received; got != 'b' {
		t.Errorf("the server got %q", got)
	}
}

func readOne(conn net.Conn, to []byte) error {
	_, err := io.ReadFull(conn, to)
	return err
}

func TestReset(t *testing.T) {
	t.Parallel()
	p := run(t, echo(t))
	conn := dial(t, p)
	roundTrip(t, conn, 1)
	add(t, p, "reset", faultproxy.Fault{Kind: faultproxy.Reset})
	if err := readOne(conn, make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("an open connection: %v, want %v", err, syscall.ECONNRESET)
	}
	if fresh, err := net.Dial("tcp", p.Addr()); err == nil {
		_ = fresh.SetDeadline(time.Now().Add(5 * time.Second))
		if err := readOne(fresh, make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("a new connection: %v, want %v", err, syscall.ECONNRESET)
		}
		_ = fresh.Close()
	} else if !errors.Is(err, syscall.ECONNRESET) {
		t.Error(err)
	}
	remove(t, p, "reset")
	roundTrip(t, dial(t, p), 1)
}

func TestRefuse(t *testing.T) {
	t.Parallel()
	p := run(t, echo(t))
	conn := dial(t, p)
	roundTrip(t, conn, 1)
	for range 20 {
		add(t, p, "refuse", faultproxy.Fault{Kind: faultproxy.Refuse})
		if _, err := net.Dial("tcp", p.Addr()); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Fatalf("got %v, want %v", err, syscall.ECONNREFUSED)
		}
		// The port is nobody else's meanwhile.
		if other, err := net.Listen("tcp", p.Addr()); err == nil {
			_ = other.Close()
			t.Fatal("another could listen there")
		}
		if err := p.ServeConn(conn); !errors.Is(err, faultproxy.ErrRefused) {
			t.Errorf("ServeConn: got %v, want %v", err, faultproxy.ErrRefused)
		}
		roundTrip(t, conn, 1)
		remove(t, p, "refuse")
		roundTrip(t, dial(t, p), 1)
	}
}

// toxiproxy hung here: a delay is taken out when the clients of its connections have
// gone, or have stopped reading while the server goes on sending.
func TestChangeWaitsForNoClient(t *testing.T) {
	t.Parallel()
	p := run(t, server(t, func(conn net.Conn) {
		for {
			if _, err := conn.Write(make([]byte, 64<<10)); err != nil {
				return
			}
		}
	}))
	for _, kind := range []faultproxy.Fault{
		{Kind: faultproxy.Latency, Delay: 100 * time.Millisecond},
		{Kind: faultproxy.Bandwidth, BytesPerSecond: 1000},
		{Kind: faultproxy.Stall},
		{Kind: faultproxy.Cut, Direction: faultproxy.ToClient},
	} {
		for range 3 {
			add(t, p, "fault", kind)
			var clients []*net.TCPConn
			for range 20 {
				clients = append(clients, dial(t, p))
			}
			time.Sleep(50 * time.Millisecond) // the queues fill
			for i, conn := range clients {
				if i%2 == 0 { // gone, with a reset
					_ = conn.SetLinger(0)
					_ = conn.Close()
				}
			}
			remove(t, p, "fault")
			fresh := dial(t, p)
			if _, err := io.ReadFull(fresh, make([]byte, 1<<20)); err != nil {
				t.Errorf("after %s: %v", kind.Kind, err)
			}
			_ = fresh.Close()
			for _, conn := range clients {
				_ = conn.Close()
			}
		}
	}
}

// However fast the server sends, a delay keeps back a bounded amount.
func TestHeldBytesAreBounded(t *testing.T) {
	t.Parallel()
	sent := make(chan int, 1)
	p := run(t, server(t, func(conn net.Conn) {
		// Connected, and answering, before the delay.
		one := make([]byte, 1)
		_, _ = conn.Read(one)
		_, _ = conn.Write(one)
		_, _ = conn.Read(one)
		total := 0
		for {
			_ = conn.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
			n, err := conn.Write(make([]byte, 64<<10))
			if total += n; err != nil {
				sent <- total
				return
			}
		}
	}))
	conn := dial(t, p)
	roundTrip(t, conn, 1)
	add(t, p, "hour", faultproxy.Fault{Kind: faultproxy.Latency, Delay: time.Hour, Direction: faultproxy.ToClient})
	if _, err := conn.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	// The rest is in the kernel's buffers, on both sides.
	if got := <-sent; got > 16<<20 {
		t.Errorf("%d bytes were taken from the server", got)
	}
	_ = conn.Close()
}

func TestAddRefuses(t *testing.T) {
	t.Parallel()
	p := run(t, echo(t))
	add(t, p, "taken", faultproxy.Fault{Kind: faultproxy.Stall})
	for _, test := range []struct {
		id    string
		fault faultproxy.Fault
		want  string
	}{
		{"taken", faultproxy.Fault{Kind: faultproxy.Stall}, "already"},
		{"a", faultproxy.Fault{}, `no ""`},
		{"a", faultproxy.Fault{Kind: faultproxy.Latency}, "delay"},
		{"a", faultproxy.Fault{Kind: faultproxy.Latency, Delay: time.Second, Jitter: time.Minute}, "jitter"},
		{"a", faultproxy.Fault{Kind: faultproxy.Latency, Delay: time.Second, BytesPerSecond: 1}, "bytes per second: latency has none"},
		{"a", faultproxy.Fault{Kind: faultproxy.Bandwidth}, "bytes per second"},
		{"a", faultproxy.Fault{Kind: faultproxy.Cut}, "cut needs to-server or to-client"},
		{"a", faultproxy.Fault{Kind: faultproxy.Stall, Direction: faultproxy.ToClient}, "direction: stall has none"},
		{"a", faultproxy.Fault{Kind: faultproxy.Bandwidth, BytesPerSecond: 1, Direction: "up"}, `"up" is neither`},
		{"a", faultproxy.Fault{Kind: faultproxy.Reset, Delay: 1}, "delay and jitter: reset has none"},
	} {
		if err := p.Add(test.id, test.fault); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%+v: got %v, want an error that says %q", test.fault, err, test.want)
		}
	}
	if all := p.Faults(); len(all) != 1 || all["taken"].Kind != faultproxy.Stall {
		t.Errorf("the faults are %+v", all)
	}
	for i := 1; i < faultproxy.MaxFaults; i++ {
		add(t, p, strings.Repeat("x", i), faultproxy.Fault{Kind: faultproxy.Stall})
	}
	if err := p.Add("one too many", faultproxy.Fault{Kind: faultproxy.Stall}); err == nil {
		t.Error("there is no bound")
	}
}

func TestPortIsTaken(t *testing.T) {
	t.Parallel()
	taken := echo(t)
	if err := faultproxy.New(taken, taken).Listen(); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("got %v, want %v", err, syscall.EADDRINUSE)
	}
}
