package outbox_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/loadlinehq/loadline/events"
	"github.com/loadlinehq/loadline/internal/ratio"
	"github.com/loadlinehq/loadline/outbox"
)

// payload300 is an event of 300 bytes.
var payload300 = strings.Repeat("x", 280)

func events300(b *testing.B, count int) []events.Message {
	b.Helper()
	all := make([]events.Message, count)
	for i := range all {
		all[i] = event(b, payload300[:100], 1)
		all[i].Key = fmt.Sprint("k", i)
		all[i].Payload = []byte(`"` + payload300 + `"`)
	}
	return all
}

// run has workers do something for so many times together.
func together(workers, times int, do func(n int) error) func() (time.Duration, error) {
	return func() (time.Duration, error) {
		var wait sync.WaitGroup
		var n atomic.Int64
		var failed atomic.Pointer[error]
		began := time.Now()
		for range workers {
			wait.Go(func() {
				for i := int(n.Add(1)); i <= times; i = int(n.Add(1)) {
					if err := do(i - 1); err != nil {
						failed.Store(&err)
						return
					}
				}
			})
		}
		wait.Wait()
		if err := failed.Load(); err != nil {
			return 0, *err
		}
		return time.Since(began), nil
	}
}

func compare(b *testing.B, what string, pairs int, baseline, variant func() (time.Duration, error)) {
	b.Helper()
	b.Run(strings.ReplaceAll(what, " ", "_"), func(b *testing.B) { measure(b, what, pairs, baseline, variant) })
}

func measure(b *testing.B, what string, pairs int, baseline, variant func() (time.Duration, error)) {
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

// What an event costs its writer: transactions of one insert, with and without an event of
// 300 bytes, each in one round trip, by 16 writers, while a relay takes the events away. The
// ratio is that of the rates: above 1 would be faster with events. Commits wait for the disk, which
// those of the tests' servers do not: there an event costs what it costs in processor time alone.
func BenchmarkTransaction(b *testing.B) {
	d, _ := own(b)
	const workers, times = 16, 800
	all := events300(b, times)
	ctx := context.Background()
	work := func(batch *pgx.Batch) { batch.Queue("insert into work (text) values ($1)", "some text") }
	send := func(batch *pgx.Batch) error { return d.SendBatch(ctx, batch).Close() }
	with := together(workers, times, func(n int) error {
		var batch pgx.Batch
		work(&batch)
		if err := outbox.Queue(ctx, &batch, all[n]); err != nil {
			return err
		}
		return send(&batch)
	})
	without := together(workers, times, func(int) error {
		var batch pgx.Batch
		work(&batch)
		return send(&batch)
	})
	// The longer the one without, the better: rate with / rate without.
	compare(b, "rate of transactions with an event / without", 30, with, without)
	relay(b, outbox.RelayConfig{Pool: d.Pool, Driver: null{n: new(atomic.Int64)}})
	compare(b, "the same while a relay takes the events", 30, with, without)
}

// null takes all, and counts.
type null struct {
	*broker
	n *atomic.Int64
}

func (d null) Publish(_ context.Context, messages []events.Raw) []error {
	d.n.Add(int64(len(messages)))
	return make([]error, len(messages))
}

// How fast a backlog of 20,000 events of 300 bytes drains, into a broker that takes no
// time. The relay has been started before.
func BenchmarkDrain(b *testing.B) {
	for _, batch := range []int{100, 500, 2000} {
		b.Run(fmt.Sprint("batch=", batch), func(b *testing.B) {
			d := open(b)
			const backlog = 20_000
			taken := null{n: new(atomic.Int64)}
			r, _ := relay(b, outbox.RelayConfig{Pool: d.Pool, Driver: taken, Batch: batch})
			d.add(event(b, "k", 1))
			for taken.n.Load() == 0 {
				time.Sleep(time.Millisecond)
			}
			var all time.Duration
			for b.Loop() {
				// It cannot see them before the commit, and a wake that comes too early is none.
				d.exec(`insert into loadline.outbox (type, key, payload) select 'thing.changed', 'k' || i % 1000, to_json($2::text) from generate_series(1, $1::int) i`, backlog, payload300)
				began, want := time.Now(), taken.n.Load()
				want = (want-1)/backlog*backlog + backlog + 1
				for r.Wake(); taken.n.Load() < want; {
					time.Sleep(time.Millisecond)
				}
				all += time.Since(began)
			}
			b.ReportMetric(float64(backlog)*float64(b.N)/all.Seconds(), "events/s")
		})
	}
}

// Ways of taking 500 rows at a time from a backlog: reading, and deleting when they are
// published (ours); deleting first, in a transaction that stays open while they are
// published (the usual one); and locking in it, and deleting in it afterwards. No broker: what is
// measured is the database.
func BenchmarkClaim(b *testing.B) {
	d := open(b)
	const backlog, size = 10_000, 500
	ctx := context.Background()
	const archived = "insert into loadline.outbox_sent select seq, txid, id, created_at, occurred_at, key_version, shard, type, version, key, tenant, idempotency_key, token, traceparent, tracestate, payload, now() from d"
	const read = "select seq, id, key, payload::text from loadline.outbox where seq > $1 order by seq limit 500"
	conn, err := pgx.Connect(ctx, d.URL)
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close(ctx)
	type row struct {
		Seq     int64
		ID      [16]byte
		Key     string
		Payload string
	}
	take := func(rows pgx.Rows, seqs *[]int64) error {
		all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[row])
		*seqs = (*seqs)[:0]
		for i := range all {
			*seqs = append(*seqs, all[i].Seq)
		}
		return err
	}
	drain := func(claim func() (int, error)) func() (time.Duration, error) {
		return func() (time.Duration, error) {
			d.exec(`truncate loadline.outbox_sent`)
			d.exec(`insert into loadline.outbox (type, key, payload) select 'thing.changed', 'k' || i % 1000, to_json($2::text) from generate_series(1, $1::int) i`, backlog, payload300)
			began := time.Now()
			for done := 0; done < backlog; {
				n, err := claim()
				if err != nil {
					return 0, err
				}
				done += n
			}
			return time.Since(began), nil
		}
	}
	var seqs []int64
	last := int64(0)
	ours := drain(func() (int, error) {
		var batch pgx.Batch
		done := len(seqs)
		if done > 0 {
			last = seqs[done-1]
			batch.Queue("with d as (delete from loadline.outbox where seq = any($1::bigint[]) returning *) "+archived, seqs)
		}
		batch.Queue(read, last).Query(func(rows pgx.Rows) error { return take(rows, &seqs) })
		return done, conn.SendBatch(ctx, &batch).Close()
	})
	deleted := drain(func() (int, error) {
		tx, err := conn.Begin(ctx)
		if err != nil {
			return 0, err
		}
		var taken []int64
		rows, _ := tx.Query(ctx, `with d as (delete from loadline.outbox where seq = any(array(select seq from loadline.outbox where seq > $1 order by seq limit 500 for update skip locked)) returning *),
			s as (`+archived+`) select seq, id, key, payload::text from d order by seq`, last)
		if err := take(rows, &taken); err != nil {
			return 0, err
		}
		last = taken[len(taken)-1]
		return len(taken), tx.Commit(ctx)
	})
	locked := drain(func() (int, error) {
		tx, err := conn.Begin(ctx)
		if err != nil {
			return 0, err
		}
		var taken []int64
		rows, _ := tx.Query(ctx, read+" for update skip locked", last)
		if err := take(rows, &taken); err != nil {
			return 0, err
		}
		last = taken[len(taken)-1]
		if _, err := tx.Exec(ctx, "with d as (delete from loadline.outbox where seq = any($1::bigint[]) returning *) "+archived, taken); err != nil {
			return 0, err
		}
		return len(taken), tx.Commit(ctx)
	})
	compare(b, "claims that delete first / that read, and delete afterwards", 20, ours, deleted)
	compare(b, "claims that lock, and delete afterwards / that read, and delete afterwards", 20, ours, locked)
}

