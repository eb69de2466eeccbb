package natsjs_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/loadlinehq/loadline/events"
	"github.com/loadlinehq/loadline/events/natsjs"
	"github.com/loadlinehq/loadline/internal/stack/stacktest"
)

func subscription(name string, types ...string) events.Subscription {
	s := events.Subscription{Name: name, MaxInFlight: 10, Prefetch: 4, AckWait: time.Second, MaxDeliveries: 10}
	for _, typ := range types {
		s.Filters = append(s.Filters, events.Filter{Type: typ, Partition: -1})
	}
	return s
}

// begin runs a subscription until the test ends, and returns the ids that it has got.
func begin(t testing.TB, d *natsjs.Driver, s events.Subscription) (got chan string, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	got = make(chan string, 10_000)
	ended := make(chan error, 1)
	go func() {
		ended <- d.Subscribe(ctx, s, func(d events.Delivery) {
			got <- d.Raw().ID
			_ = d.Ack(ctx)
		})
	}()
	stopped := false
	stop = func() {
		if cancel(); !stopped {
			stopped = true
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	}
	t.Cleanup(stop)
	return got, stop
}

func publish(t testing.TB, d *natsjs.Driver, raws ...events.Raw) {
	t.Helper()
	if err := errors.Join(d.Publish(t.Context(), raws)...); err != nil {
		t.Fatal(err)
	}
}

func raw(id, typ string) events.Raw { return events.Raw{ID: id, Type: typ, Partition: -1} }

func receive(t testing.TB, got chan string, want string) {
	t.Helper()
	select {
	case id := <-got:
		if id != want {
			t.Errorf("got %s, want %s", id, want)
		}
	case <-time.After(10 * time.Second):
		t.Fatalf("%s does not come", want)
	}
}

func consumer(t testing.TB, js jetstream.JetStream, c natsjs.Config, name string) jetstream.ConsumerConfig {
	t.Helper()
	one, err := js.Consumer(t.Context(), c.Stream, natsjs.Durable(name))
	if err != nil {
		t.Fatal(err)
	}
	return one.CachedInfo().Config
}

func TestConsumerIsAsAsked(t *testing.T) {
	t.Parallel()
	c := config(stacktest.New(t))
	d := open(t, c)
	publish(t, d, raw("1", "a"))
	got, _ := begin(t, d, subscription("group.with_dots", "a", "b.c"))
	receive(t, got, "1")
	is := consumer(t, jetStream(t, c.URL), c, "group.with_dots")
	if is.Durable != "group_dwith__dots" || is.AckPolicy != jetstream.AckExplicitPolicy || is.AckWait != time.Second || is.MaxDeliver != 10 || is.MaxAckPending != 10 ||
		is.DeliverPolicy != jetstream.DeliverAllPolicy || is.InactiveThreshold != 0 || len(is.BackOff) != 0 ||
		!slices.Equal(is.FilterSubjects, []string{c.SubjectPrefix + "events.a", c.SubjectPrefix + "events.b.c"}) {
		t.Errorf("it is %+v", is)
	}
}

// A type is added to a group while old members are still there, and begin again.
func TestFiltersAreAddedAndNotTakenAway(t *testing.T) {
	t.Parallel()
	c := config(stacktest.New(t))
	d := open(t, c)
	js := jetStream(t, c.URL)
	got, stop := begin(t, d, subscription("group", "old"))
	publish(t, d, raw("1", "old"))
	receive(t, got, "1")
	stop()
	got, _ = begin(t, d, subscription("group", "old", "added"))
	for len(consumer(t, js, c, "group").FilterSubjects) < 2 {
		time.Sleep(5 * time.Millisecond)
	}
	publish(t, d, raw("2", "added"))
	receive(t, got, "2")
	_, stop = begin(t, d, subscription("group", "old"))
	time.Sleep(100 * time.Millisecond)
	stop()
	if is := consumer(t, js, c, "group"); len(is.FilterSubjects) != 2 {
		t.Errorf("the old member has taken away: %v", is.FilterSubjects)
	}
	c.Update = true
	_, stop = begin(t, open(t, c), subscription("group", "added"))
	for limit := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if is := consumer(t, js, c, "group"); is.FilterSubject == c.SubjectPrefix+"events.added" || slices.Equal(is.FilterSubjects, []string{c.SubjectPrefix + "events.added"}) {
			break
		}
		if time.Now().After(limit) {
			t.Fatal("Config.Update does not take away")
		}
	}
	stop()
}

