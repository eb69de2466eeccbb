package inbox_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/loadlinehq/loadline/events"
	"github.com/loadlinehq/loadline/events/natsjs"
	"github.com/loadlinehq/loadline/inbox"
	"github.com/loadlinehq/loadline/internal/migrate"
	"github.com/loadlinehq/loadline/internal/stack"
	"github.com/loadlinehq/loadline/internal/stack/stacktest"
	"github.com/loadlinehq/loadline/outbox"
)

type moved struct {
	Account string `json:"account"`
}

var accountMoved = events.Define("account.moved", events.V1, events.KeyedBy(func(m moved) string { return m.Account }))

const accounts = 8

var quiet = slog.New(slog.DiscardHandler)

// The whole way, on real servers, by processes: writers, relays, the broker, members of a group,
// each with its effect in a transaction. All of them are killed with kill -9, at any time and at the points
// where it matters; the broker and the database are paused, the broker is cut off, a relay is paused
// until another has taken over, every tenth handler fails. In the end what is committed, published,
// handled and effective are the same events, each once, in the order of their keys. Each kind
// of fault has its turn; with LOADLINE_SLOW they have turns for a minute.
func TestLedger(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts servers; skipped by -short")
	}
	length, rounds := time.Duration(0), 1
	if os.Getenv("LOADLINE_SLOW") != "" {
		length, rounds = time.Minute, 3
	}
	s := stacktest.Own(t, stack.Config{DisableSync: true}) // what is committed survives the death of a process without
	url := s.DatabaseURL()
	if _, err := migrate.Up(t.Context(), url, migrate.Set{Name: "outbox", Files: outbox.Migrations}, migrate.Set{Name: "inbox", Files: inbox.Migrations}); err != nil {
		t.Fatal(err)
	}
	db, err := pgxpool.New(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(t.Context(), `CREATE TABLE account (name text PRIMARY KEY, moves bigint NOT NULL DEFAULT 0);
		CREATE TABLE written (id text NOT NULL, account text NOT NULL, move bigint NOT NULL);
		CREATE TABLE effect (at bigint GENERATED ALWAYS AS IDENTITY, id text NOT NULL, account text NOT NULL, move bigint NOT NULL)`); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec(t.Context(), "INSERT INTO account SELECT 'account-' || n FROM generate_series(1, $1::int) n", accounts); err != nil {
		t.Fatal(err)
	}
	nats := natsURL(t, s)

	c := newCrew(t, url, nats)
	roles := []string{roleWriter, roleRelay, roleMember}
	for _, role := range roles {
		c.hire(role)
		c.hire(role)
	}
	eventually(t, "the first effects", func(ctx context.Context) error {
		var any bool
		err := db.QueryRow(ctx, "SELECT count(*) > 10 FROM effect").Scan(&any)
		if err == nil && !any {
			err = errors.New("there are none")
		}
		return err
	})

	killing, stopKilling := context.WithCancel(t.Context())
	var killer sync.WaitGroup
	defer killer.Wait()
	defer stopKilling()
	killer.Go(func() {
		for n := 0; killing.Err() == nil; n++ {
			time.Sleep(500*time.Millisecond + rand.N(500*time.Millisecond))
			c.killOne(roles[n%len(roles)])
		}
	})
	turns := c.turns(s, db)
	kinds := slices.Sorted(maps.Keys(turns))
	for began, round := time.Now(), 0; round < rounds || time.Since(began) < length; round++ {
		for _, i := range rand.Perm(len(kinds)) {
			turns[kinds[i]](t, kinds[i])
		}
	}
	stopKilling()
	killer.Wait()
	c.dismissAll(roleWriter)

	eventually(t, "all is published and handled", func(ctx context.Context) error {
		var committed, waiting, handled int
		err := db.QueryRow(ctx, `SELECT (SELECT count(*) FROM written), (SELECT count(*) FROM loadline.outbox), (SELECT count(*) FROM loadline.inbox)`).Scan(&committed, &waiting, &handled)
		if err == nil && (waiting > 0 || handled < committed) {
			err = fmt.Errorf("%d committed, %d not published yet, %d handled", committed, waiting, handled)
		}
		return err
	})
	c.dismissAll(roleRelay)
	settled(t, nats) // nothing comes any more
	c.dismissAll(roleMember)

	c.even(t, db)
	if late := c.late(); len(late) > 0 {
		t.Errorf("%d publications by relays that had lost the lease, such as %s", len(late), late[0])
	}
	for _, kind := range append(kinds, kill(roleWriter), kill(roleRelay), kill(roleMember), handlerFails, handlerCutOff) {
		t.Logf("%4d times: %s", c.count(kind), kind)
		if c.count(kind) < rounds {
			t.Errorf("%s: %d times, not %d: this test shows nothing about it", kind, c.count(kind), rounds)
		}
	}
}

