package realtime

import (
	"encoding/json"
	"maps"
	"sync"

	"github.com/centrifugal/centrifuge"
)

// pollTransport collects what is written to a poll: first where its channels are, and then what is published.
type pollTransport struct {
	connected chan struct{} // closed when it is known where channels are
	ready     chan struct{} // closed when there is something to answer
	closed    chan struct{}

	mu       sync.Mutex
	tops     map[string]position       // where channels were when the poll began to listen
	early    map[string][]*publication // what came before the client's place was known
	channels map[string]*polled
	isReady  bool
	isClosed bool
	ended    centrifuge.Disconnect
}

var _ centrifuge.Transport = (*pollTransport)(nil)

func newPollTransport() *pollTransport {
	return &pollTransport{
		connected: make(chan struct{}), ready: make(chan struct{}), closed: make(chan struct{}), early: make(map[string][]*publication), channels: make(map[string]*polled),
	}
}

func (t *pollTransport) Name() string                      { return "poll" }
func (t *pollTransport) AcceptProtocol() string            { return "" }
func (t *pollTransport) Protocol() centrifuge.ProtocolType { return centrifuge.ProtocolTypeJSON }

func (t *pollTransport) ProtocolVersion() centrifuge.ProtocolVersion {
	return centrifuge.ProtocolVersion2
}
func (t *pollTransport) Unidirectional() bool      { return true }
func (t *pollTransport) Emulation() bool           { return false }
func (t *pollTransport) DisabledPushFlags() uint64 { return centrifuge.PushFlagDisconnect }

func (t *pollTransport) PingPongConfig() centrifuge.PingPongConfig {
	return centrifuge.PingPongConfig{PingInterval: -1, PongTimeout: -1}
}

func (t *pollTransport) Write(b []byte) error { return t.WriteMany(b) }

// push is what a unidirectional client is sent.
type push struct {
	Channel string       `json:"channel"`
	Pub     *publication `json:"pub"`
	Connect *struct {
		Subs map[string]position `json:"subs"`
	} `json:"connect"`
	Unsubscribe *struct{} `json:"unsubscribe"`
}

// WriteMany implements [centrifuge.Transport].
func (t *pollTransport) WriteMany(messages ...[]byte) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, message := range messages {
		var p push
		if err := json.Unmarshal(message, &p); err != nil {
			return err
		}
		switch {
		case p.Connect != nil && t.tops == nil:
			t.tops = p.Connect.Subs
			if t.tops == nil {
				t.tops = make(map[string]position)
			}
			close(t.connected)
		case p.Pub != nil:
			t.addLocked(p.Channel, p.Pub)
		case p.Unsubscribe != nil:
			delete(t.channels, p.Channel)
			t.readyLocked()
		}
	}
	return nil
}

// places are where channels were when the poll began to listen.
func (t *pollTransport) places() map[string]position {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Clone(t.tops)
}

// place says where the client is in a channel.
func (t *pollTransport) place(text string, here polled, ready bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.channels[text] = &here
	for _, p := range t.early[text] {
		t.addLocked(text, p)
	}
	delete(t.early, text)
	if ready {
		t.readyLocked()
	}
}

// nothing of what was asked for is allowed.
func (t *pollTransport) nothing() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.readyLocked()
}

// addLocked leaves out what the client has, and what would leave a gap: the next poll is brought that.
func (t *pollTransport) addLocked(text string, p *publication) {
	here := t.channels[text]
	if here == nil {
		t.early[text] = append(t.early[text], p)
		return
	}
	if p.Offset != here.Offset+1 {
		return
	}
	here.Publications, here.Offset = append(here.Publications, *p), p.Offset
	t.readyLocked()
}

func (t *pollTransport) readyLocked() {
	if !t.isReady {
		t.isReady = true
		close(t.ready)
	}
}

// Close implements [centrifuge.Transport].
func (t *pollTransport) Close(d centrifuge.Disconnect) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.isClosed {
		t.isClosed, t.ended = true, d
		close(t.closed)
	}
	return nil
}

// answer is what there is so far, and why the connection has ended, if it has. What is written later, the next poll is brought from the history.
func (t *pollTransport) answer() (all map[string]*polled, ended centrifuge.Disconnect) {
	t.mu.Lock()
	defer t.mu.Unlock()
	all, t.channels = t.channels, make(map[string]*polled)
	return all, t.ended
}
