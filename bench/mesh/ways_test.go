package mesh_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill-nats/v2/pkg/nats"
	"github.com/ThreeDotsLabs/watermill-sql/v4/pkg/sql"
	"github.com/ThreeDotsLabs/watermill/components/forwarder"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"

	"github.com/loadlinehq/loadline/events"
	"github.com/loadlinehq/loadline/events/natsjs"
	"github.com/loadlinehq/loadline/inbox"
	"github.com/loadlinehq/loadline/internal/migrate"
	"github.com/loadlinehq/loadline/internal/stack"
	"github.com/loadlinehq/loadline/internal/stack/stacktest"
	"github.com/loadlinehq/loadline/outbox"
)

// thing is what each way carries: 300 bytes.
type thing struct {
	N    int64  `json:"n"`
	Text string `json:"text"`
}

func (thing) Kind() string { return "thing" } // for River

var (
	padding = strings.Repeat("x", 270)
	quiet   = slog.New(slog.DiscardHandler)
	happens = events.Define[thing]("thing.happened", events.V1)
)

// way is from a transaction to a handler.
type way interface {
	// add adds a thing to the writer's transaction.
	add(ctx context.Context, tx pgx.Tx, t thing) error
	// committed is called after it.
	committed()
}

// servers are of the benchmark's own; commits wait for the disk.
type servers struct {
	*pgxpool.Pool
	url, nats string
}

func open(b *testing.B) servers {
	b.Helper()
	s := stacktest.Own(b, stack.Config{})
	// Past the fault proxies, which would cost each message their own.
	direct := make(map[string]string)
	for _, service := range s.Services() {
		direct[service.Name] = service.Direct
	}
	url, broker := stack.SuperuserURL(direct["primary"]), "nats://"+direct["nats"]
	if _, err := migrate.Up(b.Context(), url, migrate.Set{Name: "outbox", Files: outbox.Migrations}, migrate.Set{Name: "inbox", Files: inbox.Migrations}); err != nil {
		b.Fatal(err)
	}
	pool := connect(b, url)
	if _, err := pool.Exec(b.Context(), "CREATE TABLE work (n bigint, text text); CREATE TABLE effect (n bigint)"); err != nil {
		b.Fatal(err)
	}
	return servers{pool, url, broker}
}

// connect gives each way a pool of its own.
func connect(b *testing.B, url string) *pgxpool.Pool {
	b.Helper()
	c, err := pgxpool.ParseConfig(url)
	if err != nil {
		b.Fatal(err)
	}
	c.MaxConns = 24
	pool, err := pgxpool.NewWithConfig(b.Context(), c)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(pool.Close)
	return pool
}

// background runs what ends with the benchmark.
func background(b *testing.B, run ...func(ctx context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	var wait sync.WaitGroup
	for _, run := range run {
		wait.Go(func() {
			if err := run(ctx); err != nil && ctx.Err() == nil {
				b.Error(err)
			}
		})
	}
	b.Cleanup(func() { cancel(); wait.Wait() })
}

func (s servers) driver(b *testing.B) *natsjs.Driver {
	b.Helper()
	d, err := natsjs.Open(b.Context(), natsjs.Config{URL: s.nats, MaxBytes: 1 << 30, DeadLetterMaxBytes: 16 << 20, Logger: quiet})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = d.Close() })
	return d
}

// ours is the outbox, its relay, JetStream and a consumer.
type ours struct{ relay *outbox.Relay }

func newOurs(b *testing.B, s servers, handle func(n int64)) way {
	b.Helper()
	d := s.driver(b)
	r, err := outbox.NewRelay(outbox.RelayConfig{DSN: s.url, Driver: d, Logger: quiet})
	if err != nil {
		b.Fatal(err)
	}
	c, err := events.NewConsumer(d, events.ConsumerConfig{Logger: quiet})
	if err != nil {
		b.Fatal(err)
	}
	events.Handle(c, happens, func(_ context.Context, e events.Event[thing]) error {
		handle(e.Payload.N)
		return nil
	})
	background(b, r.Run, c.Run)
	return ours{r}
}

