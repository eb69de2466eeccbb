package natsjs_test

import (
	"context"
	"os"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/loadlinehq/loadline/events"
	"github.com/loadlinehq/loadline/events/eventstest"
	"github.com/loadlinehq/loadline/events/natsjs"
	"github.com/loadlinehq/loadline/internal/stack/stacktest"
)

func TestConformance(t *testing.T) {
	t.Parallel()
	set := stacktest.New(t)
	var cases atomic.Int64
	eventstest.Run(t, func(t *testing.T) eventstest.Broker {
		return broker(t, share(config(set), int(cases.Add(1))))
	})
}

// The same with one write for each batch.
func TestConformanceInAtomicBatches(t *testing.T) {
	t.Parallel()
	run := eventstest.RunPublishing // the rest does not know the difference
	if os.Getenv("LOADLINE_SLOW") != "" {
		run = eventstest.Run
	}
	set := stacktest.New(t)
	var cases atomic.Int64
	run(t, func(t *testing.T) eventstest.Broker {
		c := share(config(set), int(cases.Add(1)))
		c.AtomicBatches = true
		return broker(t, c)
	})
}

func broker(t *testing.T, c natsjs.Config) eventstest.Broker {
	t.Helper()
	d := open(t, c)
	return eventstest.Broker{
		Driver: d,
		Lag:    d.Lag,
		Connect: func(t testing.TB) (events.Driver, func()) {
			conn := connect(t, c.URL)
			c := c
			c.URL, c.Conn = "", conn
			return open(t, c), conn.Close
		},
		DeadLetters: func(ctx context.Context) ([]eventstest.DeadLetter, error) { return deadLetters(ctx, c) },
		Small: func(t testing.TB, messages int) events.Driver {
			c := c
			c.Stream += "_SMALL"
			c.DeadLetters += "_SMALL"
			c.Advisories += "_SMALL"
			c.SubjectPrefix += "small."
			c.MaxMessages = int64(messages)
			return open(t, c)
		},
	}
}

func connect(t testing.TB, url string) *nats.Conn {
	t.Helper()
	conn, err := nats.Connect(url, nats.MaxReconnects(-1), nats.ReconnectBufSize(-1), nats.ReconnectWait(50*time.Millisecond), nats.RetryOnFailedConnect(true),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {})) // connections are lost on purpose
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	return conn
}

// deadLetters reads the stream as anybody could.
func deadLetters(ctx context.Context, c natsjs.Config) ([]eventstest.DeadLetter, error) {
	conn, err := nats.Connect(c.URL)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		return nil, err
	}
	stream, err := js.Stream(ctx, c.DeadLetters)
	if err != nil {
		return nil, err
	}
	state := stream.CachedInfo().State
	var all []eventstest.DeadLetter
	for seq := max(state.FirstSeq, 1); seq <= state.LastSeq; seq++ {
		m, err := stream.GetMsg(ctx, seq)
		if err != nil {
			return nil, err
		}
		l := eventstest.DeadLetter{Raw: events.Raw{Header: map[string]string{}, Body: m.Data}}
		for name, values := range m.Header {
			l.Raw.Header[name] = values[0]
		}
		l.Raw.ID = m.Header.Get(natsjs.HeaderDeadMessageID)
		l.Reason, l.Error, l.Group = events.Reason(m.Header.Get(natsjs.HeaderDeadReason)), m.Header.Get(natsjs.HeaderDeadError), m.Header.Get(natsjs.HeaderDeadGroup)
		l.Handler, l.Subscription = m.Header.Get(natsjs.HeaderDeadHandler), m.Header.Get(natsjs.HeaderDeadSubscription)
		if l.Attempts, err = strconv.Atoi(m.Header.Get(natsjs.HeaderDeadAttempts)); err != nil {
			return nil, err
		}
		all = append(all, l)
	}
	return all, nil
}
