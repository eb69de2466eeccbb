// Package faultproxy is a TCP proxy that does to connections what networks and
// peers do on bad days: it delays, throttles, stops passing on, resets and refuses.
//
// It stands in front of a real server, whose clients know only its address. Faults
// are added and removed while clients come, go, hang and stop reading, and no such
// change waits for any of them: the faults in force are an immutable value that is
// replaced as a whole, and whoever waits because of one is told. (Of toxiproxy 2.5
// and 2.12, removing a toxic hung when its clients had gone.)
//
//	p := faultproxy.New("127.0.0.1:6380", "127.0.0.1:6379")
//	if err := p.Listen(); err != nil { … }
//	go p.Run(ctx)
//	err := p.Add("slow", faultproxy.Fault{Kind: faultproxy.Latency, Delay: 50 * time.Millisecond})
//	…
//	err = p.Remove("slow")
//
// Every byte of a connection that lives arrives, once and in order, whatever faults
// come and go. What it holds is bounded: connections by [MaxConnections], and the
// bytes that a delay keeps back by a megabyte each way of a connection, after which it
// reads no more.
//
// It knows nothing of what it carries. It loses no packets, which a proxy of TCP
// cannot: it sees a stream, which both its sides have made whole again. Half-closed
// connections stay so, and a reset is passed on as one.
package faultproxy