// turns is what is done to servers and workers, by its name: each returns when it has happened, and is mended.
func (c *crew) turns(s *stack.Stack, db *pgxpool.Pool) map[string]func(t *testing.T, kind string) {
	turns := make(map[string]func(*testing.T, string))
	for _, f := range []stack.Fault{
		{Service: "nats", Kind: stack.FaultKill},
		{Service: "nats", Kind: stack.FaultPause},
		{Service: "nats", Kind: stack.FaultStall},
		{Service: "primary", Kind: stack.FaultKill},
		{Service: "primary", Kind: stack.FaultPause},
	} {
		turns[f.String()] = func(t *testing.T, kind string) {
			t.Helper()
			active, err := s.AddFault(t.Context(), f)
			if err != nil {
				t.Fatalf("%s: %v", f, err)
			}
			time.Sleep(200*time.Millisecond + rand.N(800*time.Millisecond))
			if err := s.RemoveFault(t.Context(), active.ID); err != nil {
				t.Fatalf("undo %s: %v", f, err)
			}
			c.add(kind)
		}
	}
	for point, role := range map[string]string{
		writerBeforeCommit: roleWriter, writerAfterCommit: roleWriter, relayPublished: roleRelay,
		memberBeforeCommit: roleMember, memberAfterCommit: roleMember,
	} {
		turns[point] = func(t *testing.T, kind string) {
			t.Helper()
			before := c.count(kind)
			eventually(t, kind, func(ctx context.Context) error {
				var h *hand
				if role == roleRelay { // one that stands by does not get there
					h, _ = c.leader(t, db)
					c.release(h)
				} else if h = c.any(role); h == nil {
					return errors.New("there is no " + role)
				}
				h.tell(point)
				defer h.tell("")
				select {
				case <-h.ended:
				case <-time.After(2 * time.Second):
				}
				if c.count(kind) == before {
					return errors.New("it was killed before, or lost the lease")
				}
				return nil
			})
		}
	}
	turns[memberLeaves] = func(t *testing.T, kind string) {
		t.Helper()
		before := c.count(kind)
		eventually(t, kind, func(ctx context.Context) error {
			if h := c.any(roleMember); h != nil {
				c.dismiss(h)
			}
			if c.count(kind) == before {
				return errors.New("it was killed before")
			}
			return nil
		})
	}
	turns["relay loses its connection"] = func(t *testing.T, kind string) {
		t.Helper()
		eventually(t, kind, func(ctx context.Context) error {
			tag, err := db.Exec(ctx, "SELECT FROM loadline.outbox_relay WHERE pg_terminate_backend(pid)")
			if err == nil && tag.RowsAffected() == 0 {
				err = errors.New("no relay has the lease")
			}
			return err
		})
		c.add(kind)
	}
	turns["relay is paused, and another takes over"] = func(t *testing.T, kind string) {
		t.Helper()
		h, epoch := c.leader(t, db)
		defer c.release(h)
		before := c.losses(h)
		if err := h.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		eventually(t, kind, func(ctx context.Context) error {
			var taken bool
			err := db.QueryRow(ctx, "SELECT epoch > $1 AND holder <> $2 FROM loadline.outbox_relay", epoch, strconv.Itoa(h.cmd.Process.Pid)).Scan(&taken)
			if err == nil && !taken {
				err = errors.New("nobody does")
			}
			return err
		})
		time.Sleep(leaseTTL) // so that whatever it publishes now is too late
		if err := h.cmd.Process.Signal(syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the relay that was paused sees that it has lost the lease", func(context.Context) error {
			if c.losses(h) == before {
				return errors.New("it does not")
			}
			return nil
		})
		c.add(kind)
	}
	return turns
}

