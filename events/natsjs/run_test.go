package natsjs_test

import (
	"context"
	"errors"
	"strconv"
	"testing"
	"time"

	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/loadlinehq/loadline/events"
	"github.com/loadlinehq/loadline/events/natsjs"
	"github.com/loadlinehq/loadline/internal/stack/stacktest"
)

func run(t testing.TB, d *natsjs.Driver) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func numbered(typ string, from, to int) []events.Raw {
	var all []events.Raw
	for i := from; i < to; i++ {
		all = append(all, raw(typ+strconv.Itoa(i), typ))
	}
	return all
}

func within(t testing.TB, what string, condition func() bool) {
	t.Helper()
	for limit := time.Now().Add(10 * time.Second); !condition(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("this has not come: %s", what)
		}
	}
}

// Room is made of what all subscriptions have settled, and of nothing else; those that have
// nothing to do do not keep it, and neither does one of whom nobody knows when he comes back.
func TestRoomIsMade(t *testing.T) {
	t.Parallel()
	c := config(stacktest.New(t))
	c.MaxMessages, c.Interval = 100, 50*time.Millisecond
	d := open(t, c)
	js := jetStream(t, c.URL)
	publish(t, d, numbered("rare", 0, 1)...)
	slow, stopSlow := begin(t, d, subscription("slow", "a"))
	fast, _ := begin(t, d, subscription("fast", "a"))
	idle, _ := begin(t, d, subscription("idle", "rare")) // its floor stays at 1
	_, stopEmpty := begin(t, d, subscription("empty", "never"))
	receive(t, idle, "rare0")
	publish(t, d, numbered("a", 0, 30)...)
	for i := range 30 {
		receive(t, slow, "a"+strconv.Itoa(i))
	}
	stopSlow()
	stopEmpty()
	publish(t, d, numbered("a", 30, 95)...) // 96 of 100
	for i := range 95 {
		receive(t, fast, "a"+strconv.Itoa(i))
	}
	run(t, d)
	first := func() uint64 { return stream(t, js, c.Stream).State.FirstSeq }
	within(t, "room is made", func() bool { return first() > 1 })
	time.Sleep(5 * c.Interval)
	if n := first(); n != 32 { // rare0 and a0 to a29 are gone
		t.Errorf("the stream begins at %d: it should where the slow subscription stands", n)
	}
	// Back-pressure is what is left while it stays away.
	publish(t, d, numbered("a", 95, 95+35)...)
	if err := d.Publish(t.Context(), numbered("a", 200, 201))[0]; !errors.Is(err, events.ErrBackpressure) {
		t.Errorf("got %v", err)
	}
	slow, _ = begin(t, d, subscription("slow", "a"))
	for i := 30; i < 130; i++ {
		receive(t, slow, "a"+strconv.Itoa(i))
	}
	within(t, "room for all", func() bool { return stream(t, js, c.Stream).State.Msgs <= 80 })
	publish(t, d, numbered("a", 201, 202)...)
	receive(t, slow, "a201")
}

// Where nobody has subscribed, nobody has settled.
func TestNoRoomIsMadeOfWhatNobodyHasSeen(t *testing.T) {
	t.Parallel()
	c := config(stacktest.New(t))
	c.MaxMessages, c.Interval = 10, 20*time.Millisecond
	d := open(t, c)
	run(t, d)
	publish(t, d, numbered("a", 0, 10)...)
	time.Sleep(10 * c.Interval)
	if n := len(stored(t, c)); n != 10 {
		t.Errorf("%d are left", n)
	}
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	reader := metric.NewManualReader()
	c := config(stacktest.New(t))
	c.MaxMessages, c.Interval, c.MeterProvider = 10, 20*time.Millisecond, metric.NewMeterProvider(metric.WithReader(reader))
	d := open(t, c)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	s := subscription("group", "a")
	s.AckWait = 200 * time.Millisecond
	go func() { // settles nothing
		ended <- d.Subscribe(ctx, s, func(events.Delivery) {})
	}()
	publish(t, d, numbered("a", 0, 5)...)
	run(t, d)
	read := func() map[string]float64 {
		var all metricdata.ResourceMetrics
		if err := reader.Collect(t.Context(), &all); err != nil {
			t.Fatal(err)
		}
		out := make(map[string]float64)
		for _, scope := range all.ScopeMetrics {
			for _, m := range scope.Metrics {
				switch data := m.Data.(type) {
				case metricdata.Gauge[int64]:
					for _, p := range data.DataPoints {
						out[m.Name] = float64(p.Value)
					}
				case metricdata.Gauge[float64]:
					for _, p := range data.DataPoints {
						out[m.Name] = p.Value
					}
				}
			}
		}
		return out
	}
	var got map[string]float64
	within(t, "all metrics", func() bool {
		got = read()
		return got["loadline.events.subscription.redelivered"] == 5 && got["loadline.events.subscription.pending"] == 5 && got["loadline.events.subscription.oldest"] > 0.2
	})
	if got["loadline.events.stream.messages"] != 5 || got["loadline.events.stream.used"] != 0.5 || got["loadline.events.stream.bytes"] < 5 {
		t.Errorf("got %v", got)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
