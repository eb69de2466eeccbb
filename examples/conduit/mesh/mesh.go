package mesh

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/loadlinehq/loadline/causal"
	"github.com/loadlinehq/loadline/events"
	"github.com/loadlinehq/loadline/events/natsjs"
	"github.com/loadlinehq/loadline/examples/conduit"
	"github.com/loadlinehq/loadline/examples/conduit/postgres"
	"github.com/loadlinehq/loadline/examples/conduit/postgres/sqlc"
	"github.com/loadlinehq/loadline/inbox"
	"github.com/loadlinehq/loadline/outbox"
)

// maxOutboxBytes is minutes of a busy site: what does not fit while the broker is away
// refuses publications, comments and favourites. With a cache, all writes that it must know of
// are refused.
const maxOutboxBytes = 1 << 30

// TellGroup is the group of what [Config.Tell] runs, of all instances.
const TellGroup = "realtime"

// tellAckWait is how long who looks waits for what a member of the group has taken that then died: its handlers are short, and somebody waits.
const tellAckWait = 5 * time.Second

// tellDrain is how long what is under way may go on when the consumer ends, before another member takes it.
const tellDrain = 2 * time.Second

// Config says where the broker is, and how the database is reached.
type Config struct {
	// NATS is where the broker is.
	NATS natsjs.Config
	// DB opens the transactions of handlers, and knows what a failover has lost.
	DB outbox.Survivors
	// RelayDSN is for the relay's own connection: all servers of which one is the primary.
	RelayDSN string
	// Invalidator is the cache, nil if there is none. All processes that relay one outbox must have it, or
	// none: while one without it relays, nothing is cached.
	Invalidator outbox.Invalidator
	// Tell adds handlers to a consumer of a group of its own, such as what tells browsers, and runs it, until ctx is done at the latest: while it does
	// not, the group's other members do the work. The group begins with what happens when it is new. Default: there is none.
	Tell func(ctx context.Context, c *events.Consumer) error
	Log  *slog.Logger
}

// Mesh records what happens, and has it happen to others. Its methods may be used before
// Run is called, and while the broker is away.
type Mesh struct {
	c     Config
	box   *outbox.Outbox
	inbox *inbox.Inbox
	views *Views
	wake  chan struct{}
}

// New checks the configuration.
func New(c Config) (*Mesh, error) {
	box, err1 := outbox.New(outbox.Config{MaxBufferBytes: maxOutboxBytes})
	in, err2 := inbox.New(inbox.Config{DB: c.DB, Cause: outbox.Cause(c.DB, outbox.DefaultRetention), Logger: c.Log})
	if err := errors.Join(err1, err2, c.NATS.Validate()); err != nil {
		return nil, err
	}
	return &Mesh{c: c, box: box, inbox: in, views: NewViews(c.Log), wake: make(chan struct{}, 1)}, nil
}

// Record implements [postgres.Recorder]: by a row in the outbox.
func (m *Mesh) Record(ctx context.Context, tx sqlc.DBTX, happened any) error {
	message, err := message(happened)
	if err != nil {
		return err
	}
	batches, ok := tx.(outbox.Tx)
	if !ok {
		return fmt.Errorf("mesh: a %T cannot send batches", tx)
	}
	return m.box.Add(ctx, batches, message)
}

// AddInvalidation implements caching.Outbox.
func (m *Mesh) AddInvalidation(ctx context.Context, tx outbox.Tx, records ...[]byte) error {
	return m.box.AddInvalidation(ctx, tx, records...)
}

func message(happened any) (events.Message, error) {
	switch h := happened.(type) {
	case conduit.ArticlePublished:
		return ArticlePublished.New(h)
	case conduit.CommentWritten:
		return CommentWritten.New(h)
	case conduit.CommentDeleted:
		return CommentDeleted.New(h)
	case conduit.ArticleFavorited:
		return ArticleFavorited.New(h)
	case conduit.Notified:
		return Notified.New(h)
	}
	return events.Message{}, fmt.Errorf("mesh: %T is no event", happened)
}

// Viewed counts a view, outside of the request.
func (m *Mesh) Viewed(ctx context.Context, article int64) error { return m.views.Viewed(ctx, article) }

// Waking is a database that wakes the relay after each commit.
func (m *Mesh) Waking(db postgres.DB) postgres.DB { return waking{db, m} }

type waking struct {
	postgres.DB
	mesh *Mesh
}

