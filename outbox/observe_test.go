package outbox_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.opentelemetry.io/otel/sdk/metric"

	"github.com/loadlinehq/loadline/events"
	"github.com/loadlinehq/loadline/outbox"
)

// observed waits until the gauges are at least so much, and those that should be 0 are there.
func observed(t *testing.T, reader metric.Reader, want map[string]float64) {
	t.Helper()
	within(t, 30*time.Second, func() error { // a slow reading is not repeated soon
		got := read(t, reader)
		for name, least := range want {
			if value, ok := got["loadline.outbox."+name]; !ok || value < least || least == 0 && value != 0 {
				return fmt.Errorf("%s is %v (%v), want %v: %v", name, value, ok, least, got)
			}
		}
		return nil
	})
}

// lease gives shard 0 to a backend that does nothing, for an hour.
func (d *database) lease() {
	d.t.Helper()
	conn, err := d.Acquire(context.Background())
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(conn.Release)
	_, err = conn.Exec(context.Background(), `insert into loadline.outbox_relay (shard, epoch, pid, backend_start, renewed_at)
		select 0, 1, pid, backend_start, now() + interval '1 hour' from pg_stat_activity where pid = pg_backend_pid()`)
	if err != nil {
		d.t.Fatal(err)
	}
}

// When the relay that has the lease hangs, those that stand by say so; so does a process without a relay.
func TestObserveWithoutLeader(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.lease()
	standby, reader := metric.NewManualReader(), metric.NewManualReader()
	c := quick(d, &broker{})
	c.MeterProvider = metric.NewMeterProvider(metric.WithReader(standby))
	relay(t, c)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- outbox.Observe(ctx, d.Pool, outbox.ObserveConfig{Every: time.Second, MeterProvider: metric.NewMeterProvider(metric.WithReader(reader))})
	}()
	nothing := map[string]float64{"age": 0, "depth": 0, "held": 0, "dead.depth": 0, "invalidation.age": 0, "size": 1}
	observed(t, standby, nothing)
	observed(t, reader, nothing)
	d.changeThing("k", 1)
	d.changeThing("k", 2)
	waiting := map[string]float64{"age": 0.5, "depth": 2, "held": 0, "dead.depth": 0, "invalidation.age": 0.5, "size": 1}
	observed(t, reader, waiting)
	waiting["relay.active"] = 0
	observed(t, standby, waiting)
	if got := read(t, standby); got["loadline.outbox.age"] > 60 || got["loadline.outbox.depth"] != 2 {
		t.Errorf("got %v", got)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if got := read(t, reader); len(got) != 0 {
		t.Errorf("it has ended, and there is %v", got)
	}
}

// The rest of a held key waits as well, while all other events go.
func TestObserveHeld(t *testing.T) {
	t.Parallel()
	d, b := open(t), &broker{}
	b.does(func(_ context.Context, messages []events.Raw) []error {
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
	c.MeterProvider, c.RetryDelay = metric.NewMeterProvider(metric.WithReader(reader)), time.Hour
	relay(t, c)
	d.add(event(t, "bad", 1), event(t, "bad", 2), event(t, "good", 1))
	published(t, b, 1)
	observed(t, reader, map[string]float64{"age": 1, "held": 1, "relay.active": 1, "published": 1})
	published(t, b, 1)
}

// The lag of the drained mark grows while a writer's transaction is open that the cache must
// hear of, and while the cache is away.
func TestObserveDrained(t *testing.T) {
	t.Parallel()
	d := open(t)
	invalidated := &cache{}
	reader := metric.NewManualReader()
	c := quick(d, &broker{})
	c.Invalidator, c.MeterProvider = invalidated, metric.NewMeterProvider(metric.WithReader(reader))
	relay(t, c)
	drained := func() {
		t.Helper()
		within(t, 5*time.Second, func() error {
			if lag, ok := read(t, reader)["loadline.outbox.drained.lag"]; !ok || lag > 0.25 {
				return fmt.Errorf("the lag is %v (%v)", lag, ok)
			}
			return nil
		})
	}
	drained()
	tx, err := d.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.Background()) }()
	if err := outbox.AddInvalidation(t.Context(), tx, []byte("k")); err != nil {
		t.Fatal(err)
	}
	observed(t, reader, map[string]float64{"drained.lag": 0.5, "invalidation.age": 0})
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	drained()
	invalidated.goes(errors.New("away"))
	d.changeThing("k", 1)
	observed(t, reader, map[string]float64{"drained.lag": 0.5, "invalidation.age": 0.5})
	invalidated.goes(nil)
	observed(t, reader, map[string]float64{"invalidation.age": 0})
}

func TestObserveRefuses(t *testing.T) {
	t.Parallel()
	if err := outbox.Observe(t.Context(), (*pgx.Conn)(nil), outbox.ObserveConfig{Every: time.Millisecond}); err == nil {
		t.Error("a thousand readings a second were taken")
	}
}

// A reading that takes too long ends, and nothing else does: the relay, which needs nothing of
// that table, keeps its connection.
func TestObserveSlow(t *testing.T) {
	t.Parallel()
	d, b := open(t), &broker{}
	relay(t, quick(d, b))
	d.add(event(t, "k", 1))
	published(t, b, 1)
	tx, err := d.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.Background()) }()
	if _, err := tx.Exec(t.Context(), "lock table loadline.outbox_invalidation in access exclusive mode"); err != nil {
		t.Fatal(err)
	}
	slow := func() int64 {
		return d.int(`select count(*) from pg_stat_activity where datname = current_database()
			and application_name = 'loadline outbox relay' and wait_event_type = 'Lock'`)
	}
	within(t, 30*time.Second, func() error {
		if slow() == 0 {
			return errors.New("no reading waits")
		}
		return nil
	})
	began := time.Now()
	within(t, 5*time.Second, func() error {
		if slow() != 0 {
			return errors.New("the reading goes on")
		}
		return nil
	})
	if took := time.Since(began); took > 1800*time.Millisecond { // StatementTimeout is 2 s
		t.Errorf("the reading took %v", took)
	}
	d.add(event(t, "k", 2))
	published(t, b, 2)
	if epoch := d.int("select epoch from loadline.outbox_relay"); epoch != 1 {
		t.Errorf("the lease has been taken %d times", epoch)
	}
}
