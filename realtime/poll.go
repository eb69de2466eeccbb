package realtime

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/centrifugal/centrifuge"
)

// position is how far a client is in a channel. Without an epoch it begins now.
type position struct {
	Offset uint64 `json:"offset,omitempty"`
	Epoch  string `json:"epoch,omitempty"`
}

// pollRequest is what a poll sends.
type pollRequest struct {
	Token    string              `json:"token"`
	Channels map[string]position `json:"channels"`
	Wait     float64             `json:"wait"` // seconds; default Config.PollWait, which is the most, too
}

// pollAnswer is where the client is now. It comes at once for who has a channel without a position, and for who has missed something.
type pollAnswer struct {
	Channels map[string]*polled `json:"channels"`
	Denied   []string           `json:"denied,omitempty"`
}

type polled struct {
	position
	// Recovered: what is new since the client's position is all here. If not, it reads anew what the channel is about.
	Recovered    bool          `json:"recovered"`
	Publications []publication `json:"publications,omitempty"`
}

// publication is as the protocol of centrifuge has it.
type publication struct {
	Data   json.RawMessage   `json:"data"`
	Offset uint64            `json:"offset,omitempty"`
	Tags   map[string]string `json:"tags,omitempty"`
	Info   json.RawMessage   `json:"info,omitempty"`
}

// poll is one.
type poll struct {
	channels map[string]position
	denied   []string
}

func pollOf(ctx context.Context) *poll { return clientOf(ctx).poll }

// pollable says which channels a poll listens to.
func (g *Gateway) pollable(ctx context.Context, p *poll) (map[string]centrifuge.SubscribeOptions, error) {
	all := make(map[string]centrifuge.SubscribeOptions, len(p.channels))
	for text := range p.channels {
		options, err := g.admit(ctx, text)
		if errors.Is(err, centrifuge.ErrorInternal) {
			return nil, err
		}
		if err != nil || !options.EnableRecovery {
			p.denied = append(p.denied, text)
			continue
		}
		// It comes and goes with each poll.
		options.EmitPresence, options.EmitJoinLeave, options.PushJoinLeave = false, false, false
		all[text] = options
	}
	slices.Sort(p.denied)
	return all, nil
}

// poll answers where there is something new, or nothing was for long.
func (g *Gateway) poll(w http.ResponseWriter, r *http.Request) {
	var ask pollRequest
	if !g.read(w, r, &ask) {
		return
	}
	if len(ask.Channels) == 0 || len(ask.Channels) > g.c.MaxChannels {
		refuse(w, http.StatusBadRequest, "a poll has a channel, and not more than are allowed")
		return
	}
	// One that goes on is no handshake: it is one of as many as there are clients.
	goesOn := false
	for _, p := range ask.Channels {
		goesOn = goesOn || p.Epoch != ""
	}
	if (!goesOn || g.draining.Load()) && !g.room(w, r) {
		return
	}
	c, ok := g.known(w, r)
	if !ok {
		return
	}
	c.poll = &poll{channels: ask.Channels}
	t := newPollTransport(ask.Channels)
	connection, end, err := centrifuge.NewClient(withClient(r.Context(), c), g.node, t)
	if err != nil {
		refuse(w, http.StatusServiceUnavailable, "no connection")
		return
	}
	defer func() { _ = end() }()
	request := centrifuge.ConnectRequest{Token: ask.Token, Name: "poll", Subs: make(map[string]centrifuge.SubscribeRequest, len(ask.Channels))}
	for text, p := range ask.Channels {
		request.Subs[text] = centrifuge.SubscribeRequest{Recover: p.Epoch != "", Offset: p.Offset, Epoch: p.Epoch}
	}
	if err := connection.ConnectNoErrorToDisconnect(request); err != nil {
		g.refusePoll(w, err)
		return
	}
	if !goesOn {
		g.metrics.handshake(r.Context(), accepted)
	}
	unbounded(w)
	wait := g.c.PollWait
	if ask.Wait > 0 && ask.Wait < wait.Seconds() {
		wait = time.Duration(ask.Wait * float64(time.Second))
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-t.ready:
	case <-t.closed:
	case <-timer.C:
	case <-r.Context().Done():
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_ = json.NewEncoder(w).Encode(pollAnswer{Channels: t.answer(), Denied: c.poll.denied}) // the client has gone
}

// read decodes a body, or answers it.
func (g *Gateway) read(w http.ResponseWriter, r *http.Request, into any) bool {
	err := json.NewDecoder(http.MaxBytesReader(w, r.Body, int64(g.c.MaxMessageBytes))).Decode(into)
	if err != nil {
		refuse(w, http.StatusBadRequest, "the body is not the JSON that is expected, or too long")
	}
	return err == nil
}

func (g *Gateway) refusePoll(w http.ResponseWriter, err error) {
	var disconnect centrifuge.Disconnect
	switch {
	case errors.As(err, &disconnect) && disconnect.Code == centrifuge.DisconnectInvalidToken.Code:
		refuse(w, http.StatusUnauthorized, "not authenticated")
	case errors.Is(err, centrifuge.ErrorTokenExpired):
		refuse(w, http.StatusUnauthorized, "token expired")
	case errors.As(err, &disconnect) && disconnect.Code == centrifuge.DisconnectConnectionLimit.Code:
		w.Header().Set("Retry-After", "5")
		refuse(w, http.StatusTooManyRequests, "too many connections of one user")
	default:
		w.Header().Set("Retry-After", "2")
		refuse(w, http.StatusServiceUnavailable, "try again")
	}
}

// pollTransport collects what is written to a poll.
type pollTransport struct {
	ready  chan struct{} // closed when there is something to answer
	closed chan struct{}

	mu       sync.Mutex
	asked    map[string]position
	channels map[string]*polled
	isReady  bool
	isClosed bool
}

var _ centrifuge.Transport = (*pollTransport)(nil)

func newPollTransport(asked map[string]position) *pollTransport {
	return &pollTransport{ready: make(chan struct{}), closed: make(chan struct{}), asked: asked, channels: make(map[string]*polled)}
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
		Subs map[string]struct {
			position
			Recovered    bool          `json:"recovered"`
			Publications []publication `json:"publications"`
		} `json:"subs"`
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
		t.takeLocked(&p)
	}
	return nil
}

