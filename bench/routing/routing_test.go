package routing_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/loadlinehq/loadline/internal/stack"
)

const (
	// writes is the share of a user's requests that write.
	writes = 0.2
	// warm is how long a way runs before it is measured, at least.
	warm = 500 * time.Millisecond
	// limit bounds each request.
	limit = 10 * time.Second
)

// workload is how users behave: each begins to write or read his counter at the events
// of a Poisson process, whatever way he is sent, or when he has the answer to the
// request before, if that is later.
type workload struct {
	users int
	every time.Duration // requests of one user, on average
}

// Both are 800 requests per second, a guess at what two cores serve beside three
// servers without anything queueing.
var (
	busy = workload{16, 20 * time.Millisecond}
	calm = workload{160, 200 * time.Millisecond}
)

// tally is what has been seen of reads.
type tally struct {
	reads, onReplica, stale int
	took                    []time.Duration
}

func (a *tally) add(b tally) {
	a.reads += b.reads
	a.onReplica += b.onReplica
	a.stale += b.stale
	a.took = append(a.took, b.took...)
}

// share is in per cent.
func (a *tally) share(of int) float64 { return 100 * float64(of) / float64(a.reads) }

// quantile is in milliseconds.
func (a *tally) quantile(q float64) float64 {
	slices.Sort(a.took)
	return float64(a.took[int(q*float64(len(a.took)-1))]) / float64(time.Millisecond)
}

// contest is the ways in the order in which they take turns, with their users.
type contest struct {
	workload
	ways  []*way
	users [][]*user
}

// newContest has each way open its connections first.
func newContest(t testing.TB, w workload, ways ...*way) *contest {
	t.Helper()
	c := &contest{workload: w, ways: ways}
	for i := range ways {
		var users []*user
		for j := range w.users {
			users = append(users, &user{id: i*w.users + j + 1})
		}
		c.users = append(c.users, users)
	}
	c.round(t, w.users)
	return c
}

// round runs each way for a number of reads.
func (c *contest) round(t testing.TB, reads int) []tally {
	t.Helper()
	var all []tally
	for i := range c.ways {
		all = append(all, c.turn(t, i, reads))
	}
	return all
}

func (c *contest) turn(t testing.TB, i, reads int) tally {
	t.Helper()
	ctx, done := context.WithCancel(t.Context())
	defer done()
	var left atomic.Int64
	left.Store(int64(reads))
	measure := time.Now().Add(max(warm, c.ways[i].settled))
	var wait sync.WaitGroup
	for _, u := range c.users[i] {
		wait.Go(func() {
			for at := time.Now(); ; {
				at = at.Add(time.Duration(rand.ExpFloat64() * float64(c.every)))
				select {
				case <-ctx.Done():
					return
				case <-time.After(time.Until(at)):
				}
				// Not by ctx: what goes on is answered, so that the user knows of it.
				read, err := u.request(t.Context(), c.ways[i], at)
				if err != nil {
					t.Errorf("%s: user %d: %v", c.ways[i].name, u.id, err)
					done()
					return
				}
				if read.reads == 0 || at.Before(measure) {
					continue
				}
				n := left.Add(-1)
				if n >= 0 {
					u.measured.add(read)
				}
				if n <= 0 {
					done()
				}
			}
		})
	}
	wait.Wait()
	if t.Failed() {
		t.FailNow()
	}
	var all tally
	for _, u := range c.users[i] {
		all.add(u.measured)
		u.measured = tally{}
	}
	return all
}

// request writes, or reads, and then returns what was seen. It should have begun at a
// moment, from which its time is counted.
func (u *user) request(ctx context.Context, w *way, at time.Time) (tally, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if rand.Float64() < writes {
		if err := w.increment(ctx, u); err != nil {
			return tally{}, fmt.Errorf("increment: %w", err)
		}
		u.n++
		return tally{}, nil
	}
	n, replica, err := w.read(ctx, u)
	took := time.Since(at)
	if err != nil {
		return tally{}, fmt.Errorf("read: %w", err)
	}
	if n > u.n {
		return tally{}, fmt.Errorf("the counter is %d after %d increments", n, u.n)
	}
	read := tally{reads: 1, took: []time.Duration{took}}
	if replica {
		read.onReplica = 1
	}
	if n < u.n {
		read.stale = 1
	}
	return read, nil
}

