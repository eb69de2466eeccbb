package inbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/loadlinehq/loadline/events"
)

// Migrations make the tables, in goose's form, in the schema loadline.
var Migrations, _ = fs.Sub(migrations, "migrations")

// DefaultSettle is events.DefaultAckWait: who has been silent for longer has lost his event
// to another.
const DefaultSettle = events.DefaultAckWait

// DefaultRetention is longer than the broker keeps events (72 h), and a weekend.
const DefaultRetention = 7 * 24 * time.Hour

const (
	maintainEvery = time.Hour
	maintainAgain = time.Minute
	// ahead is how many days have a partition before they begin: clocks that are fast, and
	// a maintenance that has stood still over a weekend.
	ahead = 4
)

// DB opens transactions; db.Router does. InTx commits when f returns nil.
type DB interface {
	InTx(ctx context.Context, f func(ctx context.Context, tx pgx.Tx) error) error
}

// Config says where the inbox is. Only DB is required.
type Config struct {
	DB DB
	// Group is whose effects these are: that of the consumer. Default that of package
	// events.
	Group string
	// Retention is how long ids are kept, from the event's own time on. Default 7 days. It
	// must be longer than the broker keeps events; shorter, and late repeats have their
	// effect twice.
	Retention time.Duration
	// Settle is how long after a failover an acknowledgement of before may arrive, for
	// [Inbox.Follow]. Default 30 s: that of a handler's time to its heartbeat.
	Settle time.Duration
	// Cause, if it is set, is asked in the transaction of the effect, before it, whether what the
	// event tells of still is; outbox.Cause knows. An events.ErrCauseLost sends the event to the dead
	// letters, and undoes the transaction.
	Cause func(ctx context.Context, m *events.Message) error
	// Recent, if it is set, is asked before a transaction is opened whether the event was
	// handled lately, and told afterwards. It is used while [Inbox.Follow] runs, which knows
	// whether a failover may have lost what was handled. Transactions must not turn
	// synchronous_commit off then, since nobody would know what a crash has lost, and DB must
	// not write to an old primary when it has seen the new one: a db.Router does not.
	Recent Recent
	// Logger gets what maintenance could not do. Default slog.Default().
	Logger *slog.Logger
}

// Inbox is that of a group. It may be used by several goroutines.
type Inbox struct {
	c      Config
	recent recent
}

