package db_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/loadlinehq/loadline/causal"
	"github.com/loadlinehq/loadline/db"
	"github.com/loadlinehq/loadline/internal/stack"
	"github.com/loadlinehq/loadline/internal/stack/faultproxy"
)

const (
	machineSteps      = 300
	machineClients    = 6
	machineKeys       = 8
	machinePromotions = 2
	machineFaults     = 3 // at a time, beside those of a moment

	machineQueueWait = time.Second
	machineConnect   = time.Second
	machineQuery     = 2 * time.Second
	// machineGrace is what db gives a call after its deadline; machineSlack is for a machine
	// that is busy with base backups and recoveries.
	machineGrace = time.Second
	machineSlack = 500 * time.Millisecond
	// machineFree bounds a call without a deadline: it waits for a primary, in a queue, and
	// for the answer.
	machineFree = 2*machineQueueWait + machineQuery + machineGrace
	// asyncSlack is how much later than others a write that does not wait for the disk may
	// come to a reader with MaxStaleness: the primary's position is that of its disk, which
	// trails by up to three times wal_writer_delay of 200 ms, and by the pauses.
	asyncSlack = 3 * time.Second
)

// machine runs clients of two instances on real servers, does faults to these, and knows what
// each client must see.
//
// It is seeded and not shrunk: servers keep their own time, so that a shorter run is
// another run, and a failure that came of a race does not come again on demand. What helps
// instead is in the log: each step, and what was called before the first failure. For the
// same reason a seed draws the same steps, while the calls that go on beside a fault as
// long as it takes are drawn from a source of their own.
type machine struct {
	t         *testing.T
	stack     *stack.Stack
	keys      causal.Keys
	instances []*instance
	actors    []*actor
	began     time.Time

	changing   chan error // of the change of faults that goes on
	what       string
	promotions int // begun
	ahead      bool

	mu       sync.Mutex
	entries  []*entry
	byID     map[int]*entry
	pending  []missed
	history  []string
	failures int
	tally    map[string]int
	slowest  map[string]time.Duration
	crashes  []time.Time // of the primary, before each
}

// instance is one of the application.
type instance struct {
	name   string
	router *db.Router
	lost   *reports
}

// actor is a client: it has a token, and what it has seen written.
type actor struct {
	name    string
	at      int
	token   string
	seen    []*entry
	unknown []*entry
}

// entry is a write of some rows.
type entry struct {
	key   int
	ids   []int
	async bool // did not wait for the disk
	by    *instance
	state entryState
	acked time.Time
	mark  causal.Mark
	exact bool // the mark is of this write, and not of an earlier one of the session's
	// unplaced: it was acknowledged, and the connection broke before it was said where.
	unplaced bool
	lost     *db.OutcomeUnknownError
	asked    int
	how      string
}

type entryState uint8

const (
	sent entryState = iota
	acknowledged
	failed
	unknown
	aborted
)

func (e *entry) String() string {
	return fmt.Sprintf("write %v (%s by %s, timeline %d, %v, exact %t, async %t)", e.ids, e.how, e.by.name, e.mark.Timeline, e.mark.LSN, e.exact, e.async)
}

// missed is a write that a read has not shown, which only its loss can excuse.
type missed struct {
	entry  *entry
	detail string
}

// act is what a client does next.
type act struct {
	kind, how string
	key, rows int
	async     bool
	limit     time.Duration // 0: none
	stale     time.Duration
	other     int
	wait      time.Duration
	hold      time.Duration // before the COMMIT
	before    func() error  // likewise
}

func (a act) String() string {
	text := a.kind
	if a.how != "" {
		text += " " + a.how
	}
	if a.async {
		text += " async"
	}
	if a.limit > 0 {
		text += " within " + a.limit.String()
	}
	return text
}

type choice struct {
	weight int
	name   string
}

func choose(r *rand.Rand, all ...choice) string {
	sum := 0
	for _, c := range all {
		sum += c.weight
	}
	n := r.IntN(sum)
	for _, c := range all {
		if n -= c.weight; n < 0 {
			return c.name
		}
	}
	panic("unreachable")
}

func between(r *rand.Rand, low, high time.Duration) time.Duration {
	return low + time.Duration(r.Int64N(int64(high-low)))
}

