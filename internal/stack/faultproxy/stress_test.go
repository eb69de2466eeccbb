package faultproxy_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/loadlinehq/loadline/internal/stack/faultproxy"
)

// Faults of all kinds come and go while clients come, go, hang and stop reading. No
// change waits, every connection that is not reset gets each of its bytes in order,
// and in the end nothing is left (which run and TestMain check).
func TestStress(t *testing.T) {
	t.Parallel()
	long := 1500 * time.Millisecond
	if os.Getenv("LOADLINE_SLOW") != "" {
		long = 30 * time.Second
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	p := run(t, echo(t))
	end := time.Now().Add(long)
	var clients sync.WaitGroup
	var whole, cut atomic.Int64
	// On a busy machine it takes longer until anything was shown.
	over := func() bool {
		late := time.Since(end)
		return late > 0 && whole.Load() >= 10 && cut.Load() >= 10 || late > 20*time.Second
	}
	for n := range 12 {
		random := rand.New(rand.NewPCG(seed, uint64(n)+2))
		clients.Go(func() {
			for !over() {
				switch err := behave(p, random); {
				case errors.Is(err, errOther):
					t.Error(err)
					return
				case err != nil:
					cut.Add(1)
				default:
					whole.Add(1)
				}
			}
		})
	}
	changes := 0
	for active := map[string]bool{}; !over(); changes++ {
		id := fmt.Sprint(random.IntN(5))
		if active[id] {
			remove(t, p, id)
			delete(active, id)
		} else {
			add(t, p, id, draw(random))
			active[id] = true
		}
		time.Sleep(time.Duration(random.IntN(20)) * time.Millisecond)
	}
	for id := range p.Faults() {
		remove(t, p, id)
	}
	clients.Wait()
	roundTrip(t, dial(t, p), 1<<20)
	t.Logf("%d changes, %d connections whole, %d cut", changes, whole.Load(), cut.Load())
	if whole.Load() < 10 || cut.Load() < 10 {
		t.Error("that shows little")
	}
}

func draw(random *rand.Rand) faultproxy.Fault {
	direction := []faultproxy.Direction{faultproxy.ToServer, faultproxy.ToClient}[random.IntN(2)]
	return []faultproxy.Fault{
		{Kind: faultproxy.Latency, Delay: 2 * time.Millisecond, Jitter: time.Millisecond},
		{Kind: faultproxy.Latency, Delay: time.Hour, Direction: direction},
		{Kind: faultproxy.Bandwidth, BytesPerSecond: 5_000_000},
		{Kind: faultproxy.Bandwidth, BytesPerSecond: 10, Direction: direction},
		{Kind: faultproxy.Stall},
		{Kind: faultproxy.Cut, Direction: direction},
		{Kind: faultproxy.Reset},
		{Kind: faultproxy.Refuse},
	}[random.IntN(8)]
}

var errOther = errors.New("other bytes than were sent")

// behave is one connection of a client, who may read all, go away, or hang.
func behave(p *faultproxy.Proxy, random *rand.Rand) error {
	conn, err := net.Dial("tcp", p.Addr())
	if err != nil {
		time.Sleep(time.Millisecond)
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(3 * time.Second)) // who waits for longer has been stalled
	sent := make([]byte, random.IntN(200_000))
	for i := range sent {
		sent[i] = byte(random.Uint32())
	}
	tcp := conn.(*net.TCPConn)
	switch random.IntN(4) {
	case 0: // goes away in the middle
		_ = conn.SetDeadline(time.Now().Add(time.Duration(random.IntN(20)) * time.Millisecond))
		_, _ = conn.Write(sent)
		if random.IntN(2) == 0 {
			_ = tcp.SetLinger(0)
		}
		return io.ErrUnexpectedEOF
	case 1: // hangs, and reads nothing
		_ = conn.SetWriteDeadline(time.Now().Add(20 * time.Millisecond))
		_, _ = conn.Write(sent)
		time.Sleep(time.Duration(random.IntN(30)) * time.Millisecond)
		return io.ErrUnexpectedEOF
	}
	written := make(chan error, 1)
	go func() {
		_, err := conn.Write(sent)
		if err == nil {
			err = tcp.CloseWrite()
		}
		written <- err
	}()
	got, err := io.ReadAll(conn)
	// A reset is told to one of the two; the other may see an end.
	err = errors.Join(err, <-written)
	if !bytes.HasPrefix(sent, got) || err == nil && len(got) < len(sent) {
		return fmt.Errorf("%w: %d, and %d came back, %v", errOther, len(sent), len(got), err)
	}
	return err
}
