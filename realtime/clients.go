package realtime

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/centrifugal/centrifuge"
	"golang.org/x/time/rate"

	"github.com/loadlinehq/loadline/tenancy"
)

const (
	// maxAsking bounds the permissions of a connection that are asked beside each other.
	maxAsking = 8
	// A client that cannot be authenticated again is tried so often, so far apart.
	maxUnsure = 10
	unsureFor = 30 * time.Second
)

// handle answers what clients do.
func (g *Gateway) handle() {
	g.node.OnCommandRead(func(c *centrifuge.Client, e centrifuge.CommandReadEvent) error {
		who := clientOf(c.Context())
		if who.commands != nil && !who.commands.Allow() {
			return centrifuge.DisconnectTooManyRequests
		}
		if s := e.Command.Subscribe; s != nil {
			who.comesBack.Store(nil)
			if s.Recover {
				who.comesBack.Store(&position{Offset: s.Offset, Epoch: s.Epoch}) // for OnSubscribe, which comes next
			}
		}
		return nil
	})
	g.node.OnConnecting(g.connecting)
	g.node.OnConnect(g.connected)
}

func (g *Gateway) connecting(ctx context.Context, e centrifuge.ConnectEvent) (centrifuge.ConnectReply, error) {
	c, err := g.byToken(ctx, clientOf(ctx), e.Token)
	if err != nil {
		outcome := failed
		if errors.Is(err, ErrUnauthenticated) || errors.Is(err, ErrExpired) {
			outcome = stranger
		}
		g.metrics.handshake(ctx, outcome)
		return centrifuge.ConnectReply{}, g.refusal(ctx, err)
	}
	ctx = withClient(ctx, c)
	reply := centrifuge.ConnectReply{
		Context:     ctx,
		Credentials: &centrifuge.Credentials{UserID: c.who.id(), ExpireAt: c.who.expireAt(time.Now()), Info: c.who.Info},
		// Who has shown a token has to show the next one.
		ClientSideRefresh: !c.known,
		// What is brought to who comes back may be more than MaxQueueBytes, which is for those who do not read. The other transports would wait for
		// themselves: they read commands where they write answers. See fits.
		ReplyWithoutQueue: e.Transport.Name() == "websocket",
	}
	if !g.c.Keys.IsZero() {
		reply.Data = []byte(`{"tokens":true}`) // the module asks for the latest one
	}
	if p := c.poll; p != nil {
		if !g.asks(c, p.cost()) {
			return reply, centrifuge.ErrorTooManyRequests
		}
		reply.Credentials.ExpireAt = 0 // it is asked with each poll
		reply.Subscriptions = g.pollable(ctx, p)
	} else { // those of polls are counted where they begin
		g.metrics.handshake(ctx, accepted)
	}
	return reply, nil
}

// asks reports whether who has no connection may ask for so much.
func (g *Gateway) asks(c *client, n int) bool {
	key := c.who.id()
	if key == "" && g.c.Address != nil {
		key = "@" + c.address // no user's
	}
	if key == "" {
		return true
	}
	l, _ := g.askers.ComputeIfAbsent(key, func() (*rate.Limiter, bool) { return g.commands(), false })
	return l == nil || l.AllowN(time.Now(), n)
}

// refusal is what a client hears that is not let in.
func (g *Gateway) refusal(ctx context.Context, err error) error {
	switch {
	case errors.Is(err, ErrExpired):
		return centrifuge.ErrorTokenExpired
	case errors.Is(err, ErrUnauthenticated):
		return centrifuge.DisconnectInvalidToken
	}
	g.log.WarnContext(ctx, "realtime: a client could not be authenticated", "error", err)
	return centrifuge.ErrorInternal
}

