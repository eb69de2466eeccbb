package realtime

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/centrifugal/centrifuge"

	"github.com/loadlinehq/loadline/causal"
)

// ErrPublication is the error of a publication that can never be made.
var ErrPublication = errors.New("realtime: not a publication")

// What a publication has beside its data: the tags of the same names, as browsers see them.
const (
	// TagToken has the token: with it in the header that causal.HeaderName names, a read sees what the publication tells of.
	TagToken = "token"
	// TagLate is there when the publication has no data, since it is no news any more: something has changed, and is to be read anew.
	TagLate = "late"
)

// Publication is what is told to those who listen to a channel.
type Publication struct {
	Channel Channel
	// Data is sent as JSON. A json.RawMessage is sent as it is. For what is large, send what has changed, and let clients read it.
	Data any
	// ID is that of what is told, such as an event's: a second publication of the same in the channel is none. It is remembered one and
	// a half times Config.Late. Default: each is one.
	ID string
	// At is when it happened. What is older than Config.Late is not told as news: the publication has [TagLate], and no data. So an event
	// that is handled late, or twice, is neither missed nor shown for what it is not. Default now.
	At time.Time
	// Version, of a namespace with State, is that of the state: what has a lower one than the latest, or the same, is dropped, unless it has
	// another Epoch. Default 0: no version.
	Version uint64
	Epoch   string
	// Token is what its readers should have seen. Default that of the context's session.
	Token causal.Token
}

// Publish tells a publication to all who listen, at all gateways, and keeps it for who comes back. An error other than [ErrPublication],
// [ErrChannel] or of ctx says that Redis is away: nobody may have heard it, or everybody, so that who tries again gives an ID. It takes
// some seconds at most.
func (g *Gateway) Publish(ctx context.Context, p Publication) error {
	if err := p.Channel.check(); err != nil {
		return err
	}
	n, ok := g.c.Namespaces[p.Channel.Namespace]
	if !ok {
		return fmt.Errorf("%w: there is no namespace %s", ErrChannel, p.Channel.Namespace)
	}
	if p.Version != 0 && !n.State {
		return fmt.Errorf("%w: it has a version, and namespace %s has no State", ErrPublication, p.Channel.Namespace)
	}
	late := !p.At.IsZero() && time.Since(p.At) > g.c.Late
	data := []byte("null")
	if !late {
		var err error
		if data, err = json.Marshal(p.Data); err != nil {
			return fmt.Errorf("%w: %w", ErrPublication, err)
		}
		if len(data) > g.c.MaxMessageBytes {
			return fmt.Errorf("%w: its data has %d bytes, more than Config.MaxMessageBytes (%d)", ErrPublication, len(data), g.c.MaxMessageBytes)
		}
	}
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	options := g.options(n, p)
	if tags := g.tags(ctx, p, late); tags != nil {
		options = append(options, centrifuge.WithTags(tags))
	}
	result, err := g.node.Publish(p.Channel.String(), data, options...)
	g.metrics.published(ctx, p.Channel.Namespace, p.At, result, late, err)
	if err != nil {
		return fmt.Errorf("realtime: publish in %s: %w", p.Channel.Namespace, err)
	}
	return nil
}

func (g *Gateway) options(n Namespace, p Publication) []centrifuge.PublishOption {
	options := make([]centrifuge.PublishOption, 0, 5)
	if n.History > 0 {
		options = append(options, centrifuge.WithHistory(n.History, n.HistoryAge))
	}
	if p.ID != "" {
		options = append(options, centrifuge.WithIdempotencyKey(p.ID), centrifuge.WithIdempotentResultTTL(g.c.Late+g.c.Late/2))
	}
	if p.Version != 0 {
		options = append(options, centrifuge.WithVersion(p.Version, p.Epoch))
	}
	return options
}

// tags may be nil.
func (g *Gateway) tags(ctx context.Context, p Publication, late bool) map[string]string {
	token := p.Token
	if session := causal.FromContext(ctx); token.IsZero() && session != nil {
		token = session.Token()
	}
	var tags map[string]string
	if !token.IsZero() && !g.c.Keys.IsZero() {
		tags = map[string]string{TagToken: g.c.Keys.Sign(token)}
	}
	if late {
		if tags == nil {
			tags = make(map[string]string, 1)
		}
		tags[TagLate] = "1"
	}
	return tags
}
