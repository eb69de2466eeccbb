package natsjs

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/loadlinehq/loadline/events"
)

const headerPartitionKey = "ce-partitionkey"

var errEarlierNotStored = fmt.Errorf("%w: not sent because an earlier event of its key was not stored", events.ErrUnavailable)

// Publish stores messages; see [events.Driver]. Those without a key are sent one after the
// other without waiting. Of each key one is under way at a time: one that failed, on a
// connection that is lost and made anew in between, or in a stream that is full for a moment,
// would otherwise be overtaken by the next.
func (d *Driver) Publish(ctx context.Context, raws []events.Raw) []error {
	errs := make([]error, len(raws))
	messages := make([]*nats.Msg, len(raws))
	for i := range raws {
		messages[i], errs[i] = d.encode(&raws[i])
	}
	if d.c.AtomicBatches {
		d.publishAtomic(ctx, raws, messages, errs)
	} else {
		d.publishInRounds(ctx, raws, messages, errs)
	}
	d.explain(ctx, messages, errs)
	return errs
}

// encode returns a message as the client sends it.
func (d *Driver) encode(raw *events.Raw) (*nats.Msg, error) {
	subject, err := d.subject(raw.Type, raw.Partition)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", events.ErrRejected, err)
	}
	all := len(raw.Header) + 1
	values := make([]string, 0, all) // one allocation for all
	header := make(nats.Header, all)
	set := func(name, value string) {
		values = append(values, value)
		header[name] = values[len(values)-1 : len(values) : len(values)]
	}
	for name, value := range raw.Header {
		if !isHeader(name, value) {
			return nil, fmt.Errorf("%w: natsjs: the header %.40q cannot be sent: names are letters, digits and -, values printable", events.ErrRejected, name)
		}
		set(name, value)
	}
	if raw.ID != "" {
		if !isHeader(jetstream.MsgIDHeader, raw.ID) {
			return nil, fmt.Errorf("%w: natsjs: the id %.40q cannot be sent", events.ErrRejected, raw.ID)
		}
		set(jetstream.MsgIDHeader, raw.ID)
	}
	m := &nats.Msg{Subject: subject, Header: header, Data: raw.Body}
	if size, most := int64(m.Size()+roomForReasons), d.publisher.maxPayload.Load(); size > most {
		return nil, fmt.Errorf("%w: natsjs: it has %d bytes, and %d are allowed, of which a dead letter's reasons take %d: store it elsewhere, and send where", events.ErrRejected, m.Size(), most, roomForReasons)
	}
	return m, nil
}

// isHeader: what the client would change or the server misread, and what means something
// to the server, is none.
func isHeader(name, value string) bool {
	if name == "" || len(name) > 5 && strings.EqualFold(name[:5], "nats-") && name != jetstream.MsgIDHeader {
		return false
	}
	for _, c := range []byte(name) {
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || isDigit(c) || c == '-' || c == '_') {
			return false
		}
	}
	for _, c := range []byte(value) {
		if c < ' ' || c > '~' {
			return false
		}
	}
	return value == strings.TrimSpace(value)
}

// keyOf names what keeps a message in order; empty: nothing does.
func keyOf(raw *events.Raw) string {
	if raw.Partition < 0 {
		return ""
	}
	return fmt.Sprint(raw.Partition, " ", raw.Header[headerPartitionKey])
}

// chains returns the messages that have no error: first those that may be sent at once,
// and for each of them that has a key the others of it.
func chains(raws []events.Raw, errs []error, stopped map[string]bool) (round []int, later map[string][]int) {
	later = make(map[string][]int)
	for i := range raws {
		key := keyOf(&raws[i])
		switch {
		case errs[i] != nil:
			if key != "" {
				stopped[key] = true
			}
		case key == "":
			round = append(round, i)
		case stopped[key]:
			errs[i] = errEarlierNotStored
		default:
			if _, begun := later[key]; !begun {
				later[key] = []int{}
				round = append(round, i)
			} else {
				later[key] = append(later[key], i)
			}
		}
	}
	return round, later
}

func (d *Driver) publishInRounds(ctx context.Context, raws []events.Raw, messages []*nats.Msg, errs []error) {
	round, later := chains(raws, errs, make(map[string]bool))
	for len(round) > 0 {
		batch := make([]*nats.Msg, len(round))
		for n, i := range round {
			batch[n] = messages[i]
		}
		var next []int
		for n, err := range d.publisher.exchange(ctx, batch, nil) {
			i := round[n]
			errs[i] = err
			key := keyOf(&raws[i])
			rest := later[key]
			if key == "" || len(rest) == 0 {
				continue
			}
			if err != nil {
				for _, i := range rest {
					errs[i] = errEarlierNotStored
				}
				continue
			}
			next = append(next, rest[0])
			later[key] = rest[1:]
		}
		round = next
	}
}

// explain finds out why nobody answers: the server is away, or starting, or the stream
// does not take the subject.
func (d *Driver) explain(ctx context.Context, messages []*nats.Msg, errs []error) {
	var stream *jetstream.StreamInfo
	var cause error
	for i, err := range errs {
		if !errors.Is(err, errNoResponders) {
			continue
		}
		if stream == nil && cause == nil {
			ctx, cancel := context.WithTimeout(ctx, requestLimit)
			var s jetstream.Stream
			if s, cause = d.js.Stream(ctx, d.c.Stream); cause == nil {
				stream = s.CachedInfo()
			}
			cancel()
		}
		switch {
		case errors.Is(cause, jetstream.ErrStreamNotFound):
			// Not the message's fault: who makes the stream anew gets all.
			errs[i] = fmt.Errorf("%w: the stream %s is gone: %w", events.ErrUnavailable, d.c.Stream, err)
		case cause == nil && !coversOne(stream.Config.Subjects, messages[i].Subject):
			errs[i] = fmt.Errorf("%w: the stream %s does not take %s: %w", events.ErrRejected, d.c.Stream, messages[i].Subject, err)
		default:
			errs[i] = fmt.Errorf("%w: %w", events.ErrUnavailable, err)
		}
	}
}

func coversOne(patterns []string, subject string) bool {
	for _, p := range patterns {
		if covers(p, subject) {
			return true
		}
	}
	return false
}
