package stack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// process is a child in a process group of its own, so that a Ctrl-C in the
// terminal reaches only us, and we stop the children in order.
type process struct {
	name string
	log  string
	dir  string // where it works
	cmd  *exec.Cmd

	// stopSignal asks for an orderly end. It goes to the whole group, except for
	// PostgreSQL, whose postmaster passes it on.
	stopSignal  syscall.Signal
	isPostgres  bool
	askedToStop atomic.Bool

	forced chan struct{} // closed when its end is forced
	force  sync.Once
	done   chan struct{} // closed when the process, and its group, have ended
	err    error         // how it ended; valid after done
}

type processSpec struct {
	name       string
	argv       []string
	env        []string // added to ours
	dir        string
	user       *account // nil: ours
	log        string
	again      bool // the log goes on: it is a restart in the same run
	stopSignal syscall.Signal
	isPostgres bool
}

func startProcess(spec processSpec) (*process, error) {
	log, err := openLog(spec.log, spec.again)
	if err != nil {
		return nil, err
	}
	defer log.Close()

	cmd := exec.Command(spec.argv[0], spec.argv[1:]...)
	cmd.Dir = spec.dir
	cmd.Env = append(os.Environ(), spec.env...)
	if spec.isPostgres {
		cmd.Env = append(withoutPostgres(os.Environ()), spec.env...)
	}
	// The child writes to the file itself: a pipe through us would kill it with
	// SIGPIPE when we are killed.
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = spec.user.attr()
	cmd.SysProcAttr.Setpgid = true

	p := &process{
		name: spec.name, log: spec.log, dir: spec.dir, cmd: cmd,
		stopSignal: spec.stopSignal, isPostgres: spec.isPostgres,
		forced: make(chan struct{}), done: make(chan struct{}),
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("%s: start %s: %w", spec.name, spec.argv[0], err)
	}
	go func() {
		p.err = cmd.Wait()
		if !p.isPostgres {
			p.endGroup()
		}
		close(p.done)
	}()
	return p, nil
}

// endGroup ends what a dead leader has left behind and would keep its port. A
// wrapper, such as go run or a shell, may end before the server that it runs: when
// the group was asked to stop, the server gets its time to drain.
func (p *process) endGroup() {
	for limit := time.Now().Add(stopGrace); p.askedToStop.Load() && groupAlive(p.pid()) && time.Now().Before(limit); {
		select {
		case <-p.forced:
			limit = time.Now()
		case <-time.After(20 * time.Millisecond):
		}
	}
	_ = syscall.Kill(-p.pid(), syscall.SIGKILL)
}

func (p *process) pid() int { return p.cmd.Process.Pid }

func (p *process) running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

func (p *process) signal(sig syscall.Signal) {
	if p.isPostgres {
		_ = p.cmd.Process.Signal(sig)
		return
	}
	_ = syscall.Kill(-p.pid(), sig)
}

// stop asks the process to end and waits until it has. When ctx is done first it
// is ended by force.
func (p *process) stop(ctx context.Context) {
	p.askedToStop.Store(true)
	if !p.running() {
		return
	}
	p.signal(p.stopSignal)
	p.resume() // a paused process takes no other signal
	select {
	case <-p.done:
	case <-ctx.Done():
		p.kill()
	}
}

// kill ends the process by force. PostgreSQL gets a moment for its immediate
// shutdown, in which the postmaster takes its children along.
func (p *process) kill() {
	p.askedToStop.Store(true)
	p.force.Do(func() { close(p.forced) })
	if p.isPostgres {
		p.signal(syscall.SIGQUIT)
		p.resume()
		// The postmaster itself ends children by force after five seconds
		// (SIGKILL_CHILDREN_AFTER_SECS in postmaster.c).
		select {
		case <-p.done:
			return
		case <-time.After(8 * time.Second):
		}
	}
	p.signal(syscall.SIGKILL)
	<-p.done
}

