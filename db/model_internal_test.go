package db

import (
	"context"
	"log/slog"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/loadlinehq/loadline/causal"
)

// server is a PostgreSQL server of the model. Its log holds the numbers of writes; a
// position is ten bytes per write.
type server struct {
	primary  bool
	up       bool
	timeline uint32
	history  []uint32 // the timelines that it has come through
	log      []int
	replayed causal.LSN // where recovery has ended, on a primary
	started  time.Time
	life     int
	conns    []modelConn
}

type modelConn struct {
	life int
	info connInfo
}

func (s *server) lsn() causal.LSN { return causal.LSN(1000 + 10*len(s.log)) }

// client is a session, and the writes that it has been told are done.
type client struct {
	session *causal.Session
	done    []done
}

type done struct {
	id   int
	mark causal.Mark
}

// machine drives the router's decisions against the model.
type machine struct {
	r       *Router
	servers []*server
	clients []*client
	lost    map[causal.Mark]bool
	tick    int64
	writes  int
	reads   int
}

func (m *machine) now() time.Time {
	m.tick++
	return time.Unix(0, m.tick*int64(time.Millisecond))
}

func newMachine() *machine {
	m := &machine{lost: make(map[causal.Mark]bool)}
	m.r = &Router{log: slog.New(slog.DiscardHandler)}
	m.r.config = Config{LostWrite: func(l LostWrite) { m.lost[causal.Mark{Timeline: l.Mark.Timeline, LSN: l.Mark.LSN}] = true }}.withDefaults()
	m.r.config.LagLimit = -1
	m.r.lost.forks = make(map[uint32]causal.LSN)
	m.r.lost.reported = make(map[causal.Mark]struct{})
	m.r.system.Store(7)
	m.r.running.Store(true)
	news := make(chan struct{})
	m.r.news.Store(&news)
	for i := range 3 {
		n := &node{index: i, name: string(rune('a' + i)), router: m.r, gate: newGate("g", 10, 10), kick: make(chan struct{}, 1)}
		n.state.Store(&state{err: context.DeadlineExceeded})
		m.r.nodes = append(m.r.nodes, n)
		m.servers = append(m.servers, &server{primary: i == 0, up: true, timeline: 1, started: m.now()})
	}
	for i := range m.servers {
		m.poll(i)
	}
	for range 3 {
		m.clients = append(m.clients, &client{session: causal.NewSession(causal.Token{})})
	}
	return m
}

func (m *machine) ask(i int) state {
	s := m.servers[i]
	return state{
		at: m.now(), primary: s.primary, timeline: s.timeline, lsn: s.lsn(),
		replayed: s.replayed, started: s.started,
	}
}

func (m *machine) poll(i int) {
	found := state{at: m.now(), err: context.DeadlineExceeded, primary: m.r.nodes[i].state.Load().primary}
	if m.servers[i].up {
		found = m.ask(i)
	}
	m.r.note(m.r.nodes[i], &found)
}

// leader is the server that replicas follow.
func (m *machine) leader() *server {
	var leader *server
	for _, s := range m.servers {
		if s.primary && (leader == nil || s.timeline > leader.timeline) {
			leader = s
		}
	}
	return leader
}

// follow has a replica replay some of the leader's log, if its own is a part of that.
func (m *machine) follow(i, most int) {
	s, leader := m.servers[i], m.leader()
	if s.primary || !s.up || !leader.up || s.timeline > 1 && !slices.Contains(leader.history, s.timeline) || len(s.log) > len(leader.log) || !slices.Equal(s.log, leader.log[:len(s.log)]) {
		return
	}
	end := min(len(s.log)+most, len(leader.log))
	s.log = slices.Clone(leader.log[:end])
	// The timeline changes where the log passes the fork.
	if leader.timeline == 1 || s.lsn() >= leader.replayed {
		s.timeline, s.history = leader.timeline, slices.Clone(leader.history)
	}
}

// restart sends a replica back to its last restart point. The postmaster may stay.
func (m *machine) restart(i, back int, postmaster bool) {
	s := m.servers[i]
	s.life++
	s.up = true
	if postmaster {
		s.started = m.now()
	}
	if s.primary {
		s.replayed = s.lsn() // as a crash recovery has it
		return
	}
	s.log = slices.Clone(s.log[:max(0, len(s.log)-back)])
}

// promote has a replica become the primary. Asked is if a poll comes just before it is one.
func (m *machine) promote(i int, old, asked bool) {
	s, leader := m.servers[i], m.leader()
	if s.primary || !s.up {
		return
	}
	timeline := leader.timeline
	for _, other := range m.servers {
		timeline = max(timeline, other.timeline)
	}
	s.timeline = timeline + 1
	s.history = append(s.history, s.timeline)
	if asked {
		m.poll(i)
	}
	s.primary, s.replayed = true, s.lsn()
	leader.up = old // one that runs on is what a partition makes of it
}