func (t *pollTransport) takeLocked(p *push) {
	switch {
	case p.Connect != nil:
		for text, s := range p.Connect.Subs {
			was := t.asked[text]
			here := &polled{position: s.position, Recovered: s.Recovered}
			t.channels[text] = here
			if was.Epoch == "" || !s.Recovered {
				t.readyLocked() // it is told where it is
			} else {
				here.position = was // of those that were brought, the last one says how far it is
			}
			for i := range s.Publications {
				t.addLocked(text, &s.Publications[i])
			}
			here.Epoch = s.Epoch
		}
		if len(t.channels) == 0 {
			t.readyLocked() // nothing of it is allowed
		}
	case p.Pub != nil:
		t.addLocked(p.Channel, p.Pub)
	case p.Unsubscribe != nil:
		delete(t.channels, p.Channel)
		t.readyLocked()
	}
}

// addLocked leaves out what the client has: the latest state is sent whether or not it does.
func (t *pollTransport) addLocked(text string, p *publication) {
	here := t.channels[text]
	if here == nil || p.Offset <= here.Offset && here.Recovered {
		return
	}
	here.Publications = append(here.Publications, *p)
	here.Offset = max(here.Offset, p.Offset)
	t.readyLocked()
}

func (t *pollTransport) readyLocked() {
	if !t.isReady {
		t.isReady = true
		close(t.ready)
	}
}

// Close implements [centrifuge.Transport].
func (t *pollTransport) Close(centrifuge.Disconnect) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.isClosed {
		t.isClosed = true
		close(t.closed)
	}
	return nil
}

// answer is what there is so far. What is written later, the next poll is brought from the history.
func (t *pollTransport) answer() map[string]*polled {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := t.channels
	t.channels = nil
	return all
}

// publishOnce is of clients that have no connection to publish by.
func (g *Gateway) publishOnce(w http.ResponseWriter, r *http.Request) {
	var ask struct {
		Token   string          `json:"token"`
		Channel string          `json:"channel"`
		Data    json.RawMessage `json:"data"`
	}
	if !g.read(w, r, &ask) || !g.room(w, r) {
		return
	}
	c, ok := g.known(w, r)
	if !ok {
		return
	}
	c, err := g.byToken(r.Context(), c, ask.Token)
	if err != nil {
		g.refusePoll(w, g.refusal(r.Context(), err))
		return
	}
	options, err := g.mayPublish(withClient(r.Context(), c), ask.Channel, ask.Data)
	switch {
	case errors.Is(err, centrifuge.ErrorPermissionDenied):
		refuse(w, http.StatusForbidden, "permission denied")
		return
	case errors.Is(err, centrifuge.ErrorBadRequest):
		refuse(w, http.StatusBadRequest, "the data is not JSON, or too long")
		return
	case err != nil:
		g.refusePoll(w, err)
		return
	}
	info := &centrifuge.ClientInfo{UserID: c.who.id(), ConnInfo: c.who.Info}
	if _, err = g.node.Publish(ask.Channel, ask.Data, centrifuge.WithHistory(options.HistorySize, options.HistoryTTL), centrifuge.WithClientInfo(info)); err != nil {
		g.log.WarnContext(r.Context(), "realtime: a client's publication was not made", "error", err)
		g.refusePoll(w, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}
