package natsjs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/loadlinehq/loadline/events"
)

// publisher sends messages and gathers what the server answers to each. It is here
// instead of jetstream's PublishMsgAsync since that one tries again by itself when nobody
// answers, behind messages that were sent later, and holds up who sends while answers to
// others are missing.
type publisher struct {
	conn   *nats.Conn
	prefix string // of where answers go, with the dot
	sub    *nats.Subscription
	// turn is held by who writes to the connection. A server that takes nothing blocks the
	// writer, not its caller, and the others wait for the turn as long as they want to.
	turn    chan struct{}
	writers sync.WaitGroup
	// maxPayload is the server's, as it was last seen.
	maxPayload atomic.Int64

	mu    sync.Mutex
	last  uint64
	calls map[uint64]*call
	gone  chan struct{} // closed when the connection is lost
}

// call is one exchange.
type call struct {
	answers chan answer // of one for each message
}

type answer struct {
	i   int
	err error
}

func newPublisher(conn *nats.Conn) (*publisher, error) {
	p := &publisher{conn: conn, prefix: conn.NewInbox() + ".", turn: make(chan struct{}, 1), calls: make(map[uint64]*call), gone: make(chan struct{})}
	var err error
	if p.sub, err = conn.Subscribe(p.prefix+"*", p.answered); err != nil {
		return nil, err
	}
	// Answers are bounded by what was sent.
	return p, p.sub.SetPendingLimits(-1, -1)
}

func (p *publisher) close() {
	p.connectionLost()
	_ = p.sub.Unsubscribe()
}

func (p *publisher) connectionLost() {
	p.mu.Lock()
	close(p.gone)
	p.gone = make(chan struct{})
	p.mu.Unlock()
}

// lost is closed when the connection is.
func (p *publisher) lost() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.gone
}

// answered gets the answer to one message.
func (p *publisher) answered(m *nats.Msg) {
	id, number, ok := strings.Cut(m.Subject[min(len(p.prefix), len(m.Subject)):], "-")
	if !ok {
		return
	}
	n, err1 := strconv.ParseUint(id, 36, 64)
	i, err2 := strconv.Atoi(number)
	if err1 != nil || err2 != nil {
		return
	}
	p.mu.Lock()
	c := p.calls[n]
	p.mu.Unlock()
	if c == nil {
		return // nobody waits any more
	}
	select {
	case c.answers <- answer{i, readAnswer(m)}:
	default: // a second answer to one message
	}
}

// readAnswer returns nil when the message is stored.
func readAnswer(m *nats.Msg) error {
	if len(m.Data) == 0 && m.Header.Get("Status") == "503" {
		return errNoResponders
	}
	var a struct {
		Stream string              `json:"stream"`
		Error  *jetstream.APIError `json:"error"`
	}
	if err := json.Unmarshal(m.Data, &a); err != nil {
		return fmt.Errorf("%w: the answer is not understood: %w", events.ErrUnavailable, err)
	}
	if a.Error != nil {
		return storeError(a.Error)
	}
	if a.Stream == "" {
		return fmt.Errorf("%w: the answer names no stream", events.ErrUnavailable)
	}
	return nil
}

var (
	errNoAnswer       = errors.New("natsjs: no answer came")
	errConnectionLost = errors.New("natsjs: the connection was lost before the answer came")
	errNotConnected   = errors.New("natsjs: not connected")
)

// exchange sends messages in their order and returns what the server says to each of
// those with want: nil is stored. Others have no answer. It returns when ctx is done at the
// latest.
func (p *publisher) exchange(ctx context.Context, messages []*nats.Msg, want func(i int) bool) []error {
	errs := make([]error, len(messages))
	waiting := make([]bool, len(messages))
	left := 0
	for i := range messages {
		if want == nil || want(i) {
			waiting[i] = true
			left++
		}
	}
	rest := func(cause error) []error {
		for i := range waiting {
			if waiting[i] {
				errs[i] = fmt.Errorf("%w: %w", events.ErrUnavailable, cause)
			}
		}
		return errs
	}
	c := &call{make(chan answer, 2*len(messages))} // of the server, and of the writer
	p.mu.Lock()
	gone := p.gone
	p.last++
	id := p.last
	p.calls[id] = c
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		delete(p.calls, id)
		p.mu.Unlock()
	}()
	select {
	case p.turn <- struct{}{}:
	case <-ctx.Done():
		return rest(fmt.Errorf("%w: others wait as well: %w", errNoAnswer, ctx.Err()))
	}
	reply := p.prefix + strconv.FormatUint(id, 36) + "-"
	p.writers.Go(func() {
		defer func() { <-p.turn }()
		// What asks the connection waits for who writes to it, and belongs here as well.
		connected := p.conn.Status() == nats.CONNECTED
		p.maxPayload.Store(p.conn.MaxPayload())
		for i, m := range messages {
			if ctx.Err() != nil {
				return // they have been told already
			}
			if want == nil || want(i) {
				m.Reply = reply + strconv.Itoa(i)
			}
			err := errNotConnected
			if connected {
				err = p.conn.PublishMsg(m)
			}
			if err != nil {
				select {
				case c.answers <- answer{i, sendError(err)}:
				default:
				}
			}
		}
	})
	take := func(a answer) {
		if a.i >= 0 && a.i < len(waiting) && waiting[a.i] {
			waiting[a.i], errs[a.i] = false, a.err
			left--
		}
	}
	for left > 0 {
		select {
		case a := <-c.answers:
			take(a)
			continue
		default:
		}
		select {
		case a := <-c.answers:
			take(a)
		case <-gone:
			return rest(errConnectionLost)
		case <-ctx.Done():
			return rest(fmt.Errorf("%w: %w", errNoAnswer, ctx.Err()))
		}
	}
	return errs
}