// TestMachine: whatever happens to the servers, to the way to them, and to the clients, who
// move between two instances of the application with their tokens, no read goes behind
// what its client has seen, except for writes that have been reported lost; no call takes
// longer than it may; what was acknowledged is there, or reported; and what failed is not.
func TestMachine(t *testing.T) {
	if os.Getenv("LOADLINE_SLOW") == "" {
		t.Skip("some 100 s of faults to servers of its own; LOADLINE_SLOW=1 runs it")
	}
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("LOADLINE_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("LOADLINE_SEED=%d draws the same steps", seed)
	m := newRealMachine(t)
	m.run(rand.New(rand.NewPCG(seed, 1)), rand.New(rand.NewPCG(seed, 2)))
	m.end()
	m.report()
}

func newRealMachine(t *testing.T) *machine {
	t.Helper()
	keys, err := causal.NewKeys([]byte("a secret of the two instances"))
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{
		t: t, stack: ownStack(t), keys: keys, began: time.Now(), byID: make(map[int]*entry),
		tally: make(map[string]int), slowest: make(map[string]time.Duration),
	}
	// Fewer connections than clients, so that there are queues, and full ones.
	limits := db.Pool{MaxConns: 3, Queue: 1, QueueWait: machineQueueWait, ConnectTimeout: machineConnect, QueryTimeout: machineQuery}
	for _, name := range []string{"proxied", "direct"} {
		config := db.Config{Primary: m.stack.DatabaseURL(), Replicas: m.stack.ReplicaURLs(), PrimaryPool: limits, ReplicaPool: limits}
		if name == "direct" {
			config.Primary = m.direct(config.Primary)
			for i, dsn := range config.Replicas {
				config.Replicas[i] = m.direct(dsn)
			}
		}
		lost := new(reports)
		config.LostWrite = lost.add
		m.instances = append(m.instances, &instance{name, run(t, config, nil), lost})
	}
	for i := range machineClients + 1 { // the last one is for unanswered
		m.actors = append(m.actors, &actor{name: fmt.Sprintf("client %d", i), at: i % 2})
	}
	return m
}

// direct is the address of the server itself, without its proxy.
func (m *machine) direct(dsn string) string {
	u, err := url.Parse(dsn)
	if err != nil {
		m.t.Fatal(err)
	}
	for _, s := range m.stack.Services() {
		if s.Addr == u.Host {
			u.Host = s.Direct
			return u.String()
		}
	}
	m.t.Fatalf("no service is at %s", u.Host)
	return ""
}

func (m *machine) run(steps, fill *rand.Rand) {
	for step := 1; step <= machineSteps; step++ {
		m.mu.Lock()
		failures := m.failures
		m.mu.Unlock()
		if failures > 0 {
			break // what comes after it says less
		}
		// Each promotion comes at last where it is due.
		due := m.promotions < machinePromotions && step >= (m.promotions+1)*machineSteps/(machinePromotions+1)
		if steps.IntN(5) > 1 && !due {
			m.logStep(step, m.round(steps, 1+steps.IntN(2)*steps.IntN(machineClients)))
			continue
		}
		m.settle(fill)
		name, do := m.change(steps, due)
		m.what = fmt.Sprintf("step %d: %s", step, name)
		m.t.Log(m.stamp(m.what))
		m.changing = make(chan error, 1)
		go func() { m.changing <- do() }()
	}
	m.settle(fill)
}

func (m *machine) logStep(step int, what string) {
	m.t.Log(m.stamp(fmt.Sprintf("step %d: %s", step, what)))
}

func (m *machine) stamp(text string) string {
	text = fmt.Sprintf("%7.3f %s", time.Since(m.began).Seconds(), text)
	m.mu.Lock()
	m.history = append(m.history, text)
	m.mu.Unlock()
	return text
}

// settle has clients go on, each by itself, until the change of faults is done, and a
// moment more.
func (m *machine) settle(fill *rand.Rand) {
	if m.changing == nil {
		return
	}
	more := between(fill, 0, 300*time.Millisecond)
	done := make(chan struct{})
	var wait sync.WaitGroup
	for _, a := range m.actors[:machineClients] {
		r := rand.New(rand.NewPCG(fill.Uint64(), 3))
		wait.Go(func() {
			for {
				select {
				case <-done:
					return
				case <-time.After(between(r, 0, 30*time.Millisecond)):
					m.do(a, m.draw(r))
				}
			}
		})
	}
	if err := <-m.changing; err != nil {
		m.count("changes refused", 1)
		m.t.Log(m.stamp(fmt.Sprintf("%s: %v", m.what, err)))
	} else {
		m.count("changes", 1)
		m.stamp(m.what + ": done")
	}
	m.changing = nil
	time.Sleep(more)
	close(done)
	wait.Wait()
}

func (m *machine) count(what string, n int) {
	m.mu.Lock()
	m.tally[what] += n
	m.mu.Unlock()
}

// change draws what happens to the servers, or the way to them, or what ends there.
func (m *machine) change(r *rand.Rand, promote bool) (string, func() error) {
	ctx := m.t.Context()
	active := m.stack.Faults()
	var primary string
	var servers, replicas []string
	for _, s := range m.stack.Services() {
		switch s.Role {
		case "primary":
			primary = s.Name
		case "replica":
			if !slices.ContainsFunc(active, func(f stack.ActiveFault) bool { return f.Kind == stack.FaultPromote && f.Was == s.Name }) {
				replicas = append(replicas, s.Name)
			}
		default:
			continue
		}
		servers = append(servers, s.Name)
	}
	replica, server := replicas[r.IntN(len(replicas))], servers[r.IntN(len(servers))]
	held := func(name string, kinds ...stack.FaultKind) bool {
		return slices.ContainsFunc(active, func(f stack.ActiveFault) bool { return f.Service == name && slices.Contains(kinds, f.Kind) })
	}
	if promote {
		return m.promote(r, replica, replicas, active)
	}
	if len(active) >= machineFaults || len(active) > 0 && r.IntN(4) == 0 {
		f := active[r.IntN(len(active))]
		return "undo " + f.Fault.String(), func() error { return m.stack.RemoveFault(ctx, f.ID) }
	}
	add := func(f stack.Fault) (string, func() error) {
		return f.String(), func() error { _, err := m.stack.AddFault(ctx, f); return err }
	}
	moment := func(f stack.Fault, d time.Duration) (string, func() error) {
		return f.String() + " for " + d.String(), func() error {
			added, err := m.stack.AddFault(ctx, f)
			if err != nil {
				return err
			}
			time.Sleep(d)
			return m.stack.RemoveFault(ctx, added.ID)
		}
	}
	d := between(r, 50*time.Millisecond, 1200*time.Millisecond)
	if r.IntN(8) == 0 {
		d += machineQuery + machineGrace // longer than any call waits for an answer
	}
	// A replica that does not replay does not notice that its stream is cut.
	still := func(name string) bool {
		return held(name, stack.FaultLag, stack.FaultReplayPause, stack.FaultStreamCut)
	}
	if i := slices.IndexFunc(replicas, func(name string) bool { return !still(name) }); still(replica) && i >= 0 {
		replica = replicas[i]
	}
	kind := choose(r,
		choice{14, "lag"}, choice{6, "kill"}, choice{6, "pause"}, choice{7, "cut"}, choice{7, "replay"}, choice{6, "restart"},
		choice{5, "primary restart"}, choice{6, "primary pause"}, choice{7, "primary kill"},
		choice{6, "latency"}, choice{4, "reset"}, choice{4, "stall"}, choice{5, "answers"}, choice{9, "unanswered"})
	if still(replica) && (kind == "lag" || kind == "cut" || kind == "replay") {
		kind = "restart"
	}
	switch kind {
	case "lag":
		delays := []time.Duration{50 * time.Millisecond, 200 * time.Millisecond, 5 * time.Second}
		return add(stack.Fault{Service: replica, Kind: stack.FaultLag, Delay: delays[r.IntN(len(delays))]})
	case "kill":
		return add(stack.Fault{Service: replica, Kind: stack.FaultKill})
	case "pause":
		return add(stack.Fault{Service: replica, Kind: stack.FaultPause})
	case "cut":
		return add(stack.Fault{Service: replica, Kind: stack.FaultStreamCut})
	case "replay":
		return add(stack.Fault{Service: replica, Kind: stack.FaultReplayPause})
	case "restart":
		return add(stack.Fault{Service: replica, Kind: stack.FaultRestart})
	case "primary restart":
		// It stops when its replicas have all, for which a paused one lets it wait.
		for _, name := range replicas {
			if held(name, stack.FaultPause) {
				return add(stack.Fault{Service: replica, Kind: stack.FaultRestart})
			}
		}
		return add(stack.Fault{Service: primary, Kind: stack.FaultRestart})
	case "primary pause":
		return moment(stack.Fault{Service: primary, Kind: stack.FaultPause}, d)
	case "primary kill":
		name, do := moment(stack.Fault{Service: primary, Kind: stack.FaultKill}, d/4)
		return name, func() error { m.crash(); return do() }
	case "latency":
		return add(stack.Fault{Service: server, Kind: stack.FaultLatency, Delay: 30 * time.Millisecond, Jitter: 20 * time.Millisecond})
	case "reset":
		return moment(stack.Fault{Service: server, Kind: stack.FaultReset}, d/4)
	case "stall":
		return moment(stack.Fault{Service: server, Kind: stack.FaultStall}, d)
	case "answers":
		return moment(stack.Fault{Service: primary, Kind: stack.FaultCut, Direction: faultproxy.ToClient}, d)
	default:
		key, at := r.IntN(machineKeys), r.IntN(2)
		return fmt.Sprintf("%s does not answer a COMMIT", primary), func() error { return m.unanswered(primary, key, at) }
	}
}

// unanswered has a client begin a transaction, and loses the answer to its COMMIT. What
// either instance then says of it is so, and is seen.
func (m *machine) unanswered(primary string, key, at int) error {
	ctx := m.t.Context()
	a := m.actors[machineClients]
	a.at = 0
	var cut stack.ActiveFault
	m.write(a, act{kind: "write", how: "InTx", key: key, rows: 2, limit: 500 * time.Millisecond, before: func() (err error) {
		cut, err = m.stack.AddFault(ctx, stack.Fault{Service: primary, Kind: stack.FaultCut, Direction: faultproxy.ToClient})
		return err
	}})
	if cut.ID == "" {
		return errors.New("no transaction began")
	}
	if err := m.stack.RemoveFault(ctx, cut.ID); err != nil {
		return err
	}
	a.at = at
	for tries := 0; len(a.unknown) > 0 && tries < 20; tries++ {
		m.outcome(a, act{kind: "outcome", limit: 500 * time.Millisecond})
		time.Sleep(20 * time.Millisecond)
	}
	a.unknown = nil
	m.read(a, act{kind: "read", how: "session", key: key, limit: 500 * time.Millisecond})
	return nil
}

func (m *machine) crash() {
	m.mu.Lock()
	m.crashes = append(m.crashes, time.Now())
	m.mu.Unlock()
}

// promote makes a replica the primary. Mostly it has not received the last writes, which
// are lost then; and once in a run the other replica has, and goes on with them, far ahead
// on the old timeline, until it is made anew.
func (m *machine) promote(r *rand.Rand, replica string, others []string, active []stack.ActiveFault) (string, func() error) {
	ctx := m.t.Context()
	m.promotions++
	how := "behind, another ahead"
	switch {
	case m.ahead:
		how = choose(r, choice{2, "behind"}, choice{1, "plain"})
	case m.promotions < machinePromotions:
		how = choose(r, choice{2, "behind"}, choice{3, how})
	}
	d := between(r, 200*time.Millisecond, 900*time.Millisecond)
	var other string
	for _, name := range others {
		if name != replica {
			other = name
		}
	}
	if other == "" && how != "plain" {
		how = "behind"
	}
	m.ahead = m.ahead || how == "behind, another ahead"
	return fmt.Sprintf("%s promote (%s)", replica, how), func() error {
		// What is in the way of that, and of a stream that is cut.
		for _, f := range active {
			if f.Service == replica || f.Service == other && how == "behind, another ahead" {
				if err := m.stack.RemoveFault(ctx, f.ID); err != nil {
					return err
				}
			}
		}
		promote := func() error {
			_, err := m.stack.AddFault(ctx, stack.Fault{Service: replica, Kind: stack.FaultPromote})
			return err
		}
		if how == "plain" {
			return promote()
		}
		if _, err := m.stack.AddFault(ctx, stack.Fault{Service: replica, Kind: stack.FaultStreamCut}); err != nil {
			return err
		}
		time.Sleep(d)
		if how == "behind" {
			return promote()
		}
		data, err := m.fillLog(ctx, other)
		if err != nil {
			return err
		}
		cut, err := m.stack.AddFault(ctx, stack.Fault{Service: other, Kind: stack.FaultStreamCut})
		if err != nil {
			return err
		}
		// One that does not answer is not looked at.
		paused, err := m.stack.AddFault(ctx, stack.Fault{Service: other, Kind: stack.FaultPause})
		if err != nil {
			return err
		}
		err = promote()
		if err := errors.Join(err, m.stack.RemoveFault(ctx, paused.ID)); err != nil {
			return err
		}
		time.Sleep(d)
		killed, err := m.stack.AddFault(ctx, stack.Fault{Service: other, Kind: stack.FaultKill})
		if err != nil {
			return err
		}
		// Without it the data is none of a replica's, and the stack makes it anew.
		if err := os.Remove(filepath.Join(data, "standby.signal")); err != nil {
			return err
		}
		if err := m.stack.RemoveFault(ctx, killed.ID); err != nil {
			return err
		}
		return m.stack.RemoveFault(ctx, cut.ID)
	}
}

// fillLog writes so much into the primary's log that it takes long to come there again,
// and waits until a replica has it. It returns where that has its data.
func (m *machine) fillLog(ctx context.Context, replica string) (data string, err error) {
	addr := make(map[string]string)
	for _, s := range m.stack.Services() {
		addr[s.Name] = s.Direct
		if s.Role == "primary" {
			addr["the primary"] = s.Direct
		}
	}
	var answer, end string
	for _, ask := range []struct{ name, sql string }{
		{"the primary", "SELECT pg_logical_emit_message(true, '', repeat('x', 8 << 20))::text"},
		{"the primary", "SELECT pg_current_wal_flush_lsn()::text"},
		{replica, "SELECT pg_last_wal_replay_lsn()::text"},
		{replica, "SHOW data_directory"},
	} {
		conn, err := pgx.Connect(ctx, stack.SuperuserURL(addr[ask.name]))
		if err != nil {
			return "", err
		}
		for range 500 {
			if err = conn.QueryRow(ctx, ask.sql).Scan(&answer); err != nil || !strings.Contains(ask.sql, "replay") {
				break
			}
			have, _ := causal.ParseLSN(answer)
			want, _ := causal.ParseLSN(end)
			if have >= want {
				break
			}
			err = fmt.Errorf("%s does not come to %s", replica, end)
			time.Sleep(10 * time.Millisecond)
		}
		_ = conn.Close(ctx)
		if err != nil {
			return "", err
		}
		end = answer
	}
	return answer, nil
}

// round has some clients do something, at the same time.
func (m *machine) round(r *rand.Rand, clients int) string {
	var wait sync.WaitGroup
	var said []string
	for _, i := range r.Perm(machineClients)[:clients] {
		a, next := m.actors[i], m.draw(r)
		said = append(said, a.name+" "+next.String())
		wait.Go(func() { m.do(a, next) })
	}
	wait.Wait()
	return strings.Join(said, "; ")
}

func (m *machine) draw(r *rand.Rand) act {
	a := act{key: r.IntN(machineKeys), rows: 1 + r.IntN(3), other: r.IntN(machineClients), wait: between(r, 0, 5*time.Millisecond)}
	a.kind = choose(r, choice{32, "write"}, choice{50, "read"}, choice{6, "move"}, choice{4, "merge"}, choice{2, "forget"}, choice{6, "outcome"})
	a.limit = []time.Duration{0, 100 * time.Millisecond, 500 * time.Millisecond, 500 * time.Millisecond, 2 * time.Second}[r.IntN(5)]
	switch a.kind {
	case "write":
		a.how = choose(r, choice{4, "single"}, choice{2, "row"}, choice{4, "InTx"}, choice{3, "text"}, choice{3, "batch"}, choice{3, "Begin"}, choice{1, "copy"})
		if r.IntN(2) == 0 {
			a.hold = between(r, 0, 150*time.Millisecond)
		}
		a.async = r.IntN(4) == 0 && a.how != "single" && a.how != "row" && a.how != "copy"
	case "read":
		a.how = choose(r, choice{9, "session"}, choice{3, "Strong"}, choice{3, "MaxStaleness"}, choice{2, "Any"}, choice{3, "ReadTx"}, choice{1, "Begin"})
		a.stale = []time.Duration{100 * time.Millisecond, 500 * time.Millisecond, 2 * time.Second}[r.IntN(3)]
	}
	return a
}

func (m *machine) do(a *actor, next act) {
	time.Sleep(next.wait)
	switch next.kind {
	case "write":
		m.write(a, next)
	case "read":
		m.read(a, next)
	case "move":
		a.at = 1 - a.at
	case "merge": // the other one tells what it knows
		m.mu.Lock()
		defer m.mu.Unlock()
		other := m.actors[next.other]
		a.token = m.keys.Sign(m.verify(a.token).Merge(m.verify(other.token)))
		have := make(map[*entry]bool)
		for _, e := range a.seen {
			have[e] = true
		}
		for _, e := range other.seen {
			if !have[e] {
				a.seen = append(a.seen, e)
			}
		}
	case "forget":
		m.mu.Lock()
		defer m.mu.Unlock()
		a.token, a.seen, a.unknown = "", nil, nil
	case "outcome":
		m.outcome(a, next)
	}
}

func (m *machine) verify(text string) causal.Token {
	token, err := m.keys.Verify(text)
	if err != nil && text != "" {
		m.t.Errorf("a token of our own: %v", err)
	}
	return token
}

// call is a request: a session from the client's token, and back.
func (m *machine) call(a *actor, next act, f func(context.Context, *instance) error) (before, after causal.Token, err error) {
	at := m.instances[a.at]
	m.mu.Lock()
	before = m.verify(a.token)
	m.mu.Unlock()
	session := causal.NewSession(before)
	ctx := causal.WithSession(m.t.Context(), session)
	bound := machineFree
	if next.limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, next.limit)
		defer cancel()
		bound = next.limit + machineGrace
	}
	began := time.Now()
	err = f(ctx, at)
	took := time.Since(began)
	after = session.Token()
	m.mu.Lock()
	a.token = m.keys.Sign(after)
	m.tally[next.kind+"s"]++
	class := next.kind + " " + next.how
	if next.limit > 0 {
		class = "past the deadline: " + class
	}
	m.slowest[class] = max(m.slowest[class], took-next.limit)
	m.mu.Unlock()
	m.stamp(fmt.Sprintf("    %s at %s, %s, key %d: %v after %v", a.name, at.name, next, next.key, err, took))
	if took > bound+machineSlack {
		m.fail("%s at %s: %s took %v: %v", a.name, at.name, next, took, err)
	}
	if err != nil {
		m.named(a, next, err, ctx.Err() != nil)
	}
	return before, after, err
}