func (o ours) add(ctx context.Context, tx pgx.Tx, t thing) error {
	m, err := happens.New(t)
	if err != nil {
		return err
	}
	return outbox.Add(ctx, tx, m)
}

func (o ours) committed() { o.relay.Wake() }

// jobs is River, with its cooldown at its least; at its default, 100 ms, that is most of
// the latency.
type jobs struct{ client *river.Client[pgx.Tx] }

type worker struct {
	river.WorkerDefaults[thing]
	handle func(n int64)
}

func (w *worker) Work(_ context.Context, job *river.Job[thing]) error {
	w.handle(job.Args.N)
	return nil
}

func newJobs(b *testing.B, s servers, handle func(n int64)) way {
	b.Helper()
	driver := riverpgxv5.New(connect(b, s.url))
	migrator, err := rivermigrate.New(driver, nil)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := migrator.Migrate(b.Context(), rivermigrate.DirectionUp, nil); err != nil {
		b.Fatal(err)
	}
	workers := river.NewWorkers()
	river.AddWorker(workers, &worker{handle: handle})
	client, err := river.NewClient(driver, &river.Config{
		Queues: map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: 100}}, Workers: workers,
		FetchCooldown: river.FetchCooldownMin, Logger: quiet,
	})
	if err != nil {
		b.Fatal(err)
	}
	if err := client.Start(b.Context()); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = client.Stop(ctx)
	})
	return jobs{client}
}

func (j jobs) add(ctx context.Context, tx pgx.Tx, t thing) error {
	_, err := j.client.InsertTx(ctx, tx, t, nil)
	return err
}

func (jobs) committed() {}

// polled is Watermill's table, read each 10 ms.
type polled struct {
	schema sql.DefaultPostgreSQLSchema
	wrap   func(message.Publisher) message.Publisher // nil: none
}

func newPolled(b *testing.B, s servers, handle func(n int64)) way {
	b.Helper()
	schema := sql.DefaultPostgreSQLSchema{SubscribeBatchSize: 500}
	subscriber, err := sql.NewSubscriber(sql.BeginnerFromPgx(connect(b, s.url)), sql.SubscriberConfig{
		ConsumerGroup: "workers", PollInterval: 10 * time.Millisecond,
		SchemaAdapter: schema, OffsetsAdapter: sql.DefaultPostgreSQLOffsetsAdapter{}, InitializeSchema: true,
	}, watermill.NopLogger{})
	if err != nil {
		b.Fatal(err)
	}
	messages, err := subscriber.Subscribe(context.Background(), "things")
	if err != nil {
		b.Fatal(err)
	}
	var wait sync.WaitGroup
	wait.Go(func() { handleAll(b, messages, handle) })
	b.Cleanup(func() { _ = subscriber.Close(); wait.Wait() })
	return polled{schema, nil}
}

func handleAll(b *testing.B, messages <-chan *message.Message, handle func(n int64)) {
	for m := range messages {
		var t thing
		if err := json.Unmarshal(m.Payload, &t); err != nil {
			b.Error(err)
		}
		handle(t.N)
		m.Ack()
	}
}

func (p polled) add(_ context.Context, tx pgx.Tx, t thing) error {
	table, err := sql.NewPublisher(sql.TxFromPgx(tx), sql.PublisherConfig{SchemaAdapter: p.schema}, watermill.NopLogger{})
	if err != nil {
		return err
	}
	publisher := message.Publisher(table)
	if p.wrap != nil {
		publisher = p.wrap(table)
	}
	payload, err := json.Marshal(t)
	if err != nil {
		return err
	}
	return publisher.Publish("things", message.NewMessage(strconv.FormatInt(t.N, 10), payload))
}

func (polled) committed() {}

// forwarded is Watermill's outbox: its forwarder reads the table each 10 ms, and publishes to
// JetStream, where its subscriber reads.
type forwarded struct{ polled }

