package natsjs

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/loadlinehq/loadline/events"
	"github.com/loadlinehq/loadline/internal/stack/stacktest"
)

// A member that has buried a message and dies before it has settled it: the message comes
// again, and is buried again.
func TestMessageIsBuriedOnce(t *testing.T) {
	t.Parallel()
	set := stacktest.New(t)
	d, err := Open(t.Context(), Config{
		URL: set.NATSURL, Stream: set.StreamPrefix + "EVENTS", DeadLetters: set.StreamPrefix + "DLQ", Advisories: set.StreamPrefix + "ADVISORIES",
		SubjectPrefix: set.SubjectPrefix, MaxBytes: 16 << 20, DeadLetterMaxBytes: 16 << 20,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	// As large as a message may be: there is room for the reasons.
	body := make([]byte, d.publisher.maxPayload.Load()-roomForReasons-1024)
	if err := d.Publish(t.Context(), []events.Raw{{ID: strings.Repeat("i", 256), Type: strings.Repeat("t", 128), Partition: 3, Body: body}})[0]; err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	letter := events.DeadLetter{
		Reason: events.ReasonUnknownVersion, Error: strings.Repeat("größe\n", 10_000), Attempts: 5, Group: strings.Repeat("g", 128), Handler: strings.Repeat("h", 5000), Time: time.Now(),
	}
	s := events.Subscription{
		Name: strings.Repeat("g", 128) + "-P03", Filters: []events.Filter{{Type: strings.Repeat("t", 128), Partition: 3}}, MaxInFlight: 1, Prefetch: 1, AckWait: 300 * time.Millisecond,
	}
	err = d.Subscribe(ctx, s, func(one events.Delivery) {
		if one.Attempt() == 1 {
			if err := d.bury(ctx, one.(*delivery), letter); err != nil {
				t.Error(err)
			}
			return
		}
		if err := one.Dead(ctx, letter); err != nil {
			t.Error(err)
		}
		cancel()
	})
	if err != nil {
		t.Fatal(err)
	}
	stream, err := d.js.Stream(t.Context(), d.c.DeadLetters)
	if err != nil {
		t.Fatal(err)
	}
	if n := stream.CachedInfo().State.Msgs; n != 1 {
		t.Errorf("there are %d dead letters", n)
	}
	m, err := stream.GetMsg(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Data) != len(body) || len(m.Header.Get(HeaderDeadError)) != maxDeadValue || m.Header.Get(HeaderDeadSequence) != "1" || m.Header.Get(HeaderDeadSubject) != d.events+strings.Repeat("t", 128)+".P03" {
		t.Errorf("it has %d bytes and the headers %v", len(m.Data), m.Header)
	}
}
