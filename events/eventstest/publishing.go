package eventstest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/loadlinehq/loadline/events"
)

func testBytes(t *testing.T, b Broker) {
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	sent := []events.Raw{
		{ID: "empty", Type: "bytes", Partition: -1},
		{ID: "binary", Type: "bytes", Partition: -1, Header: map[string]string{"ce-type": "bytes", "Idempotency-Key": "x y", "lower-case": "1", "UPPER": "2"}, Body: every},
		{ID: "large", Type: "bytes", Partition: -1, Body: bytes.Repeat([]byte("0123456789abcdef"), events.MaxPayload/16)},
		{ID: "dotted", Type: "bytes.dotted.name_with-signs", Partition: -1, Body: []byte("{}")},
		{ID: "keyed", Type: "bytes", Partition: 7, Body: []byte("keyed")},
		{ID: "like a partition", Type: "bytes.p07", Partition: -1, Body: []byte("not keyed")},
	}
	sent[5].ID = "like-a-partition"
	typ := events.Define("bytes.unicode", events.V1, events.KeyedBy(func(s string) string { return s }))
	m := message(t, typ, "schlüssel 鍵 \"%41\" 🙂", events.IdempotencyKey("größe = 10 %"))
	sent = append(sent, encode(t, m)...)
	publish(t, b.Driver, sent...)

	var mu sync.Mutex
	got := make(map[string]events.Raw)
	s := subscription("bytes", 10, filter("bytes"), events.Filter{Type: "bytes", Partition: 7}, filter("bytes.dotted.name_with-signs"), filter("bytes.p07"), events.Filter{Type: "bytes.unicode", Partition: sent[6].Partition})
	begin(t, b.Driver, s, func(d events.Delivery) {
		mu.Lock()
		got[d.Raw().ID] = d.Raw()
		mu.Unlock()
		if err := d.Ack(context.Background()); err != nil {
			t.Error(err)
		}
	})
	until(t, "all messages", func() bool { mu.Lock(); defer mu.Unlock(); return len(got) == len(sent) })
	for _, want := range sent {
		is := got[want.ID]
		if is.Type != want.Type || is.Partition != want.Partition {
			t.Errorf("%s came as %s, partition %d", want.ID, is.Type, is.Partition)
		}
		if !bytes.Equal(is.Body, want.Body) {
			t.Errorf("%s: %d bytes came, not the %d that were sent", want.ID, len(is.Body), len(want.Body))
		}
		if !maps.Equal(is.Header, want.Header) && len(is.Header)+len(want.Header) > 0 {
			t.Errorf("%s: the headers were\n%q, and came as\n%q", want.ID, want.Header, is.Header)
		}
	}
	back, err := events.Decode(got[m.ID])
	if err != nil {
		t.Fatal(err)
	}
	if back.Key != m.Key || back.IdempotencyKey != m.IdempotencyKey {
		t.Errorf("the key came as %q, the idempotency key as %q", back.Key, back.IdempotencyKey)
	}
}

func testUnroutable(t *testing.T, b Broker) {
	for _, name := range []string{"", ".", "a..b", ".a", "a.", "a b", "a.*", "a.>", ">", "a\r\nb", "ä", "A"} {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		errs := b.Driver.Publish(ctx, []events.Raw{{ID: "1", Type: name, Partition: -1}})
		cancel()
		if len(errs) != 1 || !errors.Is(errs[0], events.ErrRejected) {
			t.Errorf("the type %q: %v", name, errs)
		}
	}
	for _, header := range []map[string]string{{"a b": "x"}, {"a": "x\r\nb: y"}, {"": "x"}, {"a:": "x"}} {
		errs := b.Driver.Publish(t.Context(), []events.Raw{{ID: "1", Type: "header", Partition: -1, Header: header}})
		if !errors.Is(errs[0], events.ErrRejected) {
			t.Errorf("the header %q: %v", header, errs)
		}
	}
}

func testTooLarge(t *testing.T, b Broker) {
	all := raws("large", 4)
	all[1].Body = make([]byte, 64<<20)
	all[2].Header = map[string]string{"Long": strings.Repeat("x", 70<<10)} // more than JetStream has
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	errs := b.Driver.Publish(ctx, all)
	if errs[0] != nil || !errors.Is(errs[1], events.ErrRejected) || errs[3] != nil {
		t.Errorf("got %v", errs)
	}
	want := int64(3)
	if errs[2] != nil { // a broker may take it
		want = 2
		if !errors.Is(errs[2], events.ErrRejected) {
			t.Errorf("headers of 70 kB: %v", errs[2])
		}
	}
	var got tally
	begin(t, b.Driver, subscription("large", 10, filter("large")), func(d events.Delivery) {
		got.add(d.Raw().ID)
		_ = d.Ack(context.Background())
	})
	until(t, "those that were stored", func() bool { return int64(got.different()) == want })
}

func testBurst(t *testing.T, b Broker) {
	const batches, size = 20, 500
	var wait sync.WaitGroup
	for i := range batches {
		wait.Go(func() { publish(t, b.Driver, raws(fmt.Sprintf("burst%d", i), size)...) })
	}
	wait.Wait()
	var got tally
	var filters []events.Filter
	for i := range batches {
		filters = append(filters, filter(fmt.Sprintf("burst%d", i)))
	}
	s := subscription("burst", 1000, filters...)
	s.Prefetch, s.AckWait = 256, patience
	begin(t, b.Driver, s, func(d events.Delivery) {
		got.add(d.Raw().ID)
		_ = d.Ack(context.Background())
	})
	until(t, "ten thousand", func() bool { return got.different() == batches*size })
	if n := got.all(); n != batches*size {
		t.Errorf("there were %d deliveries", n)
	}
}

func testDuplicates(t *testing.T, b Broker) {
	all := raws("duplicate", 10)
	publish(t, b.Driver, all[3])
	all[7].ID, all[7].Header = all[6].ID, all[6].Header // one of the batch itself
	publish(t, b.Driver, all...)
	var got tally
	begin(t, b.Driver, subscription("duplicate", 20, filter("duplicate")), func(d events.Delivery) {
		got.add(d.Raw().ID)
		_ = d.Ack(context.Background())
	})
	until(t, "each of them", func() bool { return got.different() == 9 })
	if b.Driver.Capabilities().BrokerDedupe {
		never(t, "a duplicate", 200*time.Millisecond, func() bool { return got.all() != 9 })
	}
}

func testFull(t *testing.T, b Broker) {
	if b.Small == nil {
		t.Skip("this driver has no small broker to fill")
	}
	d := b.Small(t, 10)
	all := raws("full", 12)
	errs := d.Publish(t.Context(), all)
	for i, err := range errs {
		if i < 10 && err != nil || i >= 10 && !errors.Is(err, events.ErrBackpressure) {
			t.Errorf("message %d: %v", i, err)
		}
	}
	// Of a key, those behind the first that has no room are not tried.
	for i := range all {
		all[i].ID += "-keyed"
		all[i].Partition = 1
	}
	errs = d.Publish(t.Context(), all[:2])
	if !errors.Is(errs[0], events.ErrBackpressure) || !errors.Is(errs[1], events.ErrUnavailable) && !errors.Is(errs[1], events.ErrBackpressure) {
		t.Errorf("got %v", errs)
	}
}