func newForwarded(b *testing.B, s servers, handle func(n int64)) way {
	b.Helper()
	const topic = "forwarded"
	schema := sql.DefaultPostgreSQLSchema{SubscribeBatchSize: 500}
	rows, err := sql.NewSubscriber(sql.BeginnerFromPgx(connect(b, s.url)), sql.SubscriberConfig{
		ConsumerGroup: "forwarder", PollInterval: 10 * time.Millisecond,
		SchemaAdapter: schema, OffsetsAdapter: sql.DefaultPostgreSQLOffsetsAdapter{}, InitializeSchema: true,
	}, watermill.NopLogger{})
	if err != nil {
		b.Fatal(err)
	}
	if err := rows.SubscribeInitialize(topic); err != nil {
		b.Fatal(err)
	}
	jetStream := nats.JetStreamConfig{AutoProvision: true, TrackMsgId: true, AckAsync: true, DurablePrefix: "workers"}
	publisher, err := nats.NewPublisher(nats.PublisherConfig{URL: s.nats, JetStream: jetStream}, watermill.NopLogger{})
	if err != nil {
		b.Fatal(err)
	}
	f, err := forwarder.NewForwarder(rows, publisher, watermill.NopLogger{}, forwarder.Config{ForwarderTopic: topic})
	if err != nil {
		b.Fatal(err)
	}
	subscriber, err := nats.NewSubscriber(nats.SubscriberConfig{URL: s.nats, SubscribersCount: 16, QueueGroupPrefix: "workers", JetStream: jetStream}, watermill.NopLogger{})
	if err != nil {
		b.Fatal(err)
	}
	messages, err := subscriber.Subscribe(context.Background(), "things")
	if err != nil {
		b.Fatal(err)
	}
	var wait sync.WaitGroup
	wait.Go(func() { _ = f.Run(context.Background()) })
	wait.Go(func() { handleAll(b, messages, handle) })
	b.Cleanup(func() { _ = f.Close(); _ = subscriber.Close(); _ = publisher.Close(); wait.Wait() })
	return forwarded{polled{schema, func(p message.Publisher) message.Publisher {
		return forwarder.NewPublisher(p, forwarder.PublisherConfig{ForwarderTopic: topic})
	}}}
}

// path is a way with its clock.
type path struct {
	way
	pool    *pgxpool.Pool
	next    atomic.Int64
	oneTrip bool // the writer sends all at once, of ours

	mu        sync.Mutex
	began     int64               // things of before are of another round
	committed map[int64]time.Time // when COMMIT had returned
	handled   map[int64]time.Time // when the handler was called first
	all       chan struct{}       // closed when as many are handled as were asked for
	want      int
}

func newPath(b *testing.B, s servers, make func(b *testing.B, s servers, handle func(n int64)) way) *path {
	b.Helper()
	p := &path{pool: s.Pool}
	p.way = make(b, s, p.handle)
	return p
}

func (p *path) handle(n int64) {
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, again := p.handled[n]; again || n <= p.began {
		return
	}
	p.handled[n] = now
	if len(p.handled) == p.want {
		close(p.all)
	}
}

// round begins to wait for so many.
func (p *path) round(want int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.began, p.want, p.all = p.next.Load(), want, make(chan struct{})
	p.committed, p.handled = make(map[int64]time.Time, want), make(map[int64]time.Time, want)
}

const work = "INSERT INTO work (n, text) VALUES ($1, 'some text')"

// write is the writer, whichever the way.
func (p *path) write(ctx context.Context) error {
	n := p.next.Add(1)
	commit := p.commit
	if p.oneTrip {
		commit = p.commitAtOnce
	}
	if err := commit(ctx, n); err != nil {
		return err
	}
	now := time.Now()
	p.way.committed()
	p.mu.Lock()
	p.committed[n] = now
	p.mu.Unlock()
	return nil
}

func (p *path) commit(ctx context.Context, n int64) error {
	tx, err := p.pool.Begin(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback(ctx) }()
	if _, err := tx.Exec(ctx, work, n); err != nil {
		return err
	}
	if err := p.add(ctx, tx, thing{n, padding}); err != nil {
		return err
	}
	return tx.Commit(ctx)
}

func (p *path) commitAtOnce(ctx context.Context, n int64) error {
	m, err := happens.New(thing{n, padding})
	if err != nil {
		return err
	}
	var batch pgx.Batch
	batch.Queue(work, n)
	if err := outbox.Queue(ctx, &batch, m); err != nil {
		return err
	}
	return p.pool.SendBatch(ctx, &batch).Close()
}