func (g *Gateway) connected(c *centrifuge.Client) {
	transport := c.Transport().Name()
	g.metrics.connected(transport, 1)
	c.OnDisconnect(func(e centrifuge.DisconnectEvent) {
		g.metrics.connected(transport, -1)
		g.metrics.disconnected(e.Code)
	})
	if pollOf(c.Context()) != nil {
		return // it has no other commands
	}
	var asking atomic.Int64
	var brought recently
	c.OnSubscribe(func(e centrifuge.SubscribeEvent, answer centrifuge.SubscribeCallback) {
		if e.Type != centrifuge.SubscriptionTypeStream {
			answer(centrifuge.SubscribeReply{}, centrifuge.ErrorNotAvailable)
			return
		}
		was := clientOf(c.Context()).comesBack.Load()
		ask := func() {
			options, err := g.admit(c.Context(), e.Channel)
			if err == nil && options.EnableRecovery && was != nil && transport != "websocket" && !g.fits(&brought, e.Channel, *was) {
				options.EnableRecovery = false // it is told to read anew
			}
			answer(centrifuge.SubscribeReply{Options: options}, err)
		}
		// A permission that takes long holds up neither signs of life nor other channels, unless there are many.
		if asking.Add(1) > maxAsking {
			asking.Add(-1)
			ask()
			return
		}
		go func() {
			defer asking.Add(-1)
			ask()
		}()
	})
	c.OnPublish(func(e centrifuge.PublishEvent, answer centrifuge.PublishCallback) {
		result, err := g.publishBy(c.Context(), *e.ClientInfo, e.Channel, e.Data)
		answer(centrifuge.PublishReply{Result: &result}, err)
	})
	c.OnPresence(func(e centrifuge.PresenceEvent, answer centrifuge.PresenceCallback) {
		answer(centrifuge.PresenceReply{}, g.mayAsk(c, e.Channel, func(n Namespace) bool { return n.Presence }))
	})
	c.OnPresenceStats(func(e centrifuge.PresenceStatsEvent, answer centrifuge.PresenceStatsCallback) {
		answer(centrifuge.PresenceStatsReply{}, g.mayAsk(c, e.Channel, func(n Namespace) bool { return n.Presence }))
	})
	c.OnHistory(func(e centrifuge.HistoryEvent, answer centrifuge.HistoryCallback) {
		answer(centrifuge.HistoryReply{}, g.mayAsk(c, e.Channel, func(n Namespace) bool { return n.History > 0 }))
	})
	c.OnRefresh(func(e centrifuge.RefreshEvent, answer centrifuge.RefreshCallback) { answer(g.refresh(c.Context(), e)) })
}

// refresh knows a client once more.
func (g *Gateway) refresh(ctx context.Context, e centrifuge.RefreshEvent) (centrifuge.RefreshReply, error) {
	c := clientOf(ctx)
	var who Identity
	var err error
	switch {
	case e.ClientSideRefresh && g.c.Token != nil:
		who, err = g.c.Token(ctx, e.Token)
	case c.again != nil:
		who, err = g.c.Authenticate(c.again.WithContext(ctx))
	default:
		err = ErrUnauthenticated
	}
	if err == nil && !who.same(c.who) {
		err = ErrUnauthenticated // what it listens to was allowed to another
	}
	switch {
	case err == nil:
		c.unsure.Store(0)
		return centrifuge.RefreshReply{ExpireAt: who.expireAt(time.Now())}, nil
	case errors.Is(err, ErrUnauthenticated), errors.Is(err, ErrExpired):
		return centrifuge.RefreshReply{Expired: true}, nil
	}
	g.log.WarnContext(ctx, "realtime: a client could not be authenticated again", "error", err)
	if c.unsure.Add(1) > maxUnsure {
		return centrifuge.RefreshReply{Expired: true}, nil
	}
	// It was known before, and newcomers are not let in: who is there stays for a while.
	return centrifuge.RefreshReply{ExpireAt: time.Now().Add(unsureFor).Unix()}, nil
}

// admit says how a client listens to a channel, or that it does not. Who is not allowed learns nothing of the channel.
func (g *Gateway) admit(ctx context.Context, text string) (centrifuge.SubscribeOptions, error) {
	channel, n, err := g.channel(ctx, text)
	if err == nil {
		err = g.permit(ctx, n.Subscribe, channel)
	}
	if err != nil {
		return centrifuge.SubscribeOptions{}, err
	}
	if n.MaxSubscribers > 0 && g.node.Hub().NumSubscribers(text) >= n.MaxSubscribers {
		return centrifuge.SubscribeOptions{}, centrifuge.ErrorLimitExceeded
	}
	options := centrifuge.SubscribeOptions{
		EnableRecovery: n.History > 0, EnablePositioning: n.History > 0,
		EmitPresence: n.Presence, EmitJoinLeave: n.JoinLeave, PushJoinLeave: n.JoinLeave,
	}
	if n.State {
		options.RecoveryMode, options.AutoCacheRecover = centrifuge.RecoveryModeCache, true
	}
	return options, nil
}

