package inbox_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// crew are the workers of TestLedger, of which each that is killed is succeeded by another, and
// what they have said.
type crew struct {
	t        *testing.T
	db, nats string
	watching sync.WaitGroup

	mu        sync.Mutex
	hands     []*hand         // that live
	over      map[string]bool // roles that get no more workers
	counts    map[string]int
	committed []string // ids of which the commit was acknowledged
	leads     []stamp
	published []stamp
}

// hand is a worker's process. Its fields are guarded by the crew's mutex.
type hand struct {
	role    string
	cmd     *exec.Cmd
	told    io.WriteCloser
	stderr  bytes.Buffer // to be read when it has ended
	ended   chan struct{}
	killed  bool // by the crew
	dies    bool // by itself
	spared  bool // it is not to be killed
	leaving bool // it was asked to end
	lost    int  // leases
}

// stamp is a lease's epoch, and a time in ns.
type stamp struct{ epoch, at int64 }

func newCrew(t *testing.T, db, nats string) *crew {
	c := &crew{t: t, db: db, nats: nats, over: make(map[string]bool), counts: make(map[string]int)}
	t.Cleanup(func() {
		for _, role := range []string{roleWriter, roleRelay, roleMember} {
			c.end(role, func(h *hand) { _ = h.cmd.Process.Kill() })
		}
		c.watching.Wait()
	})
	return c
}

// hire starts a worker.
func (c *crew) hire(role string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hireLocked(role)
}

func (c *crew) hireLocked(role string) {
	h := &hand{role: role, ended: make(chan struct{})}
	h.cmd = exec.Command(os.Args[0], "ledger-worker", role, c.db, c.nats)
	// A worker in which there is a race ends by itself, which is an error here; others end at once.
	h.cmd.Env = append(os.Environ(), "GORACE=halt_on_error=1 atexit_sleep_ms=0")
	h.cmd.Stderr = &h.stderr
	said, err := h.cmd.StdoutPipe()
	if err == nil {
		h.told, err = h.cmd.StdinPipe()
	}
	if err == nil {
		err = h.cmd.Start()
	}
	if err != nil {
		c.t.Errorf("start a %s: %v", role, err)
		return
	}
	c.hands = append(c.hands, h)
	c.watching.Go(func() {
		for lines := bufio.NewScanner(said); lines.Scan(); {
			c.hear(h, lines.Text())
		}
		c.buried(h, h.cmd.Wait())
	})
}

func (c *crew) hear(h *hand, line string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	verb, rest, _ := strings.Cut(line, " ")
	switch verb {
	case saysDies:
		h.dies = true
		c.counts[rest]++
	case saysDid:
		c.counts[rest]++
	case saysCommitted:
		c.committed = append(c.committed, rest)
	case saysLost:
		h.lost++
	case saysLeads, saysPublishes:
		var s stamp
		if _, err := fmt.Sscan(rest, &s.epoch, &s.at); err != nil {
			c.t.Errorf("a %s said %q: %v", h.role, line, err)
		}
		if verb == saysLeads {
			c.leads = append(c.leads, s)
		} else {
			c.published = append(c.published, s)
		}
	default:
		c.t.Errorf("a %s said %q", h.role, line)
	}
}

// buried replaces a worker that has ended: because it was killed, or asked to.
func (c *crew) buried(h *hand, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer close(h.ended)
	c.hands = slices.DeleteFunc(c.hands, func(other *hand) bool { return other == h })
	exit, _ := errors.AsType[*exec.ExitError](err)
	killed := exit != nil && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL
	switch {
	case killed && h.killed && !h.dies:
		c.counts[kill(h.role)]++
	case err == nil && h.role == roleMember && h.leaving && !c.over[roleMember]:
		c.counts[memberLeaves]++
	case !killed && (err != nil || !h.leaving):
		c.t.Errorf("a %s has ended by itself: %v\n%s", h.role, err, &h.stderr)
		return
	}
	if !c.over[h.role] {
		c.hireLocked(h.role)
	}
}

// memberLeaves, and its work goes to others.
const memberLeaves = "member leaves"

// kill names what the crew does to its workers.
func kill(role string) string { return role + " is killed" }

// killOne kills a worker, if there is one that may be.
func (c *crew) killOne(role string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if h := c.anyLocked(role); h != nil {
		h.killed = true
		_ = h.cmd.Process.Kill() // it may have just ended
	}
}

func (c *crew) anyLocked(role string) *hand {
	var all []*hand
	for _, h := range c.hands {
		if h.role == role && !h.killed && !h.dies && !h.spared && !h.leaving {
			all = append(all, h)
		}
	}
	if len(all) == 0 {
		return nil
	}
	return all[rand.IntN(len(all))]
}

func (c *crew) any(role string) *hand {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.anyLocked(role)
}

// spare finds a worker by its process, and has it live; nil when it dies.
func (c *crew) spare(pid string) *hand {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, h := range c.hands {
		if strconv.Itoa(h.cmd.Process.Pid) == pid && !h.killed && !h.dies && !h.leaving {
			h.spared = true
			return h
		}
	}
	return nil
}

func (c *crew) release(h *hand) {
	c.mu.Lock()
	defer c.mu.Unlock()
	h.spared = false
}

// count says how often something has happened.
func (c *crew) count(kind string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.counts[kind]
}

func (c *crew) add(kind string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counts[kind]++
}

func (c *crew) losses(h *hand) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return h.lost
}

// tell says where to die; nowhere, when that is empty.
func (h *hand) tell(point string) { _, _ = io.WriteString(h.told, point+"\n") }

// dismiss asks a worker to end, and waits until it has.
func (c *crew) dismiss(h *hand) {
	c.mu.Lock()
	h.leaving = true
	c.mu.Unlock()
	_ = h.told.Close()
	c.await(h)
}

func (c *crew) await(h *hand) {
	select {
	case <-h.ended:
	case <-time.After(20 * time.Second):
		c.t.Errorf("a %s does not end", h.role)
		_ = h.cmd.Process.Kill()
	}
}

// dismissAll ends a role.
func (c *crew) dismissAll(role string) { c.end(role, func(h *hand) { _ = h.told.Close() }) }

func (c *crew) end(role string, tell func(*hand)) {
	c.mu.Lock()
	c.over[role] = true
	var all []*hand
	for _, h := range c.hands {
		if h.role == role {
			h.leaving = true
			all = append(all, h)
		}
	}
	c.mu.Unlock()
	for _, h := range all {
		tell(h)
	}
	for _, h := range all {
		c.await(h)
	}
}

// late are publications by a relay after another has had its lease for longer than any may last.
func (c *crew) late() (all []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.published {
		for _, l := range c.leads {
			if l.epoch > p.epoch && p.at > l.at+leaseTTL.Nanoseconds() {
				all = append(all, fmt.Sprintf("by %d after %d", p.epoch, l.epoch))
				break
			}
		}
	}
	return all
}