// New checks the configuration.
func New(c Config) (*Inbox, error) {
	if c.Group == "" {
		c.Group = events.DefaultGroup
	}
	if c.Retention == 0 {
		c.Retention = DefaultRetention
	}
	if c.Settle == 0 {
		c.Settle = DefaultSettle
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	var errs []error
	if c.DB == nil {
		errs = append(errs, errors.New("inbox: Config.DB is missing: it opens the transactions, as a db.Router does"))
	}
	if c.Retention < 24*time.Hour {
		errs = append(errs, fmt.Errorf("inbox: Config.Retention is %v, less than a day", c.Retention))
	}
	if c.Settle < 0 {
		errs = append(errs, fmt.Errorf("inbox: Config.Settle is %v, less than nothing", c.Settle))
	}
	if least := 2 * confirmedFor; c.Recent != nil && c.Settle < least {
		errs = append(errs, fmt.Errorf("inbox: Config.Settle is %v, less than the %v that Recent needs: members that have not noticed a failover yet believe it", c.Settle, least))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return &Inbox{c: c, recent: recent{Recent: c.Recent}}, nil
}

// Querier is what a statement needs of a transaction.
type Querier interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

// Insert notes in the transaction that the group handles the event, and reports whether
// it does so for the first time. If not, nothing must be done: commit or roll back, as you
// like. A second transaction with the same event waits for the first to end.
func (i *Inbox) Insert(ctx context.Context, tx Querier, m *events.Message) (first bool, err error) {
	tag, err := tx.Exec(ctx, "INSERT INTO loadline.inbox (day, consumer, id) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING", day(m), i.c.Group, m.ID)
	if err != nil {
		return false, named(err)
	}
	return tag.RowsAffected() == 1, nil
}

func day(m *events.Message) time.Time { return m.Time.UTC().Truncate(24 * time.Hour) }

// named says what to do about a table that is not there.
func named(err error) error {
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok && (pg.Code == "42P01" || pg.Code == "3F000") {
		return fmt.Errorf("inbox: %w; the tables are made by inbox.Migrations, which `loadline migrate` applies", err)
	}
	return fmt.Errorf("inbox: %w", err)
}

// Handle is a handler that gives an event to f in a transaction, once: f's effect and the
// note that it is done are committed together. When f fails, neither is. The context
// carries the transaction, for a db.Router's handles.
func Handle[T any](i *Inbox, f func(ctx context.Context, tx pgx.Tx, e events.Event[T]) error) func(context.Context, events.Event[T]) error {
	return func(ctx context.Context, e events.Event[T]) error {
		messages := []*events.Message{&e.Message}
		handled, timeline := i.handled(ctx, messages)
		if handled != nil && handled[0] {
			return nil
		}
		began := false
		err := i.c.DB.InTx(ctx, func(ctx context.Context, tx pgx.Tx) error {
			began = false // InTx may try again
			if err := i.caused(ctx, &e.Message); err != nil {
				return err
			}
			first, err := i.Insert(ctx, tx, &e.Message)
			if err != nil || !first {
				return err
			}
			began = true
			return f(ctx, tx, e)
		})
		if err == nil {
			i.put(ctx, messages, timeline)
		}
		return away(err, began)
	}
}

// HandleBatch is a handler for events.HandleBatch that gives those events of a batch to f
// which are handled for the first time, in one transaction for all; f is not called when
// there are none.
func HandleBatch[T any](i *Inbox, f func(ctx context.Context, tx pgx.Tx, all []events.Event[T]) error) func(context.Context, []events.Event[T]) error {
	return func(ctx context.Context, all []events.Event[T]) error {
		handled, timeline := i.handled(ctx, ids(all))
		if handled != nil {
			left := make([]events.Event[T], 0, len(all))
			for n, e := range all {
				if !handled[n] {
					left = append(left, e)
				}
			}
			if all = left; len(all) == 0 {
				return nil
			}
		}
		began := false
		err := i.c.DB.InTx(ctx, func(ctx context.Context, tx pgx.Tx) error {
			began = false // InTx may try again
			if err := i.caused(ctx, ids(all)...); err != nil {
				return err // one by one, then
			}
			first, err := i.insertAll(ctx, tx, ids(all))
			if err != nil {
				return err
			}
			fresh := make([]events.Event[T], 0, len(all))
			for _, e := range all {
				if first[e.ID] {
					delete(first, e.ID) // a batch may have an event twice
					fresh = append(fresh, e)
				}
			}
			if len(fresh) == 0 {
				return nil
			}
			began = true
			return f(ctx, tx, fresh)
		})
		if err == nil {
			i.put(ctx, ids(all), timeline)
		}
		return away(err, began)
	}
}

func (i *Inbox) caused(ctx context.Context, all ...*events.Message) error {
	if i.c.Cause == nil {
		return nil
	}
	for _, m := range all {
		if err := i.c.Cause(ctx, m); err != nil {
			return err
		}
	}
	return nil
}

// away marks errors of a database that is away, which are not the event's fault: those
// before the handler has begun. After that it may be, as when it crashes its backend. A db.Router
// says so itself.
func away(err error, began bool) error {
	if err == nil || began {
		return err
	}
	if _, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		return events.Unavailable(err)
	}
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		switch pg.Code {
		case "53300", "57P01", "57P02", "57P03": // too many connections, it shuts down, has crashed, starts
			return events.Unavailable(err)
		}
		return err
	}
	if _, ok := errors.AsType[net.Error](err); ok || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return events.Unavailable(err)
	}
	return err
}

func ids[T any](all []events.Event[T]) []*events.Message {
	messages := make([]*events.Message, len(all))
	for i := range all {
		messages[i] = &all[i].Message
	}
	return messages
}

// insertAll inserts in the order of ids, so that two batches with some of the same do not
// wait for each other.
func (i *Inbox) insertAll(ctx context.Context, tx pgx.Tx, messages []*events.Message) (first map[string]bool, err error) {
	days, all := make([]time.Time, len(messages)), make([]string, len(messages))
	for j, m := range messages {
		days[j], all[j] = day(m), m.ID
	}
	rows, err := tx.Query(ctx, `INSERT INTO loadline.inbox (day, consumer, id)
		SELECT day, $2, id FROM unnest($1::date[], $3::text[]) AS e (day, id) ORDER BY id
		ON CONFLICT DO NOTHING RETURNING id`, days, i.c.Group, all)
	if err != nil {
		return nil, named(err)
	}
	first = make(map[string]bool, len(messages))
	var id string
	if _, err := pgx.ForEachRow(rows, []any{&id}, func() error { first[id] = true; return nil }); err != nil {
		return nil, named(err)
	}
	return first, nil
}

// Once runs a statement that is the whole effect, in one round trip: half as long again as
// fast as without an inbox, where the transaction had two statements. The statement takes
// its rows from "first", which has one row if the event is handled for the first time, and
// none otherwise; its own parameters are numbered from $4:
//
//	in.Once(ctx, router.Write(ctx), &e.Message,
//		"UPDATE article SET views = views + 1 FROM first WHERE article.id = $4", e.Payload.Article)
func (i *Inbox) Once(ctx context.Context, db Querier, m *events.Message, sql string, args ...any) (pgconn.CommandTag, error) {
	const with = "WITH first AS (INSERT INTO loadline.inbox (day, consumer, id) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING RETURNING 1)\n"
	tag, err := db.Exec(ctx, with+sql, append([]any{day(m), i.c.Group, m.ID}, args...)...)
	if err != nil {
		return tag, named(err)
	}
	return tag, nil
}
