package db

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/loadlinehq/loadline/causal"
	"github.com/loadlinehq/loadline/tenancy"
)

// Defaults of [BatcherConfig].
const (
	// DefaultBatchRows is where one statement more costs nothing any more: unnest is fastest up to some thousand rows.
	DefaultBatchRows = 1000
	// DefaultBatchQueue is some seconds of what a primary takes.
	DefaultBatchQueue = 10_000
	// DefaultBatchesAtOnce: while one is committed, the next collects.
	DefaultBatchesAtOnce = 2
)

// BatcherConfig says how rows become a statement. SQL and Args are required.
type BatcherConfig[T any] struct {
	// SQL writes all rows that its arguments have, such as
	//
	//	INSERT INTO view (article, day, n) SELECT article, day, count(*) FROM unnest($1::bigint[], $2::date[]) AS v (article, day) GROUP BY 1, 2
	//	ON CONFLICT (article, day) DO UPDATE SET n = view.n + excluded.n
	//
	// One row by itself has to do what the same row does among others.
	SQL string
	// Args makes the statement's arguments of rows: a slice for each column.
	Args func(rows []T) []any
	// Scan, if it is there, reads what the statement returns, into the rows when T is a pointer. RETURNING gives rows in the order in which
	// they were written, and leaves out those of ON CONFLICT DO NOTHING: have the statement return by what a row is known. The rows are written
	// also where Scan fails; all their callers get its error.
	Scan func(returned pgx.Rows, rows []T) error

	// MaxRows bounds a statement. Default 1000.
	MaxRows int
	// Queue bounds the rows that wait, of all tenants; more are [ErrPoolSaturated]. Default 10,000.
	Queue int
	// AtOnce bounds the statements that run at once, each on a connection of the primary's pool. Default 2.
	AtOnce int
	// Delay is how long a row waits for others, although a statement could go. Default not at all: those that come while one runs go
	// together. More trades each caller's time for fewer commits where few write at a time.
	Delay time.Duration
	// Timeout bounds a statement, at the server. Default that of the pool.
	Timeout time.Duration
}

// Batcher writes rows that come one by one, from many callers, as few statements. A commit waits for the disk, and a hundred rows in one statement wait
// once. While a statement runs, the rows that come collect, and go together with the next: the more there are, the more go together, and
// who is alone does not wait.
//
// Each caller gets its own outcome. When a statement fails by what one of its rows is, its halves are tried by themselves, and theirs, until the bad one
// fails alone. The rows of a tenant, as package tenancy has it, go with those of the same tenant alone.
type Batcher[T any] struct {
	r *Router
	c BatcherConfig[T]

	mu      sync.Mutex
	queues  map[string][]*batched[T] // of tenants, none of them empty
	turns   []string                 // whose turn it is, first to last
	waiting int                      // rows, with those whose callers have gone
	running int                      // statements, or goroutines that wait for Delay
	closed  bool
	idle    chan struct{} // closed when nothing runs after Close
}

// batched is a row and its caller.
type batched[T any] struct {
	ctx  context.Context
	row  T
	done chan error // holds one

	sent, gone bool // guarded by Batcher.mu
}

// NewBatcher returns an error for a configuration that cannot be. Close it before the router.
func NewBatcher[T any](r *Router, c BatcherConfig[T]) (*Batcher[T], error) {
	def(&c.MaxRows, DefaultBatchRows)
	def(&c.Queue, DefaultBatchQueue)
	def(&c.AtOnce, DefaultBatchesAtOnce)
	var errs []error
	wrong := func(is bool, format string, args ...any) {
		if is {
			errs = append(errs, fmt.Errorf("db: BatcherConfig."+format, args...))
		}
	}
	wrong(c.SQL == "", "SQL is empty: it is the statement that writes rows, by unnest")
	wrong(c.Args == nil, "Args is missing: it makes the statement's arguments")
	wrong(c.MaxRows < 1, "MaxRows is %d, less than 1", c.MaxRows)
	wrong(c.Queue < 1, "Queue is %d, less than 1", c.Queue)
	wrong(c.AtOnce < 1, "AtOnce is %d, less than 1", c.AtOnce)
	wrong(c.Delay < 0, "Delay is %v, less than nothing", c.Delay)
	wrong(c.Timeout < 0, "Timeout is %v, less than nothing", c.Timeout)
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return &Batcher[T]{r: r, c: c, queues: make(map[string][]*batched[T]), idle: make(chan struct{})}, nil
}

