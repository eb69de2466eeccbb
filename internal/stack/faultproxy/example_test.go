package faultproxy_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/loadlinehq/loadline/internal/stack/faultproxy"
)

func Example() {
	server, _ := net.Listen("tcp", "127.0.0.1:0")
	defer server.Close()
	go func() {
		for {
			conn, err := server.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_, _ = io.Copy(conn, conn)
			}()
		}
	}()

	p := faultproxy.New("127.0.0.1:0", server.Addr().String())
	if err := p.Listen(); err != nil {
		fmt.Println(err)
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- p.Run(ctx) }()

	client, _ := net.Dial("tcp", p.Addr())
	defer client.Close()
	ask := func() time.Duration {
		began := time.Now()
		_, _ = client.Write([]byte("?"))
		_, _ = client.Read(make([]byte, 1))
		return time.Since(began)
	}
	_ = p.Add("slow", faultproxy.Fault{Kind: faultproxy.Latency, Delay: 50 * time.Millisecond})
	fmt.Println("delayed:", ask() >= 100*time.Millisecond)
	_ = p.Remove("slow")
	fmt.Println("delayed:", ask() >= 100*time.Millisecond)

	stop()
	fmt.Println(<-ended)
	// Output:
	// delayed: true
	// delayed: false
	// <nil>
}
