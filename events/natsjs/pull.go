package natsjs

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	pullExpiry = 30 * time.Second // nats.go's own
	// heartbeat is how often an idle server says that a request for messages is still
	// there; two that are missing, and the request is made again. A guess: it bounds how
	// long a subscription sleeps after the server has forgotten it.
	heartbeat = 2 * time.Second
	// drainLimit is how long what is on its way may take, to be given back.
	drainLimit = 2 * time.Second
)

// puller asks for as many messages as there is room for (ADR-13 of
// nats-architecture-and-design), by one request at a time, so that what it ends with is known to be
// its end. It is here instead of jetstream's Consume since that one keeps what it has prefetched where no
// sign of life can be given for it.
type puller struct {
	f       *feed
	works   func() // called at the first sign of it
	trouble chan error

	mu    sync.Mutex
	asked int // messages that the server is to send
	heard time.Time
}

// errHangs: what is being delivered gives no sign of life, so nothing is asked for.
var errHangs = errors.New("natsjs: a handler hangs")

// pull has the server send messages to f until ctx is done, or something is wrong.
func (d *Driver) pull(ctx context.Context, f *feed, want jetstream.ConsumerConfig, prefetch int, works func()) error {
	if _, err := d.prepareConsumer(ctx, want); err != nil {
		return err
	}
	p := &puller{f: f, works: sync.OnceFunc(works), trouble: make(chan error, 1)}
	inbox := d.conn.NewInbox()
	sub, err := d.conn.Subscribe(inbox, p.received)
	if err != nil {
		return err
	}
	defer d.drain(ctx, f, sub)
	// What comes is bounded by what was asked for.
	if err := sub.SetPendingLimits(-1, -1); err != nil {
		return err
	}
	beats := time.NewTicker(heartbeat)
	defer beats.Stop()
	lost := d.publisher.lost()
	subject := "$JS.API.CONSUMER.MSG.NEXT." + d.c.Stream + "." + want.Durable
	for {
		if f.isHanging() {
			return errHangs
		}
		if n := p.ask(prefetch, f.waiting()); n > 0 {
			request := fmt.Sprintf(`{"batch":%d,"expires":%d,"idle_heartbeat":%d}`, n, pullExpiry, heartbeat)
			if err := d.conn.PublishRequest(subject, inbox, []byte(request)); err != nil {
				return errInterrupted(err)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-d.closed:
			return ErrClosed
		case err := <-p.trouble:
			return errInterrupted(err)
		case <-lost:
			return errInterrupted(errConnectionLost)
		case <-f.went:
		case <-beats.C:
			if p.silent() {
				return errInterrupted(errors.New("natsjs: the server is silent"))
			}
		}
	}
}

// ask returns how many messages to ask for: nothing while a request is open, or until there is room for
// half.
func (p *puller) ask(prefetch, waiting int) int {
	room := prefetch - waiting
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.asked > 0 || room <= 0 || 2*room < prefetch {
		return 0
	}
	p.asked, p.heard = room, time.Now()
	return room
}

// silent reports whether the server has forgotten what it was asked.
func (p *puller) silent() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked > 0 && time.Since(p.heard) > 2*heartbeat
}

// received gets messages, and what the server says about the request.
func (p *puller) received(m *nats.Msg) {
	status := m.Header.Get("Status")
	if len(m.Data) > 0 || status == "" {
		p.works()
		p.answered(1)
		p.f.got(m)
		return
	}
	description := m.Header.Get("Description")
	switch {
	case status == "100": // a heartbeat
		p.works()
		p.answered(0)
		return
	case status == "408", status == "409" && (description == "Leadership Change" || description == "Batch Completed"):
		p.over()
	default: // among them Consumer Deleted, Server Shutdown, and limits that somebody has set
		select {
		case p.trouble <- fmt.Errorf("natsjs: the server says %s %s", status, description):
		default:
		}
	}
	signal(p.f.went)
}

func (p *puller) answered(n int) {
	p.mu.Lock()
	p.asked, p.heard = max(0, p.asked-n), time.Now()
	over := n > 0 && p.asked == 0
	p.mu.Unlock()
	if over {
		signal(p.f.went)
	}
}

// over ends the request, whatever it has brought.
func (p *puller) over() {
	p.mu.Lock()
	p.asked = 0
	p.mu.Unlock()
}

// errInterrupted is an error that passes.
func errInterrupted(cause error) error {
	return fmt.Errorf("%w: %w", jetstream.ErrNoHeartbeat, errors.Join(errors.New("natsjs: interrupted"), cause))
}

// drain ends the subscription after what is on its way. What of it comes when ctx is done is
// given back, and otherwise delivered before what comes next.
func (d *Driver) drain(ctx context.Context, f *feed, sub *nats.Subscription) {
	if ctx.Err() != nil {
		f.giveBack()
	}
	ended := make(chan struct{})
	sub.SetClosedHandler(func(string) { close(ended) })
	if d.conn.Status() != nats.CONNECTED || sub.Drain() != nil {
		_ = sub.Unsubscribe()
		return
	}
	limit := time.NewTimer(drainLimit)
	defer limit.Stop()
	select {
	case <-ended:
	case <-limit.C:
		_ = sub.Unsubscribe()
	}
}