// fits reports whether what a client has missed in a channel can be brought through its queue, beside that of its other channels. A client that is cut off
// for it would come back for the same.
func (g *Gateway) fits(brought *recently, text string, was position) bool {
	channel, _ := ParseChannel(text)
	if g.c.Namespaces[channel.Namespace].State {
		return brought.add(g.c.MaxMessageBytes, g.c.MaxQueueBytes/2) // the latest one alone
	}
	size := 0
	for size < g.c.MaxQueueBytes/2 {
		since := centrifuge.StreamPosition{Offset: was.Offset, Epoch: was.Epoch}
		h, err := g.node.History(text, centrifuge.WithHistoryFilter(centrifuge.HistoryFilter{Since: &since, Limit: fitStep}))
		if err != nil {
			return true // nothing can be brought
		}
		for _, p := range h.Publications {
			size += len(p.Data) + 256 // its place, tags and sender
			was.Offset = p.Offset
		}
		if len(h.Publications) < fitStep {
			break
		}
	}
	return brought.add(size, g.c.MaxQueueBytes/2)
}

const (
	// fitStep bounds what is read of a history to see whether it fits.
	fitStep = 50
	// fitFor is how long a queue takes to be read: a guess.
	fitFor = 5 * time.Second
)

// recently is what a client was brought of late, in bytes.
type recently struct {
	mu    sync.Mutex
	since time.Time
	size  int
}

func (r *recently) add(size, limit int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now := time.Now(); now.Sub(r.since) > fitFor {
		r.since, r.size = now, 0
	}
	if r.size+size > limit {
		return false
	}
	r.size += size
	return true
}

// channel returns a channel of the client's tenant.
func (g *Gateway) channel(ctx context.Context, text string) (Channel, Namespace, error) {
	channel, err := ParseChannel(text)
	n, ok := g.c.Namespaces[channel.Namespace]
	if err != nil || !ok || channel.Tenant != clientOf(ctx).who.Tenant {
		return channel, n, centrifuge.ErrorPermissionDenied
	}
	return channel, n, nil
}

// permit asks a permission.
func (g *Gateway) permit(ctx context.Context, may Permission, c Channel) error {
	if may == nil {
		return centrifuge.ErrorPermissionDenied
	}
	ctx, cancel := context.WithTimeout(ctx, PermissionTimeout)
	defer cancel()
	if c.Tenant != "" {
		var err error
		if ctx, err = tenancy.With(ctx, c.Tenant); err != nil {
			return centrifuge.ErrorPermissionDenied
		}
	}
	switch err := may(ctx, clientOf(ctx).who, c); {
	case err == nil:
		return nil
	case errors.Is(err, ErrForbidden):
		return centrifuge.ErrorPermissionDenied
	default:
		g.log.WarnContext(ctx, "realtime: a permission could not be asked", "namespace", c.Namespace, "error", err)
		return centrifuge.ErrorInternal
	}
}

// publishBy publishes what a client sends, if it may.
func (g *Gateway) publishBy(ctx context.Context, who centrifuge.ClientInfo, text string, data []byte) (result centrifuge.PublishResult, err error) {
	channel, n, err := g.channel(ctx, text)
	if err == nil {
		err = g.permit(ctx, n.Publish, channel)
	}
	if err != nil {
		return result, err
	}
	// A client of the binary protocol may send anything, and what is no JSON breaks the messages of all others.
	if !json.Valid(data) || len(data) > g.c.MaxMessageBytes {
		return result, centrifuge.ErrorBadRequest
	}
	if !n.Presence && !n.JoinLeave {
		who.ConnInfo = nil // it is for those who see who is there
	}
	result, err = g.node.Publish(text, data, centrifuge.WithHistory(n.History, n.HistoryAge), centrifuge.WithClientInfo(&who))
	g.metrics.published(ctx, channel.Namespace, time.Time{}, result, false, err)
	if err != nil {
		g.log.WarnContext(ctx, "realtime: a client's publication was not made", "namespace", channel.Namespace, "error", err)
	}
	return result, err
}

// mayAsk is of what those are told that listen.
func (g *Gateway) mayAsk(c *centrifuge.Client, text string, has func(Namespace) bool) error {
	_, n, err := g.channel(c.Context(), text)
	if err == nil && (!has(n) || !c.IsSubscribed(text)) {
		err = centrifuge.ErrorPermissionDenied
	}
	return err
}