// rebuild makes a replica of any server that is not the leader.
func (m *machine) rebuild(i int) {
	s, leader := m.servers[i], m.leader()
	if s == leader {
		return
	}
	*s = server{up: true, timeline: leader.timeline, history: slices.Clone(leader.history), log: slices.Clone(leader.log), started: m.now(), life: s.life + 1}
}

// connection is one from the pool, or a new one. Nil when the server is down.
func (m *machine) connection(i int, fresh bool) *connInfo {
	s := m.servers[i]
	if !s.up {
		return nil
	}
	s.conns = slices.DeleteFunc(s.conns, func(c modelConn) bool { return c.life != s.life }) // broken
	if fresh || len(s.conns) == 0 {
		own := m.ask(i)
		s.conns = append(s.conns, modelConn{s.life, connInfo{since: m.now(), state: own}})
	}
	return &s.conns[len(s.conns)-1].info
}

func (m *machine) write(c *client, fresh bool) {
	cluster := m.r.cluster.Load()
	ctx := causal.WithSession(context.Background(), c.session)
	if m.r.mayWrite(ctx, cluster) != nil {
		return
	}
	n := cluster.primary
	s := m.servers[n.index]
	info := m.connection(n.index, fresh)
	if info == nil || !info.primaryOf(n.state.Load(), cluster.timeline) || !s.primary {
		return
	}
	m.writes++
	s.log = append(s.log, m.writes)
	mark := causal.Mark{System: 7, Timeline: cluster.timeline, LSN: s.lsn()}
	m.r.acknowledged(ownWrite{Mark: mark})
	c.session.Add(mark)
	c.done = append(c.done, done{m.writes, mark})
}

func (m *machine) read(t *rapid.T, c *client, fresh bool) {
	cluster := m.r.cluster.Load()
	ctx := causal.WithSession(context.Background(), c.session)
	n := m.r.needOf(ctx, cluster, &callOptions{})
	chosen := m.r.pick(cluster, &n, 0)
	if chosen != nil {
		info := m.connection(chosen.index, fresh)
		if info == nil || !info.proven(chosen.state.Load(), n.timeline, n.target) {
			return
		}
	} else {
		if chosen = cluster.primary; chosen == nil || n.ahead {
			return
		}
		info := m.connection(chosen.index, fresh)
		if info == nil || !info.primaryOf(chosen.state.Load(), cluster.timeline) {
			return
		}
	}
	m.reads++
	for _, d := range c.done {
		if slices.Contains(m.servers[chosen.index].log, d.id) {
			continue
		}
		if !m.lost[causal.Mark{Timeline: d.mark.Timeline, LSN: d.mark.LSN}] {
			t.Fatalf("server %s does not show write %d (timeline %d, %v), and nobody has reported it lost", chosen.name, d.id, d.mark.Timeline, d.mark.LSN)
		}
	}
	// What was lost and reported is not missed again.
	c.done = slices.DeleteFunc(c.done, func(d done) bool {
		return m.lost[causal.Mark{Timeline: d.mark.Timeline, LSN: d.mark.LSN}]
	})
}

// TestModel: whatever servers do, no session reads the past: not on a replica that lags,
// was restarted, or went another way, nor on a primary that was replaced.
func TestModel(t *testing.T) {
	t.Parallel()
	reads, lost := 0, 0
	for range 10 { // of some 3000 steps each
		rapid.Check(t, modelRun(&reads, &lost))
	}
	t.Logf("%d reads, %d writes lost and reported", reads, lost)
	if reads == 0 || lost == 0 {
		t.Error("nothing was read, or lost")
	}
}

func modelRun(reads, lost *int) func(*rapid.T) {
	return func(t *rapid.T) {
		m := newMachine()
		one := func() int { return rapid.IntRange(0, 2).Draw(t, "server") }
		who := func() *client { return m.clients[rapid.IntRange(0, 2).Draw(t, "client")] }
		flip := func(what string) bool { return rapid.Bool().Draw(t, what) }
		write := func(t *rapid.T) { m.write(who(), flip("fresh")) }
		read := func(t *rapid.T) { m.read(t, who(), flip("fresh")) }
		follow := func(t *rapid.T) { m.follow(one(), rapid.IntRange(1, 4).Draw(t, "most")) }
		poll := func(t *rapid.T) { m.poll(one()) }
		t.Repeat(map[string]func(*rapid.T){
			"write": write, "write again": write, "read": read, "read again": read, "read more": read,
			"follow": follow, "follow again": follow, "poll": poll, "poll again": poll, "poll more": poll,
			"restart": func(t *rapid.T) {
				m.restart(one(), rapid.IntRange(0, 4).Draw(t, "back"), flip("postmaster"))
			},
			"promote": func(t *rapid.T) { m.promote(one(), flip("old goes on"), flip("asked meanwhile")) },
			"rebuild": func(t *rapid.T) { m.rebuild(one()) },
		})
		*reads += m.reads
		*lost += len(m.lost)
	}
}