// named holds errors to the kinds that are documented.
func (m *machine) named(a *actor, next act, err error, late bool) {
	many := next.how == "InTx" || next.how == "Begin" || next.how == "ReadTx" || next.how == "copy"
	_, timeout := errors.AsType[net.Error](err)
	kind := ""
	switch {
	case errors.Is(err, db.ErrOutcomeUnknown) && next.kind == "write":
		kind = "ErrOutcomeUnknown"
	case errors.Is(err, db.ErrNoEligibleNode):
		kind = "ErrNoEligibleNode"
	case errors.Is(err, db.ErrPoolSaturated):
		kind = "ErrPoolSaturated"
	case errors.Is(err, context.DeadlineExceeded):
		kind = "deadline"
	case late:
		kind = "of a connection that broke after the deadline"
	case db.Retryable(err):
		kind = "retryable"
	case code("57014")(err):
		kind = "statement_timeout"
	case errors.Is(err, db.ErrRolledBack) && many:
		kind = "ErrRolledBack"
	case many && (timeout || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, pgconn.ErrConnClosed)):
		kind = "broken in a transaction"
	case next.kind == "outcome":
		kind = "not told"
		m.t.Log(m.stamp(fmt.Sprintf("%s: outcome: %v", a.name, err)))
	}
	if kind == "" {
		m.fail("%s: %s: an error that is not documented: %T %v", a.name, next, err, err)
		return
	}
	m.count("errors: "+kind, 1)
}

