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
	"golang.org/x/sync/errgroup"
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
	// Denied are channels that are not for this client, and Later those of which that cannot be said now, or that are full.
	Denied []string `json:"denied,omitempty"`
	Later  []string `json:"later,omitempty"`
}

type polled struct {
	position
	// Recovered: what is new since the client's position is here, or will be by the next polls. If not, it reads anew what the channel is about.
	Recovered    bool          `json:"recovered"`
	Publications []publication `json:"publications,omitempty"`
	// Token is that of the latest publication, for who reads anew.
	Token string `json:"token,omitempty"`
}

// publication is as the protocol of centrifuge has it.
type publication struct {
	Data   json.RawMessage   `json:"data"`
	Offset uint64            `json:"offset,omitempty"`
	Tags   map[string]string `json:"tags,omitempty"`
	Info   json.RawMessage   `json:"info,omitempty"`
}

// maxAnswer bounds the publications of one answer, in bytes, but for the last of them. The next poll is brought the rest.
const maxAnswer = 1 << 20

// poll is one.
type poll struct {
	channels map[string]position

	mu            sync.Mutex
	denied, later []string
}

func pollOf(ctx context.Context) *poll { return clientOf(ctx).poll }

// cost is in commands: what begins to listen costs as much as it does by a connection.
func (p *poll) cost() int {
	n := 1
	for _, at := range p.channels {
		if at.Epoch == "" {
			n++
		}
	}
	return n
}

// pollable says which channels a poll listens to.
func (g *Gateway) pollable(ctx context.Context, p *poll) map[string]centrifuge.SubscribeOptions {
	all := make(map[string]centrifuge.SubscribeOptions, len(p.channels))
	var asking errgroup.Group
	asking.SetLimit(maxAsking)
	for text := range p.channels {
		asking.Go(func() error {
			options, err := g.admit(ctx, text)
			p.mu.Lock()
			defer p.mu.Unlock()
			switch {
			case errors.Is(err, centrifuge.ErrorInternal), errors.Is(err, centrifuge.ErrorLimitExceeded):
				p.later = append(p.later, text)
			case err != nil || !options.EnableRecovery:
				p.denied = append(p.denied, text)
			default:
				// It comes and goes with each poll, and is brought what it has missed by the poll itself.
				all[text] = centrifuge.SubscribeOptions{EnableRecovery: true}
			}
			return nil
		})
	}
	_ = asking.Wait() // nil
	slices.Sort(p.denied)
	slices.Sort(p.later)
	return all
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
	if !g.room(w, r, !goesOn) {
		return
	}
	c, ok := g.known(w, r)
	if !ok {
		return
	}
	c.poll = &poll{channels: ask.Channels}
	t := newPollTransport()
	connection, end, err := centrifuge.NewClient(withClient(r.Context(), c), g.node, t)
	if err != nil {
		refuse(w, http.StatusServiceUnavailable, "no connection")
		return
	}
	defer func() { _ = end() }()
	request := centrifuge.ConnectRequest{Token: ask.Token, Name: "poll", Subs: make(map[string]centrifuge.SubscribeRequest, len(ask.Channels))}
	for text := range ask.Channels {
		request.Subs[text] = centrifuge.SubscribeRequest{}
	}
	if err := connection.ConnectNoErrorToDisconnect(request); err != nil {
		refusePoll(w, err)
		return
	}
	if !goesOn {
		g.metrics.handshake(r.Context(), accepted)
	}
	select { // it is sent where its channels are
	case <-t.connected:
	case <-t.closed:
	case <-r.Context().Done():
		return
	}
	if err := g.bring(t, c.poll); err != nil {
		g.log.WarnContext(r.Context(), "realtime: the history could not be asked for", "error", err)
		refusePoll(w, centrifuge.ErrorInternal)
		return
	}
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
	channels, ended := t.answer()
	if ended.Code >= 3500 && ended.Code < 4000 { // it may not come back
		refuse(w, http.StatusUnauthorized, ended.Reason)
		return
	}
	lost := 0
	for text, here := range channels {
		if ask.Channels[text].Epoch != "" && !here.Recovered {
			lost++ // it was asked for as if it went on
		}
	}
	g.asks(clientOf(connection.Context()), lost)
	g.metrics.pollsLost.Add(int64(lost))
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTimeout))                          // which net/http takes off after the request
	_ = json.NewEncoder(w).Encode(pollAnswer{Channels: channels, Denied: c.poll.denied, Later: c.poll.later}) // the client has gone
}

