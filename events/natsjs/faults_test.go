package natsjs_test

import (
	"context"
	"errors"
	"os"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/loadlinehq/loadline/events"
	"github.com/loadlinehq/loadline/events/eventstest"
	"github.com/loadlinehq/loadline/internal/stack"
	"github.com/loadlinehq/loadline/internal/stack/stacktest"
)

func control(t *testing.T, s *stack.Stack) eventstest.Control {
	add := func(kind stack.FaultKind) (func() error, func() error) {
		var id string
		return func() error {
				active, err := s.AddFault(t.Context(), stack.Fault{Service: "nats", Kind: kind})
				id = active.ID
				return err
			}, func() error {
				return s.RemoveFault(t.Context(), id)
			}
	}
	var c eventstest.Control
	c.Kill, c.Start = add(stack.FaultKill)
	c.Pause, c.Resume = add(stack.FaultPause)
	c.Stall, c.Flow = add(stack.FaultStall)
	return c
}

func TestFaults(t *testing.T) {
	t.Parallel()
	ledger := 10 * time.Second
	if os.Getenv("LOADLINE_SLOW") != "" {
		ledger = time.Minute
	}
	runFaults(t, stack.Config{DisableSync: true}, ledger, false)
}

// The same with one write for each batch, on a server where that is what to use.
func TestFaultsInAtomicBatches(t *testing.T) {
	t.Parallel()
	if os.Getenv("LOADLINE_SLOW") == "" {
		t.Skip("runs when LOADLINE_SLOW is set")
	}
	runFaults(t, stack.Config{DisableSync: true, SyncNATS: true}, time.Minute, true)
}

func runFaults(t *testing.T, servers stack.Config, ledger time.Duration, atomicBatches bool) {
	s := stacktest.Own(t, servers)
	services := s.Services()
	i := slices.IndexFunc(services, func(s stack.Service) bool { return s.Name == "nats" })
	c := config(&stacktest.Set{NATSURL: "nats://" + services[i].Addr})
	c.AtomicBatches = atomicBatches
	n := 0
	controls := control(t, s)
	eventstest.RunFaults(t, ledger, func(t *testing.T) eventstest.Broker {
		n++
		c := share(c, n)
		b := broker(t, c)
		b.Control = controls
		return b
	})
}

// nats.go gives up after 60 attempts unless it is told otherwise.
func TestReconnectsForEver(t *testing.T) {
	t.Parallel()
	s := stacktest.Own(t, stack.Config{DisableSync: true})
	services := s.Services()
	i := slices.IndexFunc(services, func(s stack.Service) bool { return s.Name == "nats" })
	var attempts atomic.Int64
	c := config(&stacktest.Set{NATSURL: "nats://" + services[i].Addr})
	c.Options = []nats.Option{nats.CustomReconnectDelay(func(int) time.Duration {
		attempts.Add(1)
		return 5 * time.Millisecond
	})}
	d := open(t, c)
	got, _ := begin(t, d, subscription("group", "a"))
	publish(t, d, raw("1", "a"))
	receive(t, got, "1")
	controls := control(t, s)
	if err := controls.Kill(); err != nil {
		t.Fatal(err)
	}
	for limit := time.Now().Add(time.Minute); attempts.Load() < 200 && time.Now().Before(limit); {
		time.Sleep(10 * time.Millisecond)
	}
	if err := controls.Start(); err != nil {
		t.Fatal(err)
	}
	for limit := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		err := errors.Join(d.Publish(ctx, []events.Raw{raw("2", "a")})...)
		cancel()
		if err == nil {
			break
		}
		if time.Now().After(limit) {
			t.Fatalf("after %d attempts: %v", attempts.Load(), err)
		}
	}
	for id := ""; id != "2"; { // the first may come again
		select {
		case id = <-got:
		case <-time.After(20 * time.Second):
			t.Fatal("the subscription does not go on")
		}
	}
	if n := attempts.Load(); n < 200 {
		t.Errorf("%d attempts are too few to tell", n)
	}
}
