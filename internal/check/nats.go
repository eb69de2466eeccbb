package check

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// broker is what NATS has said of itself.
type broker struct {
	version, cluster string
	took             time.Duration
	account          *jetstream.AccountInfo
	streams          map[string]*jetstream.StreamInfo // those that there are
}

// dialer ends its connections with ctx, which nats.go does not know.
type dialer struct{ ctx context.Context }

func (d dialer) Dial(network, address string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(d.ctx, network, address)
	return endWith(d.ctx, conn, err)
}

func checkNATS(ctx context.Context, c Config, s *Server) {
	servers := strings.Split(c.NATS, ",")
	var shown []string
	for i, server := range servers {
		servers[i] = strings.TrimSpace(server)
		u, err := url.Parse(servers[i])
		if err != nil || u.Host == "" {
			s.add("reachable", Failed, "the URL is not understood", "it is like nats://user:password@127.0.0.1:4222")
			return
		}
		shown = append(shown, u.Host)
	}
	s.Address = strings.Join(shown, ",")
	redacted := make([]string, len(servers))
	for i, server := range servers {
		redacted[i] = c.Redact(server)
	}
	s.ByHand = natsCommand(strings.Join(redacted, ","), c.NATSFlags)

	began := time.Now()
	options := append([]nats.Option{
		nats.Name("loadline check"), nats.NoReconnect(), nats.SetCustomDialer(dialer{ctx}),
		nats.Timeout(c.Timeout / time.Duration(len(servers))), // so that there is time for the next
	}, c.NATSOptions...)
	conn, err := nats.Connect(strings.Join(servers, ","), options...)
	if err != nil {
		if silent(err) && ctx.Err() == nil {
			<-ctx.Done() // by the other's clock
		}
		s.unreachable(ctx, c, err)
		return
	}
	defer conn.Close()
	b := broker{version: conn.ConnectedServerVersion(), cluster: conn.ConnectedClusterName(), took: time.Since(began)}
	s.add("reachable", OK, fmt.Sprintf("NATS %s, connected in %v", b.version, b.took.Round(time.Millisecond)), "")
	js, err := jetstream.New(conn)
	if err == nil {
		b.account, err = js.AccountInfo(ctx)
	}
	switch {
	case errors.Is(err, jetstream.ErrJetStreamNotEnabled), errors.Is(err, nats.ErrNoResponders):
		s.add("jetstream", Failed, "the server has no JetStream", "start it with -js, or with a section jetstream in its configuration")
		return
	case errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount):
		s.add("jetstream", Failed, "JetStream is not enabled for this user's account", "give the account limits for JetStream")
		return
	case err != nil:
		found, do := explain(ctx, err)
		s.add("jetstream", Failed, "it does not answer: "+c.Redact(found), do)
		return
	}
	if err := b.askStreams(ctx, js, c.Streams); err != nil {
		found, do := explain(ctx, err)
		s.add("streams", Failed, "they cannot be looked at: "+c.Redact(found), do)
		return
	}
	b.judge(s, c.Streams)
}

// silent reports whether a server took too long.
func silent(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout() || errors.Is(err, nats.ErrTimeout)
}

func (b *broker) askStreams(ctx context.Context, js jetstream.JetStream, wanted []Stream) error {
	b.streams = make(map[string]*jetstream.StreamInfo)
	for _, want := range wanted {
		stream, err := js.Stream(ctx, want.Name)
		switch {
		case errors.Is(err, jetstream.ErrStreamNotFound):
		case err != nil:
			return err
		default:
			b.streams[want.Name] = stream.CachedInfo()
		}
	}
	return nil
}