// BenchmarkStaleReads lets the ways take turns, and prints what share of reads was
// served by replicas, with the range of the rounds, how many showed a user less than he
// had written, and how long they took.
func BenchmarkStaleReads(b *testing.B) {
	const rounds, reads = 5, 1500
	for _, bench := range []struct {
		workload
		lag time.Duration
	}{
		{busy, 50 * time.Millisecond},
		{calm, 50 * time.Millisecond},
		{calm, 200 * time.Millisecond},
	} {
		b.Run(fmt.Sprintf("users=%d/lag=%v", bench.users, bench.lag), func(b *testing.B) {
			s := servers(b, bench.lag, 4*bench.users)
			primary, replicas := pools(b, s)
			c := newContest(b, bench.workload,
				tokens(b, s, bench.users),
				resolver(b, s),
				sticky(primary, replicas, "primary for 100 ms", "sticky-100ms", 100*time.Millisecond),
				// 2 s: the delay of Rails' database_selector.
				sticky(primary, replicas, "primary for 2 s", "sticky-2s", 2*time.Second),
			)
			sums := make([]tally, len(c.ways))
			shares := make([][]float64, len(c.ways))
			for b.Loop() {
				for range rounds {
					for i, a := range c.round(b, reads) {
						sums[i].add(a)
						shares[i] = append(shares[i], a.share(a.onReplica))
					}
				}
			}
			fmt.Printf("# replicas %v behind; %d users, each writing every %v\n",
				bench.lag, bench.users, time.Duration(float64(bench.every)/writes))
			for i, way := range c.ways {
				a := &sums[i]
				onReplica, stale := a.share(a.onReplica), a.share(a.stale)
				b.ReportMetric(onReplica, way.unit+"-%replica")
				b.ReportMetric(stale, way.unit+"-%stale")
				fmt.Printf("# %-22s %d reads, %5.1f %% on replicas (%.1f to %.1f, %d rounds), %4d stale (%.1f %%), p50 %.1f ms, p99 %.1f ms\n",
					way.name+":", a.reads, onReplica, slices.Min(shares[i]), slices.Max(shares[i]), len(shares[i]), a.stale, stale, a.quantile(0.5), a.quantile(0.99))
			}
		})
	}
}

func pools(t testing.TB, s *stack.Stack) (primary *pgxpool.Pool, replicas []*pgxpool.Pool) {
	t.Helper()
	for _, url := range s.ReplicaURLs() {
		replicas = append(replicas, open(t, url))
	}
	return open(t, s.DatabaseURL()), replicas
}

// TestTokenBeatsPeers: the router shows no user the past, with replicas that take most
// reads. That dbresolver does shows that the past is there to be seen.
func TestTokenBeatsPeers(t *testing.T) {
	if os.Getenv("LOADLINE_SLOW") == "" {
		t.Skip("starts servers and runs for ten seconds; set LOADLINE_SLOW")
	}
	s := servers(t, 50*time.Millisecond, 2*calm.users)
	all := newContest(t, calm, tokens(t, s, calm.users), resolver(t, s)).round(t, 2000)
	router, peer := &all[0], &all[1]
	t.Logf("router: %d of %d reads on replicas, %d stale; dbresolver: %d, %d stale", router.onReplica, router.reads, router.stale, peer.onReplica, peer.stale)
	if router.stale > 0 {
		t.Errorf("%d of %d reads through the router were stale", router.stale, router.reads)
	}
	// In theory 97 %: all reads but those within the lag less Config.Wait of a write.
	if share := router.share(router.onReplica); share < 60 {
		t.Errorf("%.1f %% of the router's reads were on replicas, want 60", share)
	}
	if peer.stale == 0 {
		t.Error("no read through dbresolver was stale: this test could not fail")
	}
}
