package natsjs_test

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/loadlinehq/loadline/events/natsjs"
	"github.com/loadlinehq/loadline/internal/stack/stacktest"
)

// To a group that began at a time, the server refuses positions behind which it has deleted what
// was there since.
func TestRewindBehindWhatIsDeleted(t *testing.T) {
	t.Parallel()
	c := config(stacktest.New(t))
	d := open(t, c)
	s := subscription("group", "a")
	s.StartAt, s.AckWait = time.Now().Add(-time.Hour), time.Minute
	got, _ := begin(t, d, s)
	for _, id := range []string{"1", "2", "3", "4"} {
		publish(t, d, raw(id, "a"))
		receive(t, got, id)
	}
	settled(t, d, "group")
	one, err := jetStream(t, c.URL).Stream(t.Context(), c.Stream)
	if err != nil {
		t.Fatal(err)
	}
	if err := one.Purge(t.Context(), jetstream.WithPurgeSequence(3)); err != nil {
		t.Fatal(err)
	}
	if err := d.Rewind(t.Context(), "group", 1); err != nil {
		t.Fatal(err)
	}
	receive(t, got, "3")
	receive(t, got, "4")
	settled(t, d, "group")
	if err := one.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := d.Rewind(t.Context(), "group", 1); err != nil {
		t.Fatal(err)
	}
	publish(t, d, raw("5", "a"))
	receive(t, got, "5")
}

// settled waits until the server knows that a subscription has nothing left.
func settled(t *testing.T, d *natsjs.Driver, name string) {
	t.Helper()
	for limit := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		lag, err := d.Lag(t.Context(), name)
		if err == nil && lag == 0 {
			return
		}
		if time.Now().After(limit) {
			t.Fatalf("the lag is %d, %v", lag, err)
		}
	}
}