// crash ends the process, and all that belong to it, at the same moment and without
// a warning, as the kernel does when memory runs out.
func (p *process) crash() {
	if !p.running() {
		return
	}
	if !p.isPostgres {
		p.signal(syscall.SIGKILL)
		<-p.done
		return
	}
	// The postmaster first: it would begin to recover when it sees a child die. Again
	// and again, for one that was just being forked.
	p.signal(syscall.SIGKILL)
	for limit := time.Now().Add(5 * time.Second); time.Now().Before(limit); time.Sleep(time.Millisecond) {
		members := slices.DeleteFunc(p.members(), func(pid int) bool { return startID(pid) == "" })
		if len(members) == 0 {
			break
		}
		for _, pid := range members {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	<-p.done
}

// members are PostgreSQL's processes, the postmaster among them. Each backend has a
// session and group of its own, so they are found by the directory they work in.
func (p *process) members() []int {
	pids := processesBelow([]string{p.dir})
	if len(pids) == 0 { // no /proc
		pids = append(childPIDs(p.pid()), p.pid())
	}
	return pids
}

// childPIDs is for systems without /proc.
func childPIDs(pid int) []int {
	out, err := exec.Command("pgrep", "-P", strconv.Itoa(pid)).Output()
	if err != nil {
		return nil
	}
	var pids []int
	for _, field := range strings.Fields(string(out)) {
		if child, err := strconv.Atoi(field); err == nil {
			pids = append(pids, child)
		}
	}
	return pids
}

// pause stops the process and all that belong to it, and returns when they stand still:
// a signal reaches the threads of a busy process one by one. Of PostgreSQL, the
// postmaster alone would change nothing for the connections that there are.
func (p *process) pause(ctx context.Context) error {
	members := p.members
	if !p.isPostgres {
		members = func() []int { return groupMembers(p.pid()) }
	}
	// Without the parent there are no new ones, but one may just have been begun.
	if err := p.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	for {
		moving := false
		for _, pid := range members() {
			if standsStill(pid) {
				continue
			}
			moving = exists("/proc/self/stat")
			_ = syscall.Kill(pid, syscall.SIGSTOP)
		}
		if !moving {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-p.done:
			return p.failure()
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// standsStill reports whether each thread of a process is stopped, or has ended.
func standsStill(pid int) bool {
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if len(threads) == 0 {
		return !exists(fmt.Sprintf("/proc/%d", pid)) && exists("/proc/self/stat")
	}
	for _, path := range threads {
		if fields := statFields(path); len(fields) > 0 && !strings.Contains("TtZX", fields[0]) {
			return false
		}
	}
	return true
}

// resume lets go on what was paused.
func (p *process) resume() {
	if !p.isPostgres {
		p.signal(syscall.SIGCONT)
		return
	}
	for _, pid := range p.members() {
		_ = syscall.Kill(pid, syscall.SIGCONT)
	}
}

// failure describes how the process ended, with the end of its log.
func (p *process) failure() error {
	how, last := "exited with status 0", indent(tail(p.log, 5))
	if p.err != nil {
		how = p.err.Error()
	}
	if exit, ok := errors.AsType[*exec.ExitError](p.err); ok {
		if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
			how = "was ended by signal " + strconv.Itoa(int(status.Signal())) + " (" + status.Signal().String() + ")"
			if status.Signal() == syscall.SIGKILL {
				last = "" // it had no time to write why
			}
		}
	}
	return fmt.Errorf("%s (pid %d) %s; log: %s%s", p.name, p.pid(), how, p.log, last)
}

// await calls ready until it returns nil. It gives up when the process ends, when
// ctx is done, or after the time given.
func await(parent context.Context, p *process, limit time.Duration, ready func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(parent, limit)
	defer cancel()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		try, cancelTry := context.WithTimeout(ctx, 2*time.Second)
		err := ready(try)
		cancelTry()
		if err == nil {
			return nil
		}
		// The server answers, and will answer the same next time.
		if pg, ok := errors.AsType[*pgconn.PgError](err); ok && pg.Code != "57P03" { // cannot_connect_now
			return fmt.Errorf("%s: %w", p.name, err)
		}
		select {
		case <-p.done:
			return p.failure()
		case <-ctx.Done():
			if parent.Err() != nil {
				return context.Cause(parent)
			}
			return fmt.Errorf("%s is not ready after %s: %w; log: %s%s", p.name, limit, err, p.log, indent(tail(p.log, 5)))
		case <-ticker.C:
		}
	}
}

// withoutPostgres leaves out what tells PostgreSQL's programs to connect in another
// way than we say, such as PGSSLMODE.
func withoutPostgres(env []string) []string {
	return slices.DeleteFunc(env, func(entry string) bool { return strings.HasPrefix(entry, "PG") })
}

// groupAlive reports whether a process group has a member other than zombies, for
// which nobody may ever wait.
func groupAlive(pgid int) bool {
	if syscall.Kill(-pgid, 0) != nil {
		return false
	}
	return !exists("/proc/self/stat") || len(groupMembers(pgid)) > 0
}

// groupMembers are the processes of a group that are no zombies. Without /proc it is
// the one that leads it.
func groupMembers(pgid int) []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return []int{pgid}
	}
	var members []int
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		if fields := procStat(pid); len(fields) > 2 && fields[2] == strconv.Itoa(pgid) && fields[0] != "Z" && fields[0] != "X" {
			members = append(members, pid)
		}
	}
	return members
}

// procStat returns the fields of proc_pid_stat(5) from the third, the state, on; or
// nothing when there is no such process, or no /proc.
func procStat(pid int) []string {
	return statFields(fmt.Sprintf("/proc/%d/stat", pid))
}

func statFields(path string) []string {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	// The name in parentheses before may hold anything.
	return strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
}

// startID identifies a process together with its number, which the system uses
// again: it is the time of its start. It is empty when there is no such process.
func startID(pid int) string {
	if fields := procStat(pid); len(fields) >= 20 {
		if fields[0] == "Z" || fields[0] == "X" {
			return ""
		}
		return fields[19] // field 22 is the start time
	}
	if _, err := os.Stat("/proc/self/stat"); err == nil {
		return ""
	}
	out, err := exec.Command("ps", "-o", "lstart=", "-p", strconv.Itoa(pid)).Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}