// Do writes a row and returns when it is committed; the session of the context has seen it then. In a transaction that the context carries, it is
// a statement of that. Its errors are those of [Handle.Exec]; [ErrPoolSaturated] where too many rows wait; [ErrClosed] after Close; and when
// ctx is done its cause, if the row was not sent, or an [ErrOutcomeUnknown] if it was.
func (b *Batcher[T]) Do(ctx context.Context, row T) error {
	if b.r.InTransaction(ctx) {
		return b.write(ctx, []T{row})
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	item := &batched[T]{ctx: ctx, row: row, done: make(chan error, 1)}
	if err := b.push(item); err != nil {
		return err
	}
	select {
	case err := <-item.done:
		return err
	case <-ctx.Done():
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if item.sent {
		select {
		case err := <-item.done:
			return err
		default:
			return &OutcomeUnknownError{Err: context.Cause(ctx)}
		}
	}
	item.gone = true
	return context.Cause(ctx)
}

// Close lets no more rows come, and waits until those that have are written, or ctx is done.
func (b *Batcher[T]) Close(ctx context.Context) error {
	b.mu.Lock()
	if !b.closed {
		b.closed = true
		if b.running == 0 {
			close(b.idle)
		}
	}
	b.mu.Unlock()
	select {
	case <-b.idle:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (b *Batcher[T]) push(item *batched[T]) error {
	tenant, _ := tenancy.FromContext(item.ctx)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return ErrClosed
	}
	if b.waiting >= b.c.Queue {
		return because(ErrPoolSaturated, nil, "%d rows wait to be written together", b.waiting)
	}
	if b.queues[tenant] == nil {
		b.turns = append(b.turns, tenant)
	}
	b.queues[tenant] = append(b.queues[tenant], item)
	b.waiting++
	if b.running < b.c.AtOnce {
		b.running++
		go b.run()
	}
	return nil
}

// run writes until nothing waits.
func (b *Batcher[T]) run() {
	for {
		if b.c.Delay > 0 {
			time.Sleep(b.c.Delay)
		}
		items := b.take()
		if items == nil {
			return
		}
		b.flush(items)
	}
}

// take returns the rows whose turn it is, and nil when there are none.
func (b *Batcher[T]) take() []*batched[T] {
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(b.turns) > 0 {
		tenant := b.turns[0]
		queue := b.queues[tenant]
		n := min(len(queue), b.c.MaxRows)
		items := make([]*batched[T], 0, n)
		for _, item := range queue[:n] {
			if !item.gone {
				item.sent = true
				items = append(items, item)
			}
		}
		b.waiting -= n
		b.turns = b.turns[1:]
		if n == len(queue) {
			delete(b.queues, tenant)
		} else {
			b.queues[tenant] = queue[n:]
			b.turns = append(b.turns, tenant)
		}
		if len(items) > 0 {
			return items
		}
	}
	b.running--
	if b.closed && b.running == 0 {
		close(b.idle)
	}
	return nil
}

// flush writes rows, together if that goes, and tells their callers.
func (b *Batcher[T]) flush(items []*batched[T]) {
	rows := make([]T, len(items))
	for i, item := range items {
		rows[i] = item.row
	}
	// What the first one's context carries, its trace, say, but for its end and its session.
	session := causal.NewSession(causal.Token{})
	err := b.write(causal.WithSession(context.WithoutCancel(items[0].ctx), session), rows)
	if err != nil && len(items) > 1 && byRow(err) {
		half := len(items) / 2
		b.flush(items[:half])
		b.flush(items[half:])
		return
	}
	for _, item := range items {
		if s := causal.FromContext(item.ctx); s != nil && err == nil {
			for mark := range session.Token().Marks() {
				s.Add(mark)
			}
		}
		item.done <- err
	}
}

// write is one statement. A panic of Args or Scan, which would be that of a caller, is an error of all.
func (b *Batcher[T]) write(ctx context.Context, rows []T) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("db: a batch: %v", p)
		}
	}()
	var options []Option
	if b.c.Timeout > 0 {
		options = append(options, Timeout(b.c.Timeout))
	}
	returned, err := b.r.Write(ctx, options...).Query(ctx, b.c.SQL, b.c.Args(rows)...)
	if err != nil {
		return err
	}
	defer returned.Close()
	var scanned error
	if b.c.Scan != nil {
		scanned = b.c.Scan(returned, rows)
	}
	returned.Close()
	return errors.Join(returned.Err(), scanned)
}

// byRow reports whether a statement may have failed by what one of its rows is, and nothing has been done: data, cardinality, an integrity constraint,
// a policy or view that does not let it through, or a trigger that raises.
func byRow(err error) bool {
	code := sqlState(err)
	if len(code) < 2 || errors.Is(err, ErrOutcomeUnknown) {
		return false
	}
	switch code[:2] {
	case "21", "22", "23", "44", "P0":
		return true
	}
	return code == "42501"
}
