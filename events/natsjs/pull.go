package natsjs

import (
	"context"
	"errors"
	"fmt"
	"strconv"
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
// nats-architecture-and-design). It is here instead of jetstream's Consume since that one
// keeps what it has prefetched where no sign of life can be given for it.
type puller struct {
	f       *feed
	trouble chan error

	mu    sync.Mutex
	asked int // messages that the server is to send
	heard time.Time
}

// pull has the server send messages to f until ctx is done, or something is wrong.
func (d *Driver) pull(ctx context.Context, f *feed, want jetstream.ConsumerConfig, prefetch int, began func()) error {
	if _, err := d.prepareConsumer(ctx, want); err != nil {
		return err
	}
	p := &puller{f: f, trouble: make(chan error, 1)}
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
	began()
	signs := time.NewTicker(f.ackWait / 3)
	defer signs.Stop()
	beats := time.NewTicker(heartbeat)
	defer beats.Stop()
	lost := d.publisher.lost()
	subject := "$JS.API.CONSUMER.MSG.NEXT." + d.c.Stream + "." + want.Durable
	for {
		if n := p.ask(prefetch); n > 0 {
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
		case <-signs.C:
			f.alive(ctx)
		case <-beats.C:
			if p.silent() {
				return errInterrupted(errors.New("natsjs: the server is silent"))
			}
		}
	}
}

// ask returns how many messages to ask for: nothing until there is room for half.
func (p *puller) ask(prefetch int) int {
	room := prefetch - p.f.waiting()
	p.mu.Lock()
	defer p.mu.Unlock()
	room -= p.asked
	if room <= 0 || 2*room < prefetch {
		return 0
	}
	if p.asked == 0 {
		p.heard = time.Now()
	}
	p.asked += room
	return room
}

// silent reports whether the server has forgotten what it was asked.
func (p *puller) silent() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked > 0 && time.Since(p.heard) > 2*heartbeat
}

// received gets messages, and what the server says about requests.
func (p *puller) received(m *nats.Msg) {
	status := m.Header.Get("Status")
	if len(m.Data) > 0 || status == "" {
		p.answered(1)
		p.f.got(m)
		return
	}
	description := m.Header.Get("Description")
	switch {
	case status == "100": // a heartbeat
		p.answered(0)
		return
	case status == "409" && description == "Leadership Change":
		p.mu.Lock()
		p.asked, p.heard = 0, time.Now()
		p.mu.Unlock()
	case status == "408", m.Header.Get("Nats-Pending-Messages") != "": // a request is over, with so many missing
		missing, _ := strconv.Atoi(m.Header.Get("Nats-Pending-Messages"))
		p.answered(missing)
	default: // among them Consumer Deleted, Server Shutdown
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
	}
}