func TestConsumerThatDiffersIsAnError(t *testing.T) {
	t.Parallel()
	c := config(stacktest.New(t))
	d := open(t, c)
	js := jetStream(t, c.URL)
	s := subscription("group", "a")
	_, stop := begin(t, d, s)
	for _, err := js.Consumer(t.Context(), c.Stream, "group"); err != nil; _, err = js.Consumer(t.Context(), c.Stream, "group") {
		time.Sleep(5 * time.Millisecond)
	}
	stop()
	s.AckWait, s.MaxInFlight = 2*time.Second, 20
	err := d.Subscribe(t.Context(), s, nil)
	drift, ok := errors.AsType[*natsjs.DriftError](err)
	if !ok || len(drift.Drifts) != 2 || drift.Drifts[0].Field != "ack_wait" || drift.Drifts[1].Field != "max_ack_pending" {
		t.Fatalf("got %v", err)
	}
	c.Update = true
	_, stop = begin(t, open(t, c), s)
	for consumer(t, js, c, "group").AckWait != 2*time.Second {
		time.Sleep(5 * time.Millisecond)
	}
	stop()
}

// Somebody deletes a consumer by hand: it is made again, and gets all once more.
func TestConsumerThatIsDeletedIsMadeAgain(t *testing.T) {
	t.Parallel()
	c := config(stacktest.New(t))
	d := open(t, c)
	publish(t, d, raw("1", "a"))
	got, _ := begin(t, d, subscription("group", "a"))
	receive(t, got, "1")
	if err := jetStream(t, c.URL).DeleteConsumer(t.Context(), c.Stream, "group"); err != nil {
		t.Fatal(err)
	}
	receive(t, got, "1")
}

// A process that dies at each delivery never gets to bury its message: the server gives it
// up, and says so once, to the stream that listens. The consumer's floor passes over it with
// the next message that is settled, so that this stream is all that is left of it.
func TestMessageThatTheServerGivesUpIsNoted(t *testing.T) {
	t.Parallel()
	c := config(stacktest.New(t))
	d := open(t, c)
	js := jetStream(t, c.URL)
	s := subscription("group", "a")
	s.AckWait, s.MaxDeliveries = 200*time.Millisecond, 2
	publish(t, d, raw("deadly", "a"))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- d.Subscribe(ctx, s, func(events.Delivery) {}) }()
	for limit := time.Now().Add(10 * time.Second); stream(t, js, c.Advisories).State.Msgs == 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatal("there is no advisory")
		}
	}
	if lag, err := d.Lag(t.Context(), "group"); err != nil || lag != 0 {
		t.Errorf("the lag is %d, %v: the message is invisible in it", lag, err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	floor := func() uint64 {
		one, err := js.Consumer(t.Context(), c.Stream, "group")
		if err != nil {
			t.Fatal(err)
		}
		return one.CachedInfo().AckFloor.Stream
	}
	before := floor()
	publish(t, d, raw("next", "a"))
	got, _ := begin(t, d, s)
	receive(t, got, "next")
	for limit := time.Now().Add(5 * time.Second); floor() < 2 && time.Now().Before(limit); {
		time.Sleep(10 * time.Millisecond)
	}
	t.Logf("the floor was %d, and is %d after the next", before, floor())
	if floor() != 2 {
		t.Errorf("the floor is %d: purge waits for the message that was given up", floor())
	}
}
