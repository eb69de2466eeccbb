package natsjs_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/loadlinehq/loadline/internal/stack/faultproxy"
	"github.com/loadlinehq/loadline/internal/stack/stacktest"
)

// Hints reach other processes, many as few, and a server that hangs blocks nobody.
func TestHints(t *testing.T) {
	t.Parallel()
	c := config(stacktest.New(t))
	receiver := open(t, c)
	url, proxy := stacktest.Proxied(t, c.URL)
	c.URL = url
	sender := open(t, c)
	var got, other atomic.Int64
	ctx, cancel := context.WithCancel(context.Background())
	var receiving sync.WaitGroup
	defer func() { cancel(); receiving.Wait() }()
	for name, n := range map[string]*atomic.Int64{"outbox": &got, "another": &other} {
		receiving.Go(func() {
			if err := receiver.Hints(name).Receive(ctx, func() { n.Add(1) }); err != nil {
				t.Error(err)
			}
		})
	}
	hints := sender.Hints("outbox")
	until := func(what string, is func() bool) {
		t.Helper()
		for limit := time.Now().Add(10 * time.Second); !is(); time.Sleep(time.Millisecond) {
			if time.Now().After(limit) {
				t.Fatalf("%s: never", what)
			}
		}
	}
	until("a hint", func() bool { hints.Send(); return got.Load() > 0 })
	time.Sleep(50 * time.Millisecond)
	before, began := got.Load(), time.Now()
	for range 100_000 {
		hints.Send()
	}
	took := time.Since(began)
	until("the last one", func() bool { return got.Load() > before })
	time.Sleep(50 * time.Millisecond)
	if n := got.Load() - before; n > int64(took/time.Millisecond)+2 {
		t.Errorf("100,000 hints in %v came as %d", took, n)
	}
	if other.Load() != 0 {
		t.Errorf("%d of another name came", other.Load())
	}

	if err := proxy.Add("stall", faultproxy.Fault{Kind: faultproxy.Stall}); err != nil {
		t.Fatal(err)
	}
	began = time.Now()
	for range 1000 {
		hints.Send()
	}
	if took := time.Since(began); took > time.Second {
		t.Errorf("a server that takes nothing held up hints for %v", took)
	}
	if err := proxy.Remove("stall"); err != nil {
		t.Fatal(err)
	}
	before = got.Load()
	until("hints go on", func() bool { hints.Send(); return got.Load() > before })
}