func (m *machine) fail(format string, args ...any) {
	text := m.stamp("FAILURE " + fmt.Sprintf(format, args...))
	m.mu.Lock()
	m.failures++
	n := m.failures
	m.mu.Unlock()
	if n == 1 {
		m.mu.Lock()
		m.t.Logf("before the failure:\n%s", strings.Join(m.history[max(0, len(m.history)-150):], "\n"))
		m.mu.Unlock()
	}
	if n <= 10 {
		m.t.Error(text)
	}
}

func (m *machine) write(a *actor, next act) {
	e := &entry{key: next.key, async: next.async, by: m.instances[a.at], how: next.how}
	m.mu.Lock()
	for range next.rows {
		id := len(m.byID) + 1
		m.byID[id] = e
		e.ids = append(e.ids, id)
	}
	m.entries = append(m.entries, e)
	m.mu.Unlock()
	before, after, err := m.call(a, next, func(ctx context.Context, at *instance) error { return e.send(ctx, at.router, next) })
	m.mu.Lock()
	defer m.mu.Unlock()
	lost, isUnknown := errors.AsType[*db.OutcomeUnknownError](err)
	switch {
	case err == nil:
		e.acknowledged(before, after)
		a.seen = append(a.seen, e)
	case isUnknown:
		e.state, e.lost = unknown, lost
		if lost.XID != 0 {
			a.unknown = append(a.unknown, e)
		}
	default:
		e.state = failed
	}
}