// From the return of COMMIT to the broker, at 300 transactions a second; and how long the
// transactions took, which says how busy the machine was.
func BenchmarkLatency(b *testing.B) {
	d, _ := own(b)
	var mu sync.Mutex
	arrived := make(map[string]time.Time)
	s := &broker{}
	s.does(func(_ context.Context, messages []events.Raw) []error {
		now := time.Now()
		mu.Lock()
		for _, m := range messages {
			arrived[m.ID] = now
		}
		mu.Unlock()
		return make([]error, len(messages))
	})
	r, _ := relay(b, outbox.RelayConfig{Pool: d.Pool, Driver: s})
	ctx := context.Background()
	committed := make(map[string]time.Time)
	var commits []time.Duration
	for b.Loop() {
		all := events300(b, 1500)
		tick := time.NewTicker(time.Second / 300)
		var wait sync.WaitGroup
		for i := range all {
			<-tick.C
			wait.Go(func() {
				var batch pgx.Batch
				batch.Queue("insert into work (text) values ($1)", "some text")
				if err := outbox.Queue(ctx, &batch, all[i]); err != nil {
					b.Error(err)
				}
				began := time.Now()
				if err := d.SendBatch(ctx, &batch).Close(); err != nil {
					b.Error(err)
				}
				now := time.Now()
				r.Wake()
				mu.Lock()
				commits = append(commits, now.Sub(began))
				committed[all[i].ID] = now
				mu.Unlock()
			})
		}
		wait.Wait()
		d.empty()
	}
	mu.Lock()
	defer mu.Unlock()
	var took []time.Duration
	for id, at := range committed {
		took = append(took, max(0, arrived[id].Sub(at)))
	}
	report := func(all []time.Duration, what string) {
		for _, p := range []int{50, 99} {
			b.ReportMetric(float64(percentile(all, p).Microseconds())/1000, fmt.Sprintf("%s-p%d-ms", what, p))
		}
	}
	report(took, "publish")
	report(commits, "commit")
}

func percentile(all []time.Duration, p int) time.Duration {
	slices.Sort(all)
	return all[(len(all)-1)*p/100]
}