func (b *broker) judge(s *Server, wanted []Stream) {
	where := "a single server"
	if b.cluster != "" {
		where = "cluster " + b.cluster
	}
	s.add("jetstream", OK, "enabled, on "+where, "")
	b.judgeAccount(s)
	var missing []string
	var need int64
	for _, want := range wanted {
		if info := b.streams[want.Name]; info != nil {
			judgeStream(s, info, b.cluster != "")
			continue
		}
		missing = append(missing, want.Name)
		need += want.MaxBytes
	}
	if len(missing) == 0 {
		return
	}
	found := fmt.Sprintf("not there: %s; they will set aside %s", strings.Join(missing, ", "), size(need))
	limits := b.account.Limits
	tiered := len(b.account.Tiers) > 0 // then the account's own limits say nothing
	if room := limits.MaxStore - max(int64(b.account.ReservedStore), int64(b.account.Store)); !tiered && limits.MaxStore >= 0 && need > room {
		s.add("streams", Failed, fmt.Sprintf("%s, and the account has %s", found, size(max(room, 0))), "raise the account's limit, or lower nats.maxBytes")
		return
	}
	if !tiered && limits.MaxStreams >= 0 && b.account.Streams+len(missing) > limits.MaxStreams {
		s.add("streams", Failed, fmt.Sprintf("%s, and the account may have %d streams", found, limits.MaxStreams), "raise the account's limit of streams")
		return
	}
	s.add("streams", Warning, found, "the application, or loadline events relay, makes them at its first start; before that, nothing is wrong")
}

func (b *broker) judgeAccount(s *Server) {
	limits, a := b.account.Limits, b.account
	if len(a.Tiers) > 0 {
		s.add("account", Note, fmt.Sprintf("disk %s, %d streams; its limits are by number of replicas, and were not compared", size(int64(a.Store)), a.Streams), "look at: nats account info")
		return
	}
	var parts []string
	near := false
	count := func(name string, used, bound int64, text func(int64) string) {
		if bound < 0 {
			parts = append(parts, fmt.Sprintf("%s %s, no limit", name, text(used)))
			return
		}
		parts = append(parts, fmt.Sprintf("%s %s of %s", name, text(used), text(bound)))
		near = near || bound > 0 && float64(used) >= full*float64(bound)
	}
	number := func(n int64) string { return fmt.Sprint(n) }
	count("disk", max(int64(a.Store), int64(a.ReservedStore)), limits.MaxStore, size)
	count("memory", max(int64(a.Memory), int64(a.ReservedMemory)), limits.MaxMemory, size)
	count("streams", int64(a.Streams), int64(limits.MaxStreams), number)
	count("consumers", int64(a.Consumers), int64(limits.MaxConsumers), number)
	found := strings.Join(parts, "; ")
	if near {
		s.add("account", Warning, found, "raise the account's limits before they are reached: then streams and consumers are refused")
		return
	}
	s.add("account", OK, found, "")
}

func judgeStream(s *Server, info *jetstream.StreamInfo, clustered bool) {
	c, state := info.Config, info.State
	check := "stream " + c.Name
	found := fmt.Sprintf("%d messages, %s", state.Msgs, size(int64(state.Bytes)))
	near := false
	if c.MaxBytes > 0 {
		found += " of " + size(c.MaxBytes)
		near = float64(state.Bytes) >= full*float64(c.MaxBytes)
	}
	if c.MaxMsgs > 0 {
		found += fmt.Sprintf(", at most %d messages", c.MaxMsgs)
		near = near || float64(state.Msgs) >= full*float64(c.MaxMsgs)
	}
	found += fmt.Sprintf(", for %v, %d %s", c.MaxAge, c.Replicas, plural(c.Replicas, "replica"))
	switch {
	case c.Storage != jetstream.FileStorage:
		s.add(check, Warning, found+"; it is in memory, and ends with the server", "make it anew with file storage")
	case near && c.Discard == jetstream.DiscardNew:
		s.add(check, Warning, found+": at its bound publishing is refused", "look which group is behind; raise the bound, or delete what nobody needs")
	case clustered && c.Replicas < 2:
		s.add(check, Warning, found+": it is away when its server is", "update it to 3 replicas")
	default:
		s.add(check, OK, found, "")
	}
}
