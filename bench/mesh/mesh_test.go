package mesh_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/loadlinehq/loadline/events"
	"github.com/loadlinehq/loadline/inbox"
	"github.com/loadlinehq/loadline/internal/ratio"
	"github.com/loadlinehq/loadline/outbox"
)

// patience is what nothing here takes.
const patience = 2 * time.Minute

func compare(b *testing.B, what string, pairs int, baseline, variant func() (time.Duration, error)) {
	b.Helper()
	var result ratio.Result
	for b.Loop() {
		var err error
		if result, err = ratio.Measure(pairs, baseline, variant); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(result.Median, "ratio")
	fmt.Printf("# %s: %s\n", what, result)
}

// each has workers do something so many times together.
func each(workers, times int, do func(i int) error) error {
	var wait sync.WaitGroup
	var next atomic.Int64
	var failed atomic.Pointer[error]
	for range workers {
		wait.Go(func() {
			for i := int(next.Add(1)) - 1; i < times; i = int(next.Add(1)) - 1 {
				if err := do(i); err != nil {
					failed.Store(&err)
					return
				}
			}
		})
	}
	wait.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}

func (p *path) finish() error {
	select {
	case <-p.all:
		return nil
	case <-time.After(patience):
		p.mu.Lock()
		defer p.mu.Unlock()
		return fmt.Errorf("of %d, %d were handled after %v", p.want, len(p.handled), patience)
	}
}

// latency returns the median from the return of COMMIT to the handler, at 300 a second.
func (p *path) latency() (time.Duration, error) {
	const n = 450
	p.round(n)
	tick := time.NewTicker(time.Second / 300)
	defer tick.Stop()
	var wait sync.WaitGroup
	var failed atomic.Pointer[error]
	for range n {
		<-tick.C
		wait.Go(func() {
			if err := p.write(context.Background()); err != nil {
				failed.Store(&err)
			}
		})
	}
	wait.Wait()
	if err := failed.Load(); err != nil {
		return 0, *err
	}
	if err := p.finish(); err != nil {
		return 0, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	var took []time.Duration
	for n, at := range p.committed {
		took = append(took, max(time.Microsecond, p.handled[n].Sub(at))) // it may be faster than COMMIT's answer
	}
	slices.Sort(took)
	return took[len(took)/2], nil
}

// through returns how long it takes for things by 16 writers to be handled.
func (p *path) through() (time.Duration, error) {
	const n, writers = 1600, 16
	p.round(n)
	began := time.Now()
	if err := each(writers, n, func(int) error { return p.write(context.Background()) }); err != nil {
		return 0, err
	}
	if err := p.finish(); err != nil {
		return 0, err
	}
	return time.Since(began), nil
}

// From COMMIT to the handler, at 300 transactions a second: the median, against River's.
func BenchmarkLatency(b *testing.B) {
	s := open(b)
	outbox, river, watermill := newPath(b, s, newOurs), newPath(b, s, newJobs), newPath(b, s, newPolled)
	var all []time.Duration
	ours := func() (time.Duration, error) {
		took, err := outbox.latency()
		all = append(all, took)
		return took, err
	}
	b.Run("River", func(b *testing.B) {
		compare(b, "commit to handler at 300/s, outbox and JetStream / River with its cooldown at 1 ms", 20, river.latency, ours)
	})
	b.Run("Watermill", func(b *testing.B) {
		compare(b, "commit to handler at 300/s, outbox and JetStream / Watermill polling each 10 ms", 20, watermill.latency, ours)
	})
	slices.Sort(all)
	fmt.Printf("# commit to handler at 300/s, outbox and JetStream: %v\n", all[len(all)/2].Round(10*time.Microsecond))
}

// Transactions by 16 writers that are handled in a second: the ratio is that of the rates,
// above 1 where ours is higher.
func BenchmarkSustained(b *testing.B) {
	s := open(b)
	outbox, river := newPath(b, s, newOurs), newPath(b, s, newJobs)
	watermill, forwarded := newPath(b, s, newPolled), newPath(b, s, newForwarded)
	b.Run("River", func(b *testing.B) {
		compare(b, "rate through outbox and JetStream / through River", 20, outbox.through, river.through)
	})
	b.Run("WatermillForwarder", func(b *testing.B) {
		compare(b, "rate through outbox and JetStream / through Watermill's, polling each 10 ms, its forwarder and JetStream", 20, outbox.through, forwarded.through)
	})
	b.Run("WatermillSQL", func(b *testing.B) {
		compare(b, "rate through outbox and JetStream / through Watermill's table alone, without a broker, polling each 10 ms", 20, outbox.through, watermill.through)
	})
	outbox.oneTrip = true
	b.Run("WatermillSQLOneTrip", func(b *testing.B) {
		compare(b, "the same where our writer needs one round trip, as outbox.Queue allows", 20, outbox.through, watermill.through)
	})
}

// A backlog of 10,000 rows until the last is acknowledged, against nats.go publishing the
// same number of the same size, from memory. The ratio is that of the rates.
func BenchmarkBacklog(b *testing.B) {
	s := open(b)
	const backlog = 10_000
	d := s.driver(b)
	conn, err := nats.Connect(s.nats)
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		b.Fatal(err)
	}
	stream, err := js.Stream(b.Context(), "EVENTS")
	if err != nil {
		b.Fatal(err)
	}
	relay, err := outbox.NewRelay(outbox.RelayConfig{DSN: s.url, Driver: d, Logger: quiet})
	if err != nil {
		b.Fatal(err)
	}
	background(b, relay.Run)
	ctx := b.Context()
	ours := func() (time.Duration, error) {
		if err := stream.Purge(ctx); err != nil {
			return 0, err
		}
		if _, err := s.Exec(ctx, `insert into loadline.outbox (type, payload) select 'thing.happened', to_json($2::text) from generate_series(1, $1::int)`, backlog, padding); err != nil {
			return 0, err
		}
		began := time.Now()
		relay.Wake()
		for left := 1; left > 0; {
			if err := s.QueryRow(ctx, "select count(*) from (select from loadline.outbox limit 1) o").Scan(&left); err != nil {
				return 0, err
			}
			time.Sleep(time.Millisecond)
			if time.Since(began) > patience {
				return 0, errors.New("the backlog does not drain")
			}
		}
		return time.Since(began), nil
	}
	body := []byte(strings.Repeat("x", 400))
	raw := func() (time.Duration, error) {
		if err := stream.Purge(ctx); err != nil {
			return 0, err
		}
		began := time.Now()
		for range backlog {
			if _, err := js.PublishMsgAsync(&nats.Msg{Subject: "events.thing.happened", Data: body}); err != nil {
				return 0, err
			}
		}
		select {
		case <-js.PublishAsyncComplete():
			return time.Since(began), nil
		case <-time.After(patience):
			return 0, errors.New("the messages are not acknowledged")
		}
	}
	compare(b, "rate of draining a backlog / of nats.go publishing from memory", 20, ours, raw)
}

// Handlers of one insert each, through the inbox: in batches of 50, and one by one; called by
// 16 workers, and by a group of consumers with events that wait in the broker, which has the work
// of delivering and acknowledging each event either way. The ratio is that of the rates.
func BenchmarkBatches(b *testing.B) {
	s := open(b)
	d := s.driver(b)
	in, err := inbox.New(inbox.Config{DB: transactions{s}, Logger: quiet})
	if err != nil {
		b.Fatal(err)
	}
	if err := in.Maintain(b.Context(), time.Now()); err != nil {
		b.Fatal(err)
	}
	publisher, err := events.NewPublisher(d, events.PublisherConfig{})
	if err != nil {
		b.Fatal(err)
	}
	insert := inbox.Handle(in, func(ctx context.Context, tx pgx.Tx, e events.Event[thing]) error {
		_, err := tx.Exec(ctx, "INSERT INTO effect (n) VALUES ($1)", e.Payload.N)
		return err
	})
	insertAll := inbox.HandleBatch(in, func(ctx context.Context, tx pgx.Tx, all []events.Event[thing]) error {
		var numbers []int64
		for _, e := range all {
			numbers = append(numbers, e.Payload.N)
		}
		_, err := tx.Exec(ctx, "INSERT INTO effect (n) SELECT unnest($1::bigint[])", numbers)
		return err
	})
	const n, size = 8000, 50
	b.Run("Handlers", func(b *testing.B) {
		call := func(size int, handle func(ctx context.Context, all []events.Event[thing]) error) func() (time.Duration, error) {
			return func() (time.Duration, error) {
				all := make([]events.Event[thing], n)
				for i := range all {
					m, err := happens.New(thing{int64(i), padding})
					if err != nil {
						return 0, err
					}
					all[i] = events.Event[thing]{Message: m, Payload: thing{N: int64(i)}}
				}
				began := time.Now()
				err := each(16, n/size, func(i int) error { return handle(b.Context(), all[i*size:(i+1)*size]) })
				return time.Since(began), err
			}
		}
		compare(b, "rate of handlers in batches of 50 / one by one, by 16 workers", 20, call(size, insertAll), call(1, func(ctx context.Context, all []events.Event[thing]) error {
			return insert(ctx, all[0])
		}))
	})
	round := 0
	drain := func(handle func(c *events.Consumer, t events.Type[thing], done func(int))) func() (time.Duration, error) {
		return func() (time.Duration, error) {
			round++
			typ := events.Define[thing](fmt.Sprintf("thing.r%d", round), events.V1)
			for sent := 0; sent < n; sent += 500 {
				var all []events.Message
				for i := range min(500, n-sent) {
					m, err := typ.New(thing{int64(sent + i), padding})
					if err != nil {
						return 0, err
					}
					all = append(all, m)
				}
				if err := publisher.Publish(b.Context(), all...); err != nil {
					return 0, err
				}
			}
			c, err := events.NewConsumer(d, events.ConsumerConfig{Group: fmt.Sprintf("round-%d", round), Logger: quiet})
			if err != nil {
				return 0, err
			}
			ctx, cancel := context.WithTimeout(b.Context(), patience)
			defer cancel()
			var count atomic.Int64
			var last atomic.Pointer[time.Time]
			handle(c, typ, func(more int) {
				if count.Add(int64(more)) == int64(n) {
					now := time.Now()
					last.Store(&now)
					cancel()
				}
			})
			began := time.Now()
			if err := c.Run(ctx); err != nil {
				return 0, err
			}
			if last.Load() == nil {
				return 0, fmt.Errorf("%d of %d were handled", count.Load(), n)
			}
			return last.Load().Sub(began), nil
		}
	}
	single := func(c *events.Consumer, t events.Type[thing], done func(int)) {
		events.Handle(c, t, func(ctx context.Context, e events.Event[thing]) error {
			err := insert(ctx, e)
			if err == nil {
				done(1)
			}
			return err
		})
	}
	batches := func(c *events.Consumer, t events.Type[thing], done func(int)) {
		events.HandleBatch(c, t, events.BatchConfig{Size: size}, func(ctx context.Context, all []events.Event[thing]) error {
			err := insertAll(ctx, all)
			if err == nil {
				done(len(all))
			}
			return err
		})
	}
	b.Run("Group", func(b *testing.B) {
		compare(b, "rate of a group that handles in batches of 50 / one by one, 16 at a time", 20, drain(batches), drain(single))
	})
}

// transactions are those of an application without db.Router.
type transactions struct{ servers }

func (t transactions) InTx(ctx context.Context, f func(context.Context, pgx.Tx) error) error {
	return pgx.BeginFunc(ctx, t.Pool, func(tx pgx.Tx) error { return f(ctx, tx) })
}