func newest(t causal.Token) causal.Mark {
	for m := range t.Marks() { // there is one cluster
		return m
	}
	return causal.Mark{}
}

func (e *entry) acknowledged(before, after causal.Token) {
	e.state, e.acked, e.mark = acknowledged, time.Now(), newest(after)
	e.exact = e.mark != newest(before)
	e.unplaced = !e.exact && after.Incomplete()
}

const async = "SET LOCAL synchronous_commit = off"

func (e *entry) send(ctx context.Context, router *db.Router, next act) error {
	const insert = "INSERT INTO t VALUES ($1, $2)"
	all := func(exec func(context.Context, string, ...any) (pgconn.CommandTag, error)) error {
		if e.async {
			if _, err := exec(ctx, async); err != nil {
				return err
			}
		}
		for _, id := range e.ids {
			if _, err := exec(ctx, insert, id, e.key); err != nil {
				return err
			}
		}
		return nil
	}
	switch e.how {
	case "single":
		_, err := router.Write(ctx).Exec(ctx, "INSERT INTO t SELECT unnest($1::int[]), $2", e.ids, e.key)
		return err
	case "row":
		var n int
		return router.Write(ctx).QueryRow(ctx, "WITH i AS (INSERT INTO t SELECT unnest($1::int[]), $2 RETURNING id) SELECT count(*) FROM i", e.ids, e.key).Scan(&n)
	case "text":
		var sql strings.Builder
		if e.async {
			sql.WriteString(async + "; ")
		}
		for _, id := range e.ids {
			fmt.Fprintf(&sql, "INSERT INTO t VALUES (%d, %d); ", id, e.key)
		}
		_, err := router.Write(ctx).Exec(ctx, sql.String())
		return err
	case "batch":
		b := new(pgx.Batch)
		if e.async {
			b.Queue(async)
		}
		for _, id := range e.ids {
			b.Queue(insert, id, e.key)
		}
		return router.Write(ctx).SendBatch(ctx, b).Close()
	case "copy":
		_, err := router.Write(ctx).CopyFrom(ctx, pgx.Identifier{"t"}, []string{"id", "n"}, pgx.CopyFromSlice(len(e.ids), func(i int) ([]any, error) { return []any{e.ids[i], e.key}, nil }))
		return err
	case "InTx":
		return router.InTx(ctx, func(ctx context.Context, tx pgx.Tx) error {
			if err := all(tx.Exec); err != nil || next.before == nil {
				time.Sleep(next.hold)
				return err
			}
			return next.before()
		})
	default:
		tx, err := router.Begin(ctx)
		if err != nil {
			return err
		}
		defer tx.Rollback(ctx)
		if err := all(tx.Exec); err != nil {
			return err
		}
		time.Sleep(next.hold)
		return tx.Commit(ctx)
	}
}

