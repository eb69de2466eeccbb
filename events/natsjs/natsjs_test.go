package natsjs_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/loadlinehq/loadline/events"
	"github.com/loadlinehq/loadline/events/eventstest"
	"github.com/loadlinehq/loadline/events/natsjs"
	"github.com/loadlinehq/loadline/internal/stack/stacktest"
)

// open returns a driver with streams of its own on the shared server.
func open(t testing.TB, change func(*natsjs.Config)) (*natsjs.Driver, natsjs.Config) {
	t.Helper()
	set := stacktest.New(t)
	c := natsjs.Config{
		URL: set.NATSURL, StreamPrefix: set.StreamPrefix, SubjectPrefix: set.SubjectPrefix,
		MaxBytes: 64 << 20, Logger: slog.New(slog.DiscardHandler),
	}
	if change != nil {
		change(&c)
	}
	d, err := natsjs.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d, c
}

func js(t testing.TB, url string) jetstream.JetStream {
	t.Helper()
	conn, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

func opened(t *testing.T, d *natsjs.Driver, c natsjs.Config) eventstest.Opened {
	server := js(t, c.URL)
	return eventstest.Opened{
		Driver: d,
		Lag: func(t *testing.T, subscription string) int64 {
			lag, err := d.Lag(t.Context(), subscription)
			if err != nil {
				return -1
			}
			return lag
		},
		DeadLetters: func(t *testing.T) (all []eventstest.DeadLetter) {
			t.Helper()
			stream, err := server.Stream(t.Context(), c.StreamPrefix+"DEAD")
			if err != nil {
				t.Fatal(err)
			}
			if stream.CachedInfo().State.Msgs == 0 {
				return nil
			}
			for seq := stream.CachedInfo().State.FirstSeq; seq <= stream.CachedInfo().State.LastSeq; seq++ {
				m, err := stream.GetMsg(t.Context(), seq)
				if err != nil {
					t.Fatal(err)
				}
				header := make(map[string]string)
				for name, values := range m.Header {
					if !strings.HasPrefix(name, "Nats-") && !strings.HasPrefix(name, "Loadline-") {
						header[name] = values[0]
					}
				}
				all = append(all, eventstest.DeadLetter{
					Raw: events.Raw{Header: header, Body: m.Data}, Reason: events.Reason(m.Header.Get(natsjs.HeaderReason)), Error: m.Header.Get(natsjs.HeaderError),
				})
			}
			return all
		},
	}
}

func TestConformance(t *testing.T) {
	t.Parallel()
	for name, atomic := range map[string]bool{"one by one": false, "batches": true} {
		t.Run(name, func(t *testing.T) {
			eventstest.Run(t, eventstest.Broker{Open: func(t *testing.T) eventstest.Opened {
				d, c := open(t, func(c *natsjs.Config) { c.AtomicBatches = atomic })
				return opened(t, d, c)
			}})
		})
	}
}

var counted = events.Define[int]("number.counted", events.V1)

func raw(t testing.TB, n int) events.Raw {
	t.Helper()
	m, err := counted.New(n)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := events.Encode(&m, "/test")
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// A stream that is there is checked, left alone, and changed when that is asked for.
func TestDrift(t *testing.T) {
	t.Parallel()
	_, c := open(t, nil)
	again, err := natsjs.Open(t.Context(), c)
	if err != nil {
		t.Fatalf("the same again: %v", err)
	}
	again.Close()
	c.MaxAge, c.MaxBytes = 2*time.Hour, 32<<20
	_, err = natsjs.Open(t.Context(), c)
	drift, ok := errors.AsType[*natsjs.DriftError](err)
	if !ok || len(drift.Fields) != 2 || !strings.Contains(err.Error(), "max_age is 72h0m0s, wanted 2h0m0s") {
		t.Errorf("%v", err)
	}
	c.Update = true
	changed, err := natsjs.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	changed.Close()
	info, err := js(t, c.URL).Stream(t.Context(), c.StreamPrefix+"EVENTS")
	if err != nil || info.CachedInfo().Config.MaxAge != 2*time.Hour || info.CachedInfo().Config.Discard != jetstream.DiscardNew {
		t.Errorf("%+v, %v", info.CachedInfo().Config, err)
	}
}

// A full stream refuses events, and loses none; what all have acknowledged makes room.
func TestFull(t *testing.T) {
	t.Parallel()
	d, c := open(t, func(c *natsjs.Config) { c.MaxMessages = 10 })
	var errs []error
	for n := range 12 {
		errs = append(errs, d.Publish(t.Context(), []events.Raw{raw(t, n)})...)
	}
	for n, err := range errs {
		if (err == nil) != (n < 10) || err != nil && !errors.Is(err, events.ErrBackpressure) {
			t.Errorf("event %d: %v", n, err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	got := 0
	s := events.Subscription{Name: "slow", Filters: []events.Filter{{Type: "number.counted", Partition: -1}}, MaxInFlight: 5, Prefetch: 1, AckWait: time.Minute, MaxDeliveries: 5}
	err := d.Subscribe(ctx, s, func(d events.Delivery) {
		if got++; got <= 6 {
			if err := d.Ack(ctx); err != nil {
				t.Error(err)
			}
		}
		if got == 8 {
			cancel()
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	keep, end := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer end()
	if err := d.Run(keep); err != nil {
		t.Fatal(err)
	}
	stream, err := js(t, c.URL).Stream(t.Context(), c.StreamPrefix+"EVENTS")
	if err != nil {
		t.Fatal(err)
	}
	if state := stream.CachedInfo().State; state.FirstSeq != 7 || state.Msgs != 4 {
		t.Errorf("after six were acknowledged: %d messages from %d on", state.Msgs, state.FirstSeq)
	}
	if err := d.Publish(t.Context(), []events.Raw{raw(t, 99)})[0]; err != nil {
		t.Errorf("there is room: %v", err)
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	d, _ := open(t, nil)
	large := raw(t, 1)
	large.Body = make([]byte, 2<<20)
	good := raw(t, 2)
	errs := d.Publish(t.Context(), []events.Raw{large, good})
	if !errors.Is(errs[0], events.ErrRejected) || errs[1] != nil {
		t.Errorf("%v", errs)
	}
	if _, err := d.Lag(t.Context(), "nobody"); err == nil {
		t.Error("nobody has a lag")
	}
	_, err := natsjs.Open(t.Context(), natsjs.Config{URL: "nats://127.0.0.1:1"})
	if err == nil || !strings.Contains(err.Error(), "connect") {
		t.Errorf("nobody listens: %v", err)
	}
	_, err = natsjs.Open(t.Context(), natsjs.Config{Replicas: 9, MaxAge: 1, MaxBytes: 1, MaxMessages: -1, Duplicates: 1})
	for _, want := range []string{"URL", "Replicas", "MaxAge", "MaxBytes", "MaxMessages", "Duplicates"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	_, c := open(t, nil)
	c.StreamPrefix, c.SubjectPrefix, c.MaxBytes = c.StreamPrefix+"x", c.SubjectPrefix+"x.", 1<<50
	if _, err := natsjs.Open(t.Context(), c); err == nil || !strings.Contains(err.Error(), "lower Config.MaxBytes") {
		t.Errorf("a petabyte: %v", err)
	}
}

// Keyed and plain types cannot have each other's subjects, nor subscriptions names.
func TestSubjects(t *testing.T) {
	t.Parallel()
	d, _ := open(t, nil)
	for _, raw := range []events.Raw{
		{ID: "1", Type: "a", Partition: 7, Body: []byte("keyed")},
		{ID: "2", Type: "a.7", Partition: -1, Body: []byte("plain 7")},
		{ID: "3", Type: "a.p07", Partition: -1, Body: []byte("plain p07")},
		{ID: "4", Type: "a", Partition: -1, Body: []byte("plain")},
	} {
		if err := d.Publish(t.Context(), []events.Raw{raw})[0]; err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		s := events.Subscription{Name: fmt.Sprint("s.", raw.ID), Filters: []events.Filter{{Type: raw.Type, Partition: raw.Partition}}, MaxInFlight: 10, Prefetch: 5, AckWait: time.Minute, MaxDeliveries: 5}
		var got []events.Raw
		err := d.Subscribe(ctx, s, func(m events.Delivery) { got = append(got, m.Raw()); _ = m.Ack(ctx); cancel() })
		cancel()
		if err != nil || len(got) != 1 || string(got[0].Body) != string(raw.Body) || got[0].Type != raw.Type || got[0].Partition != raw.Partition {
			t.Errorf("%+v came as %+v, %v", raw, got, err)
		}
	}
}