// leader is the relay that has the lease, which is spared until it is released, and the lease's epoch.
func (c *crew) leader(t *testing.T, db *pgxpool.Pool) (h *hand, epoch int64) {
	t.Helper()
	eventually(t, "a relay has the lease", func(ctx context.Context) error {
		var holder string
		err := db.QueryRow(ctx, `SELECT holder, epoch FROM loadline.outbox_relay r WHERE EXISTS (SELECT FROM pg_stat_activity a WHERE a.pid = r.pid)`).Scan(&holder, &epoch)
		if err != nil {
			return err
		}
		if h = c.spare(holder); h == nil {
			return errors.New("it has just died")
		}
		return nil
	})
	return h, epoch
}

// settled waits until the broker has nothing more for the group: what has come twice has come.
func settled(t *testing.T, nats string) {
	t.Helper()
	driver, err := ledgerBroker(t.Context(), nats)
	if err != nil {
		t.Fatal(err)
	}
	defer driver.Close()
	eventually(t, "the group has settled all", func(ctx context.Context) error {
		for p := range events.Partitions {
			lag, err := driver.Lag(ctx, fmt.Sprintf("%s-P%02d", events.DefaultGroup, p))
			if err != nil {
				return err
			}
			if lag > 0 {
				return fmt.Errorf("%d are left in partition %d", lag, p)
			}
		}
		return nil
	})
}

// even compares what was committed with all that came of it, event by event.
func (c *crew) even(t *testing.T, db *pgxpool.Pool) {
	t.Helper()
	const committed = "SELECT id FROM written"
	for what, set := range map[string]string{
		"published": "SELECT id::text FROM loadline.outbox_sent",
		"handled":   "SELECT id FROM loadline.inbox WHERE consumer = '" + events.DefaultGroup + "'",
		"effective": "SELECT id FROM effect",
	} {
		if lost := texts(t, db, committed+" EXCEPT ALL "+set); len(lost) > 0 {
			t.Errorf("%d are committed and not %s, such as %s", len(lost), what, lost[0])
		}
		if more := texts(t, db, set+" EXCEPT ALL "+committed); len(more) > 0 {
			t.Errorf("%d are %s more often than they are committed, such as %s", len(more), what, more[0])
		}
	}
	for what, query := range map[string]string{
		"accounts have moved otherwise than was written": "SELECT name FROM account a WHERE moves <> (SELECT count(*) FROM written w WHERE w.account = a.name)",
		"effects are out of turn":                        "SELECT id FROM (SELECT id, move, row_number() OVER (PARTITION BY account ORDER BY at) AS turn FROM effect) e WHERE move <> turn",
		"events are dead, or held, in the outbox":        "SELECT seq::text FROM loadline.outbox_dead UNION ALL SELECT seq::text FROM loadline.outbox_held",
	} {
		if wrong := texts(t, db, query); len(wrong) > 0 {
			t.Errorf("%d %s, such as %s", len(wrong), what, wrong[0])
		}
	}
	written := make(map[string]bool)
	for _, id := range texts(t, db, committed) {
		written[id] = true
	}
	for _, id := range c.committed {
		if !written[id] {
			t.Errorf("the commit of %s was acknowledged, and it is not there", id)
		}
	}
	if dead := deadLetters(t, c.nats); dead > 0 {
		t.Errorf("%d dead letters", dead)
	}
	if len(c.committed) < 100 {
		t.Errorf("%d commits were acknowledged: that is too few", len(c.committed))
	}
	t.Logf("%d committed, of which the writers know %d; %d publications under %d leases", len(written), len(c.committed), len(c.published), len(c.leads))
}

func deadLetters(t *testing.T, url string) uint64 {
	t.Helper()
	conn, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(t.Context(), natsjs.DefaultDeadLetters)
	if err != nil {
		t.Fatal(err)
	}
	return stream.CachedInfo().State.Msgs
}

func natsURL(t *testing.T, s *stack.Stack) string {
	t.Helper()
	for _, variable := range s.Env() {
		if url, ok := strings.CutPrefix(variable, "NATS_URL="); ok {
			return url
		}
	}
	t.Fatal("the stack has no NATS_URL")
	return ""
}