// outcome asks, at either instance, what became of a write.
func (m *machine) outcome(a *actor, next act) {
	m.mu.Lock()
	if len(a.unknown) == 0 {
		m.mu.Unlock()
		return
	}
	e := a.unknown[0]
	a.unknown = a.unknown[1:]
	e.asked++
	m.mu.Unlock()
	var outcome string
	before, after, err := m.call(a, next, func(ctx context.Context, at *instance) (err error) {
		outcome, err = at.router.Outcome(ctx, e.lost)
		return err
	})
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case err == nil && outcome == "committed":
		e.by = m.instances[a.at]
		e.how += ", by Outcome"
		e.acknowledged(before, after)
		a.seen = append(a.seen, e)
	case err == nil && outcome == "aborted":
		e.state = aborted
	case e.asked < 20:
		a.unknown = append(a.unknown, e)
	}
	if err == nil {
		m.tally["outcomes: "+outcome]++
	}
}

const rowsSQL = "SELECT coalesce(array_agg(id), '{}'), pg_is_in_recovery(), inet_server_port() FROM t WHERE n = $1"

// seen is what a read has shown.
type seen struct {
	ids     []int
	replica bool
	port    int
}

func (m *machine) read(a *actor, next act) {
	m.mu.Lock()
	session := slices.Clone(a.seen)
	var all []*entry // that were acknowledged before
	for _, e := range m.entries {
		if e.state == acknowledged {
			all = append(all, e)
		}
	}
	m.mu.Unlock()
	began := time.Now()
	shown := make(map[int]seen)
	one := func(ctx context.Context, key int, query func(context.Context, string, ...any) pgx.Row) error {
		var s seen
		if err := query(ctx, rowsSQL, key).Scan(&s.ids, &s.replica, &s.port); err != nil {
			return err
		}
		if was, again := shown[key]; again && (len(was.ids) != len(s.ids) || was.port != s.port) {
			m.fail("%s: %s: %d rows of key %d on %d and then %d on %d in one transaction", a.name, next, len(was.ids), key, was.port, len(s.ids), s.port)
		}
		shown[key] = s
		return nil
	}
	_, _, err := m.call(a, next, func(ctx context.Context, at *instance) error {
		switch next.how {
		case "session":
			return one(ctx, next.key, at.router.Read(ctx).QueryRow)
		case "Strong":
			return one(ctx, next.key, at.router.Read(ctx, db.Strong()).QueryRow)
		case "MaxStaleness":
			return one(ctx, next.key, at.router.Read(ctx, db.MaxStaleness(next.stale)).QueryRow)
		case "Any":
			return one(ctx, next.key, at.router.Read(ctx, db.Any()).QueryRow)
		case "ReadTx":
			return at.router.ReadTx(ctx, func(ctx context.Context, tx pgx.Tx) error {
				for key := range machineKeys {
					if err := one(ctx, key, tx.QueryRow); err != nil {
						return err
					}
				}
				return one(ctx, next.key, at.router.Read(ctx).QueryRow)
			})
		default:
			tx, err := at.router.BeginTx(ctx, pgx.TxOptions{AccessMode: pgx.ReadOnly})
			if err != nil {
				return err
			}
			defer tx.Rollback(ctx)
			if err := one(ctx, next.key, tx.QueryRow); err != nil {
				return err
			}
			return tx.Commit(ctx)
		}
	})
	if err != nil {
		return
	}
	gone := make(map[*entry]bool)
	for key, s := range shown {
		m.check(a, next, key, s, session, all, began, gone)
	}
	m.mu.Lock()
	a.seen = slices.DeleteFunc(a.seen, func(e *entry) bool { return gone[e] }) // known to be lost
	m.mu.Unlock()
}