// bring adds what a client has missed between two polls, and the latest state.
func (g *Gateway) bring(t *pollTransport, p *poll) error {
	room := maxAnswer
	for text, top := range t.places() {
		channel, _ := ParseChannel(text)
		n, was := g.c.Namespaces[channel.Namespace], p.channels[text]
		same := was.Epoch == top.Epoch && was.Offset <= top.Offset
		switch {
		case same && was.Offset == top.Offset:
			t.place(text, polled{position: was, Recovered: true}, false)
		case same && !n.State:
			h, err := g.node.History(text, centrifuge.WithHistoryFilter(centrifuge.HistoryFilter{Since: &centrifuge.StreamPosition{Offset: was.Offset, Epoch: was.Epoch}, Limit: maxAsked}))
			if err != nil && !errors.Is(err, centrifuge.ErrorUnrecoverablePosition) {
				return err
			}
			if err == nil && len(h.Publications) > 0 && h.Publications[0].Offset == was.Offset+1 && h.Epoch == was.Epoch {
				here := polled{position: was, Recovered: true}
				for _, q := range h.Publications {
					if room <= 0 {
						break
					}
					room -= len(q.Data)
					here.Publications = append(here.Publications, toPublication(q))
					here.Offset = q.Offset
				}
				t.place(text, here, true)
				continue
			}
			fallthrough
		default:
			here := polled{position: top}
			h, err := g.node.History(text, centrifuge.WithHistoryFilter(centrifuge.HistoryFilter{Limit: 1, Reverse: true}))
			if err != nil {
				return err
			}
			if len(h.Publications) > 0 {
				latest := h.Publications[0]
				here.Token = latest.Tags[TagToken]
				if n.State && latest.Offset >= top.Offset {
					here.Publications, here.Offset, here.Recovered = []publication{toPublication(latest)}, latest.Offset, was.Epoch != ""
				}
			}
			t.place(text, here, true)
		}
	}
	if len(t.places()) == 0 {
		t.nothing()
	}
	return nil
}

func toPublication(p *centrifuge.Publication) publication {
	q := publication{Data: p.Data, Offset: p.Offset, Tags: p.Tags}
	if p.Info != nil {
		q.Info, _ = json.Marshal(struct { // as the protocol has it
			User     string          `json:"user"`
			Client   string          `json:"client"`
			ConnInfo json.RawMessage `json:"conn_info,omitempty"`
		}{p.Info.UserID, p.Info.ClientID, p.Info.ConnInfo})
	}
	return q
}

// read decodes a body, or answers it.
func (g *Gateway) read(w http.ResponseWriter, r *http.Request, into any) bool {
	body, ok := g.body(w, r)
	if !ok {
		return false
	}
	unbounded(w)
	err := json.Unmarshal(body, into)
	if err != nil {
		refuse(w, http.StatusBadRequest, "the body is not the JSON that is expected")
	}
	return err == nil
}

func refusePoll(w http.ResponseWriter, err error) {
	var disconnect centrifuge.Disconnect
	switch {
	case errors.As(err, &disconnect) && disconnect.Code == centrifuge.DisconnectInvalidToken.Code:
		refuse(w, http.StatusUnauthorized, "not authenticated")
	case errors.Is(err, centrifuge.ErrorTokenExpired):
		refuse(w, http.StatusUnauthorized, expired)
	case errors.As(err, &disconnect) && disconnect.Code == centrifuge.DisconnectConnectionLimit.Code:
		w.Header().Set("Retry-After", "5")
		refuse(w, http.StatusTooManyRequests, "too many connections of one user")
	case errors.Is(err, centrifuge.ErrorTooManyRequests):
		w.Header().Set("Retry-After", "2")
		refuse(w, http.StatusTooManyRequests, "too many requests")
	default:
		w.Header().Set("Retry-After", "2")
		refuse(w, http.StatusServiceUnavailable, "try again")
	}
}

// publishOnce is of clients that have no connection to publish by.
func (g *Gateway) publishOnce(w http.ResponseWriter, r *http.Request) {
	var ask struct {
		Token   string          `json:"token"`
		Channel string          `json:"channel"`
		Data    json.RawMessage `json:"data"`
	}
	if !g.read(w, r, &ask) {
		return
	}
	if g.draining.Load() {
		g.full(w, r, leaving)
		return
	}
	c, ok := g.known(w, r)
	if !ok {
		return
	}
	c, err := g.byToken(r.Context(), c, ask.Token)
	if err != nil {
		refusePoll(w, g.refusal(r.Context(), err))
		return
	}
	if !g.asks(c, 1) {
		refusePoll(w, centrifuge.ErrorTooManyRequests)
		return
	}
	who := centrifuge.ClientInfo{UserID: c.who.id(), ConnInfo: c.who.Info}
	switch _, err := g.publishBy(withClient(r.Context(), c), who, ask.Channel, ask.Data); {
	case err == nil:
		w.WriteHeader(http.StatusNoContent)
	case errors.Is(err, centrifuge.ErrorPermissionDenied):
		refuse(w, http.StatusForbidden, "permission denied")
	case errors.Is(err, centrifuge.ErrorBadRequest):
		refuse(w, http.StatusBadRequest, "the data is not JSON, or too long")
	default:
		refusePoll(w, err)
	}
}
