package faultproxy_test

import (
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/loadlinehq/loadline/internal/ratio"
)

// A message there and back over a connection that is kept, through the proxy, against
// the same to the server itself.
func BenchmarkRoundTrip(b *testing.B) {
	target := echo(b)
	through, direct := dial(b, run(b, target)), dialAddr(b, target)
	message := make([]byte, 256)
	trips := func(conn net.Conn) func() (time.Duration, error) {
		return func() (time.Duration, error) {
			began := time.Now()
			for range 500 {
				if _, err := conn.Write(message); err != nil {
					return 0, err
				}
				if _, err := io.ReadFull(conn, message); err != nil {
					return 0, err
				}
			}
			return time.Since(began), nil
		}
	}
	_ = through.SetDeadline(time.Time{})
	var result ratio.Result
	for b.Loop() {
		var err error
		if result, err = ratio.Measure(40, trips(direct), trips(through)); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(result.Median, "times-direct")
	fmt.Printf("# echo through the fault proxy / direct: %s\n", result)
}

func dialAddr(b *testing.B, addr string) net.Conn {
	b.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = conn.Close() })
	return conn
}

// The proxy allocates nothing for a message.
func BenchmarkMessage(b *testing.B) {
	conn := dial(b, run(b, echo(b)))
	_ = conn.SetDeadline(time.Time{})
	message := make([]byte, 256)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := conn.Write(message); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(conn, message); err != nil {
			b.Fatal(err)
		}
	}
}