// check holds what a read has shown of a key against what it must show.
func (m *machine) check(a *actor, next act, key int, s seen, session, all []*entry, began time.Time, gone map[*entry]bool) {
	at := m.instances[a.at]
	m.mu.Lock()
	m.tally["reads by "+next.how]++
	if s.replica {
		m.tally["reads by "+next.how+" on replicas"]++
	}
	detail := func(e *entry, why string) string {
		return fmt.Sprintf("%s at %s, %s: the server on port %d (replica: %t) does not show %v, acknowledged %v before, which %s; the token: %v",
			a.name, at.name, next, s.port, s.replica, e, began.Sub(e.acked), why, m.verify(a.token))
	}
	got := make(map[int]bool, len(s.ids))
	var wrong []string
	rows := make(map[*entry]int)
	for _, id := range s.ids {
		got[id] = true
		e := m.byID[id]
		rows[e]++
		if e.state == failed || e.state == aborted {
			wrong = append(wrong, fmt.Sprintf("%s: %s shows row %d, which failed: %v", a.name, next, id, e))
		}
	}
	for e, n := range rows {
		if n != len(e.ids) {
			wrong = append(wrong, fmt.Sprintf("%s: %s shows %d of %d rows of %v", a.name, next, n, len(e.ids), e))
		}
	}
	missing := func(e *entry) bool { return e.key == key && !got[e.ids[0]] }
	own := make(map[*entry]bool)
	behind := 0
	for _, e := range session {
		own[e] = true
		if !missing(e) {
			continue
		}
		switch {
		case next.how == "Any" || next.how == "MaxStaleness":
			behind = 1
		case m.excused(e):
			gone[e] = true
			m.tally["lost writes missed by a session that was told"]++
		case e.async && m.crashedSince(e.acked) || e.unplaced && m.promotions > 0:
			// A crash is reported by whoever wrote, when it has seen it.
			m.pending = append(m.pending, missed{e, detail(e, "its session has seen")})
		default:
			wrong = append(wrong, detail(e, "its session has seen, and nobody has reported it lost"))
		}
	}
	m.tally["reads by "+next.how+" behind their session"] += behind
	for _, e := range all {
		late := next.stale
		if e.async {
			late += asyncSlack
		}
		if !missing(e) || own[e] && next.how != "MaxStaleness" || m.excused(e) {
			continue
		}
		if next.how == "Strong" || next.how == "MaxStaleness" && began.Sub(e.acked) > late {
			if m.promotions == 0 && !(e.async && m.crashedSince(e.acked)) {
				wrong = append(wrong, detail(e, "it should"))
			}
			m.pending = append(m.pending, missed{e, detail(e, "it should")})
		}
	}
	m.mu.Unlock()
	for _, text := range wrong {
		m.fail("%s", text)
	}
}

func (m *machine) crashedSince(at time.Time) bool {
	// A write that is acknowledged while its primary is killed is so in time.
	return slices.ContainsFunc(m.crashes, func(c time.Time) bool { return c.Add(time.Second).After(at) })
}

// excused: somebody has reported that what ends at or past the write is lost from
// somewhere before it.
func (m *machine) excused(e *entry) bool {
	for _, i := range m.instances {
		i.lost.mu.Lock()
		found := slices.ContainsFunc(i.lost.all, func(l db.LostWrite) bool {
			switch {
			case l.Mark.Timeline == l.Timeline: // a crash, after which positions come again
				return l.Mark.Timeline == e.mark.Timeline && (!e.exact || l.Mark.LSN == e.mark.LSN)
			case !e.exact:
				return l.Mark.Timeline >= e.mark.Timeline
			}
			return l.Mark.Timeline >= e.mark.Timeline && l.Mark.LSN >= e.mark.LSN && e.mark.LSN > l.Fork
		})
		i.lost.mu.Unlock()
		if found {
			return true
		}
	}
	return false
}

// checkpoint has each server write its position down, as it does every five minutes. A replica that had come further than the one
// that was promoted, and lost that when it was killed, follows; but what it shows does not tell it from one that did not lose it, until its
// control file is of the new timeline.
func (m *machine) checkpoint() {
	m.t.Log("restart points are written, since a replica is not read from")
	for _, role := range []string{"primary", "replica"} {
		for _, s := range m.stack.Services() {
			if s.Role != role {
				continue
			}
			ctx, cancel := context.WithTimeout(m.t.Context(), 5*time.Second)
			conn, err := pgx.Connect(ctx, stack.SuperuserURL(s.Direct))
			if err == nil {
				_, err = conn.Exec(ctx, "CHECKPOINT")
				_ = conn.Close(ctx)
			}
			cancel()
			if err != nil {
				m.t.Log(s.Name, err)
			}
		}
	}
	time.Sleep(200 * time.Millisecond)
}

