package natsjs

import (
	"context"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/loadlinehq/loadline/events"
)

// feed holds what a member has got and not begun with. While that waits for its turn, it says
// to the server that the member is alive: behind slow handlers, what is held would be given
// to others, and such deliveries count.
type feed struct {
	d       *Driver
	name    string
	ackWait time.Duration

	came, went chan struct{} // have one when the queue has grown, or shrunk

	mu    sync.Mutex
	queue []held
	ended bool // what comes is given back
}

type held struct {
	*delivery
	heard time.Time // when the server was told last that it is held
}

func newFeed(d *Driver, name string, ackWait time.Duration) *feed {
	return &feed{d: d, name: name, ackWait: ackWait, came: make(chan struct{}, 1), went: make(chan struct{}, 1)}
}

// got takes a message from the server.
func (f *feed) got(m *nats.Msg) {
	delivery, err := f.d.delivery(f.name, m)
	if err != nil {
		f.d.log.Error("natsjs: a message is none of JetStream's", "subject", m.Subject, "error", err)
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ended {
		_ = delivery.say(sayNak) // if it does not arrive, AckWait does
		return
	}
	f.queue = append(f.queue, held{delivery, time.Now()})
	signal(f.came)
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// run delivers what is held, one after the other, until ctx is done.
func (f *feed) run(ctx context.Context, deliver func(events.Delivery)) {
	for {
		for ctx.Err() == nil {
			delivery, ok := f.next(ctx)
			if !ok {
				break
			}
			signal(f.went)
			deliver(delivery)
		}
		select {
		case <-f.came:
		case <-ctx.Done():
			return
		}
	}
}

// waiting is how many are held.
func (f *feed) waiting() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.queue)
}

// next takes the first that is still this member's. After a while in which the process stood
// still it may not be: another has it, or it comes again.
func (f *feed) next(ctx context.Context) (*delivery, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for len(f.queue) > 0 {
		h := f.queue[0]
		if f.queue = f.queue[1:]; len(f.queue) == 0 {
			f.queue = nil
		}
		silent := time.Since(h.heard)
		if silent > f.ackWait {
			continue
		}
		if silent > f.ackWait/10 {
			_ = h.Extend(ctx) // whoever takes it has the time to say so again
		}
		return h.delivery, true
	}
	return nil, false
}

// alive says for what is held that it is.
func (f *feed) alive(ctx context.Context) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range f.queue {
		if err := f.queue[i].Extend(ctx); err != nil {
			return // its time runs; see next
		}
		f.queue[i].heard = time.Now()
	}
}

// giveBack gives what is held to others, and from now on what comes.
func (f *feed) giveBack() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ended = true
	for _, h := range f.queue {
		_ = h.say(sayNak)
	}
	f.queue = nil
}
