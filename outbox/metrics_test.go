package outbox_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/loadlinehq/loadline/events"
	"github.com/loadlinehq/loadline/outbox"
)

// read returns each metric's values, summed over their attributes.
func read(t *testing.T, reader metric.Reader) map[string]float64 {
	t.Helper()
	var all metricdata.ResourceMetrics
	if err := reader.Collect(t.Context(), &all); err != nil {
		t.Fatal(err)
	}
	values := make(map[string]float64)
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			switch data := m.Data.(type) {
			case metricdata.Sum[int64]:
				for _, p := range data.DataPoints {
					values[m.Name] += float64(p.Value)
				}
			case metricdata.Gauge[int64]:
				for _, p := range data.DataPoints {
					values[m.Name] += float64(p.Value)
				}
			case metricdata.Gauge[float64]:
				for _, p := range data.DataPoints {
					values[m.Name] += p.Value
				}
			case metricdata.Histogram[float64]:
				for _, p := range data.DataPoints {
					values[m.Name] += float64(p.Count)
				}
			}
		}
	}
	return values
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	d, b := open(t), &broker{}
	away := false
	b.does(func(_ context.Context, messages []events.Raw) []error {
		b.mu.Lock()
		down := away
		b.mu.Unlock()
		if down {
			return every(messages, events.ErrUnavailable)
		}
		errs := make([]error, len(messages))
		for i, m := range messages {
			if keyOf(m) == "bad" {
				errs[i] = events.ErrRejected
			} else {
				b.take(m)
			}
		}
		return errs
	})
	reader := metric.NewManualReader()
	c := quick(d, b)
	c.MeterProvider, c.MaxAttempts = metric.NewMeterProvider(metric.WithReader(reader)), 2
	_, stop := relay(t, c)
	d.add(event(t, "k", 1), event(t, "k", 2), event(t, "bad", 1))
	within(t, 30*time.Second, func() error {
		got := read(t, reader)
		for name, want := range map[string]float64{
			"loadline.outbox.published": 2, "loadline.outbox.failed": 2, "loadline.outbox.dead": 1, "loadline.outbox.held": 0,
			"loadline.outbox.relay.active": 1, "loadline.outbox.relay.paused": 0, "loadline.outbox.age": 0, "loadline.outbox.depth": 0, "loadline.outbox.dead.depth": 1,
		} {
			if got[name] != want {
				return fmt.Errorf("%s is %v, want %v", name, got[name], want)
			}
		}
		return nil
	})
	b.mu.Lock()
	away = true
	b.mu.Unlock()
	for n := range int64(50) {
		d.add(event(t, "k", n+3))
	}
	within(t, 30*time.Second, func() error {
		got := read(t, reader)
		if got["loadline.outbox.relay.paused"] != 1 || got["loadline.outbox.age"] < 0.5 || got["loadline.outbox.depth"] < 30 {
			return fmt.Errorf("paused: %v", got)
		}
		return nil
	})
	s, err := outbox.ReadStats(t.Context(), d.Pool)
	if err != nil || s.Dead != 1 || s.Oldest < 500*time.Millisecond || s.Bytes == 0 || len(s.Relays) != 1 || s.Relays[0].Paused != "unavailable" || s.Relays[0].Epoch != 1 {
		t.Errorf("%+v, %v", s, err)
	}
	stop()
	within(t, 5*time.Second, func() error {
		s, err := outbox.ReadStats(t.Context(), d.Pool)
		if err == nil && s.Relays[0].Active {
			err = errors.New("the relay has ended, and is said to be there")
		}
		return err
	})
}