// end has all faults end, and looks at what is there.
func (m *machine) end() {
	t := m.t
	t.Log(m.stamp("all faults end"))
	within(t, 60*time.Second, func() error { return m.stack.ClearFaults(t.Context()) })
	patience := time.Now().Add(20 * time.Second)
	for _, i := range m.instances {
		within(t, 40*time.Second, func() error {
			ctx, cancel := context.WithTimeout(client(t), 2*time.Second)
			defer cancel()
			if _, err := i.router.Write(ctx).Exec(ctx, "INSERT INTO t VALUES (-1, -1) ON CONFLICT (id) DO UPDATE SET n = -1"); err != nil {
				return err
			}
			// Both replicas must serve, or one that is never used again would not be seen.
			ports := make(map[int]bool)
			for range 20 {
				var s seen
				if err := i.router.Read(ctx).QueryRow(ctx, rowsSQL, 0).Scan(&s.ids, &s.replica, &s.port); err != nil {
					return err
				}
				if s.replica {
					ports[s.port] = true
				}
			}
			if len(ports) < 2 {
				if time.Now().After(patience) {
					m.checkpoint()
				}
				return fmt.Errorf("%s reads on %d replicas", i.name, len(ports))
			}
			return nil
		})
	}
	for _, a := range m.actors {
		for range 2 {
			for key := range machineKeys {
				m.read(a, act{kind: "read", how: "session", key: key})
			}
			a.at = 1 - a.at
		}
	}

	conn, err := pgx.Connect(t.Context(), m.stack.DatabaseURL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	rows, _ := conn.Query(t.Context(), "SELECT id FROM t WHERE id > 0")
	ids, err := pgx.CollectRows(rows, pgx.RowTo[int])
	if err != nil {
		t.Fatal(err)
	}
	there := make(map[int]bool)
	for _, id := range ids {
		there[id] = true
	}
	for _, e := range m.entries {
		n := 0
		for _, id := range e.ids {
			if there[id] {
				n++
			}
		}
		present := n > 0
		switch {
		case n != 0 && n != len(e.ids):
			m.fail("%d of %d rows of %v are there", n, len(e.ids), e)
		case e.state == acknowledged && !present:
			m.tally["acknowledged writes lost"]++
			if e.async {
				m.tally["acknowledged writes lost, that did not wait for the disk"]++
			}
			told := m.excused(e)
			if e.exact {
				told = e.by.lost.has(e.mark)
			}
			switch {
			case told:
			case e.unplaced && m.promotions > 0:
				m.tally["acknowledged writes lost, of which nobody knew where they were"]++
			default:
				m.fail("acknowledged, lost, and not reported: %v", e)
			}
		case e.state == acknowledged:
			m.tally["acknowledged writes there"]++
			m.falseAlarm(e)
		case present && (e.state == failed || e.state == aborted):
			m.fail("failed (aborted: %t), and there: %v", e.state == aborted, e)
		case e.state == unknown && present:
			m.tally["unknown writes there"]++
		case e.state == unknown:
			m.tally["unknown writes not there"]++
		}
	}
	for _, p := range m.pending {
		if there[p.entry.ids[0]] {
			m.fail("it is there: %s", p.detail)
		}
	}
}

// falseAlarm: what was reported lost for certain, and is there, was right at the fork.
func (m *machine) falseAlarm(e *entry) {
	for _, i := range m.instances {
		for _, l := range i.lost.all {
			if e.exact && l.Mark.Timeline == e.mark.Timeline && l.Mark.LSN == e.mark.LSN {
				m.tally["reported, and there"]++
				if l.Fork != 0 && l.Mark.LSN > l.Fork+64<<10 {
					m.fail("reported lost %d bytes past the fork, and there: %v", l.Mark.LSN-l.Fork, e)
				}
			}
		}
	}
}

func (m *machine) report() {
	for _, i := range m.instances {
		m.tally["reported by "+i.name] = len(i.lost.all)
	}
	for _, what := range slices.Sorted(maps.Keys(m.tally)) {
		m.t.Logf("%6d %s", m.tally[what], what)
	}
	for _, what := range slices.Sorted(maps.Keys(m.slowest)) {
		m.t.Logf("slowest %8v %s", m.slowest[what].Round(time.Millisecond), what)
	}
	reads, replicas := m.tally["reads by session"], m.tally["reads by session on replicas"]
	m.t.Logf("%d steps in %v; %.1f %% of reads by session were on replicas", machineSteps, time.Since(m.began).Round(time.Second), 100*float64(replicas)/float64(max(reads, 1)))
	if replicas == 0 {
		m.t.Error("no read was on a replica")
	}
	// Else nothing was there to be caught.
	if m.failures == 0 {
		if m.tally["reads by Any behind their session"] == 0 {
			m.t.Error("no unguarded read was behind its session: this test could not fail")
		}
		if m.tally["acknowledged writes lost"] == 0 {
			m.t.Error("no write was lost")
		}
	}
}
