package natsjs

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/loadlinehq/loadline/events"
)

// feed holds what a member has got and not begun with. While that waits for its turn, it says
// to the server that the member is alive: behind slow handlers, what is held would be given
// to others, and such deliveries count. Who takes a delivery gives signs of life for it as long as there is
// hope; when there are none, what is behind it is given to others, and no more is taken until it ends.
type feed struct {
	d       *Driver
	name    string
	ackWait time.Duration

	came, went chan struct{} // have one when the queue has grown; when it has shrunk, or the feed hangs

	mu      sync.Mutex
	queue   []*delivery
	current *delivery // that is being delivered
	hangs   bool      // and gives no signs of life
	ended   bool      // what comes is given back
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
	if f.ended || f.hangs {
		_ = delivery.say(sayNak) // if it does not arrive, AckWait does
		return
	}
	f.queue = append(f.queue, delivery)
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
			f.mu.Lock()
			f.current, f.hangs = nil, false
			f.mu.Unlock()
		}
		signal(f.went)
		select {
		case <-f.came:
		case <-ctx.Done():
			return
		}
	}
}

// signs gives signs of life for what is held until ctx is done.
func (f *feed) signs(ctx context.Context) {
	ticker := time.NewTicker(f.ackWait / 3)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			f.alive(ctx)
		case <-ctx.Done():
			return
		}
	}
}

// isHanging reports whether what is being delivered has given no sign of life for too long.
func (f *feed) isHanging() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.hangs
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
		first := f.queue[0]
		if f.queue = f.queue[1:]; len(f.queue) == 0 {
			f.queue = nil
		}
		silent := first.silent()
		if silent > f.ackWait {
			continue
		}
		if silent > f.ackWait/10 {
			_ = first.Extend(ctx) // whoever takes it has the time to say so again
		}
		f.current = first
		return first, true
	}
	return nil, false
}

// alive says for what is held that it is, unless it is somebody else's by now, or there is no hope for
// it here.
func (f *feed) alive(ctx context.Context) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.queue = slices.DeleteFunc(f.queue, func(d *delivery) bool { return d.silent() > f.ackWait })
	if f.current != nil && f.current.silent() > f.ackWait {
		if !f.hangs {
			f.hangs = true
			f.d.log.WarnContext(ctx, "natsjs: a handler hangs, or does not say that it is alive; what waits behind it is given to others", "subscription", f.name, "id", f.current.raw.ID)
		}
		for _, d := range f.queue {
			_ = d.say(sayNak)
		}
		f.queue = nil
	}
	for _, d := range f.queue {
		if d.Extend(ctx) != nil {
			break // their time runs; see next
		}
	}
	signal(f.went)
}

// giveBack gives what is held to others, and from now on what comes.
func (f *feed) giveBack() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ended = true
	for _, d := range f.queue {
		_ = d.say(sayNak)
	}
	f.queue = nil
}
