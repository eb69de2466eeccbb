package stack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
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
	stopSignal syscall.Signal
	isPostgres bool
}

func startProcess(spec processSpec) (*process, error) {
	log, err := openLog(spec.log)
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
		name: spec.name, log: spec.log, cmd: cmd,
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
	p.signal(syscall.SIGCONT) // a paused process takes no other signal
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
		p.signal(syscall.SIGCONT)
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

// openLog starts a new log and keeps the one of the run before.
func openLog(path string) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	if err := os.Rename(path, path+".1"); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	// Appending, so that the file can be cut by others while it is written.
	return os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
}

// tail returns the last lines of a file, or nothing.
func tail(path string, lines int) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	const most = 8 << 10
	if info, err := f.Stat(); err == nil && info.Size() > most {
		_, _ = f.Seek(-most, io.SeekEnd)
	}
	data, _ := io.ReadAll(io.LimitReader(f, most))
	all := bytes.Split(bytes.TrimSpace(data), []byte("\n"))
	return string(bytes.Join(all[max(0, len(all)-lines):], []byte("\n")))
}

func indent(text string) string {
	if text == "" {
		return ""
	}
	return "\n    " + strings.ReplaceAll(text, "\n", "\n    ")
}

// groupAlive reports whether a process group has a member other than zombies, for
// which nobody may ever wait.
func groupAlive(pgid int) bool {
	if syscall.Kill(-pgid, 0) != nil {
		return false
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return true
	}
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		if fields := procStat(pid); len(fields) > 2 && fields[2] == strconv.Itoa(pgid) && fields[0] != "Z" && fields[0] != "X" {
			return true
		}
	}
	return false
}

// procStat returns the fields of proc_pid_stat(5) from the third, the state, on; or
// nothing when there is no such process, or no /proc.
func procStat(pid int) []string {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
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
