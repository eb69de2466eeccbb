package natsjs_test

import (
	"os"
	"slices"
	"testing"
	"time"

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
	s := stacktest.Own(t, stack.Config{DisableSync: true})
	services := s.Services()
	i := slices.IndexFunc(services, func(s stack.Service) bool { return s.Name == "nats" })
	c := config(&stacktest.Set{NATSURL: "nats://" + services[i].Addr})
	ledger := 10 * time.Second
	if os.Getenv("LOADLINE_SLOW") != "" {
		ledger = time.Minute
	}
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