func (w waking) InTx(ctx context.Context, fn func(context.Context) error) error {
	_, outer := causal.Carried(ctx)
	err := w.DB.InTx(ctx, fn)
	if err == nil && (outer == nil || outer.After(w.mesh, func() causal.AfterCommit { return committed{w.mesh} }) == nil) {
		w.mesh.wakeRelay()
	}
	return err
}

// committed wakes the relay when the transaction that another has joined is committed.
type committed struct{ mesh *Mesh }

func (c committed) Committed(context.Context, int) { c.mesh.wakeRelay() }

func (m *Mesh) wakeRelay() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// Run relays and handles events until ctx is done, and then what is under way. A broker
// that is away is tried again for ever, and the cache is told of changes meanwhile.
func (m *Mesh) Run(ctx context.Context) error {
	var g errgroup.Group
	g.Go(func() error { return m.inbox.Run(ctx) })
	g.Go(func() error {
		for {
			driver, err := m.open(ctx)
			if err != nil {
				return err
			}
			if driver == nil {
				return nil
			}
			err = m.connected(ctx, driver)
			driver.Close()
			if ctx.Err() != nil {
				return nil
			}
			m.c.Log.WarnContext(ctx, "the event mesh has ended, and begins again", slog.Any("error", err))
			time.Sleep(again/2 + rand.N(again))
		}
	})
	return g.Wait()
}

// again is the pause before what has ended begins again.
const again = time.Second

// lonely is how long the broker may be looked for before a relay without it tells the cache of changes: without one,
// nothing is cached.
const lonely = time.Second

// open returns nil when ctx is done before the broker has been reached.
func (m *Mesh) open(ctx context.Context) (*natsjs.Driver, error) {
	alone, stop := context.WithCancel(ctx)
	var g errgroup.Group
	defer func() {
		stop()
		_ = g.Wait() // the relay has said what was wrong
	}()
	if m.c.Invalidator != nil {
		relay, err := outbox.NewRelay(outbox.RelayConfig{DSN: m.c.RelayDSN, Invalidator: m.c.Invalidator, Logger: m.c.Log})
		if err != nil {
			return nil, err
		}
		g.Go(func() error {
			select {
			case <-time.After(lonely):
				return relay.Run(alone)
			case <-alone.Done():
				return nil
			}
		})
	}
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, 5*time.Second) {
		driver, err := natsjs.Open(ctx, m.c.NATS)
		if err == nil {
			return driver, nil
		}
		if ctx.Err() != nil {
			return nil, nil
		}
		m.c.Log.WarnContext(ctx, "the broker does not answer; it is tried again", slog.Duration("after", pause), slog.Any("error", err))
		select {
		case <-ctx.Done():
			return nil, nil
		case <-time.After(pause/2 + rand.N(pause)):
		}
	}
}

// connected runs until ctx is done, or something cannot go on.
func (m *Mesh) connected(ctx context.Context, driver *natsjs.Driver) error {
	relay, err := outbox.NewRelay(outbox.RelayConfig{
		DSN: m.c.RelayDSN, Driver: driver, Hints: driver.Hints("outbox"), Source: Source, Invalidator: m.c.Invalidator, Logger: m.c.Log,
	})
	if err != nil {
		return err
	}
	consumer, err := events.NewConsumer(driver, events.ConsumerConfig{Logger: m.c.Log})
	if err != nil {
		return err
	}
	m.handle(consumer)
	members := []func(context.Context) error{consumer.Run}
	if m.c.Tell != nil {
		told, err := events.NewConsumer(driver, events.ConsumerConfig{Group: TellGroup, StartAt: time.Now().Add(-time.Minute), AckWait: tellAckWait, DrainTimeout: tellDrain, Logger: m.c.Log})
		if err != nil {
			return err
		}
		members = append(members, func(ctx context.Context) error { return m.c.Tell(ctx, told) })
	}
	publisher, err := events.NewPublisher(driver, events.PublisherConfig{Source: Source})
	if err != nil {
		return err
	}
	m.c.Log.InfoContext(ctx, "the event mesh runs")
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return driver.Run(ctx) })
	g.Go(func() error { return relay.Run(ctx) })
	for _, run := range members {
		g.Go(func() error { return run(ctx) })
	}
	g.Go(func() error {
		err := m.inbox.Follow(ctx, consumer)
		if errors.Is(err, events.ErrNoRewind) { // an old server: all else works
			m.c.Log.ErrorContext(ctx, "what a failover loses of handled events will not be handled again", slog.Any("error", err))
			return nil
		}
		return err
	})
	g.Go(func() error { return m.views.Run(ctx, publisher) })
	g.Go(func() error {
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-m.wake:
				relay.Wake()
			}
		}
	})
	return g.Wait()
}
