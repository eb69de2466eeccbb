package stack

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// RunState is what a running stack writes into its directory, so that other
// commands find it, and the next start finds what it left behind when it was
// killed.
type RunState struct {
	PID      int       `json:"pid"`
	StartID  string    `json:"start_id"`
	PortBase int       `json:"port_base"`
	Env      []string  `json:"env"`
	Services []Service `json:"services"`
}

// OwnerRuns reports whether the process that wrote the state runs. While a stack is
// just starting, the state may still be that of an earlier one.
func (s RunState) OwnerRuns() bool {
	return s.PID > 0 && s.StartID != "" && startID(s.PID) == s.StartID
}

func statePath(dir string) string { return filepath.Join(dir, "state.json") }

func (s *Stack) writeStateLocked() error {
	services := s.servicesLocked()
	if s.setup != nil {
		services = append(services, *s.setup)
	}
	return WriteJSON(statePath(s.cfg.Dir), RunState{
		PID: os.Getpid(), StartID: startID(os.Getpid()), PortBase: s.ports.Base, Env: s.Env(), Services: services,
	})
}

// WriteJSON replaces a file by the value as JSON, at once and as a whole.
func WriteJSON(path string, value any) error {
	data, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // fails once it is renamed
	if _, err := f.Write(append(data, '\n')); err != nil {
		_ = f.Close()
		return err
	}
	if err := f.Chmod(0o644); err != nil {
		_ = f.Close()
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// ReadState returns the state of the stack in a directory. It returns
// [ErrNotRunning] when none runs there; with an error that is ErrNotRunning the
// state is that of a run which was killed, if there was one.
func ReadState(dir string) (RunState, error) {
	var state RunState
	data, err := os.ReadFile(statePath(dir))
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return state, err
	default:
		if err := json.Unmarshal(data, &state); err != nil {
			return state, fmt.Errorf("%s: %w", statePath(dir), err)
		}
	}
	// The lock, not the file, says whether a stack runs.
	if !exists(filepath.Join(dir, "lock")) {
		return state, ErrNotRunning
	}
	lock, err := lockFile(filepath.Join(dir, "lock"))
	if errors.Is(err, errLocked) {
		return state, nil
	}
	if err != nil {
		return state, err
	}
	_ = lock.Close()
	return state, ErrNotRunning
}

// ErrNotRunning says that no stack runs in a directory.
var ErrNotRunning = errors.New("no stack is running in this directory")

// formatFile marks a directory as ours, so that nothing is written into, and above
// all deleted from, a directory that is not. It holds the version of the layout and
// a name drawn for the directory.
const (
	formatFile = "loadline-stack"
	format     = 1
)

// contents are what a stack has in its directory. The user may have other things
// there, a log or the ready file, say; the directory's mark goes last.
var contents = []string{"postgres", "redis", "nats", "logs", "state.json", "faults.json", "cluster.json", "secret", "lock", formatFile}

// checkFormat returns fs.ErrNotExist when the directory is not there or holds nothing
// of ours, and an error that says why when it is not a stack's.
func checkFormat(dir string) error {
	text, err := os.ReadFile(filepath.Join(dir, formatFile))
	if errors.Is(err, fs.ErrNotExist) {
		for _, name := range contents {
			path := filepath.Join(dir, name)
			if info, err := os.Stat(path); err == nil && !(name == "lock" && info.Size() == 0) { // of one who wipes it
				return fmt.Errorf("stack: %s is there, and not of a stack; choose another data directory", path)
			}
		}
		return fs.ErrNotExist
	}
	if err != nil {
		return fmt.Errorf("stack: data directory: %w", err)
	}
	first, _, _ := strings.Cut(string(text), " ")
	switch version, err := strconv.Atoi(strings.TrimSpace(first)); {
	case err != nil:
		return fmt.Errorf("stack: %s: %w", filepath.Join(dir, formatFile), err)
	case version > format:
		return fmt.Errorf("stack: %s was made by a newer loadline (format %d, this one knows %d)", dir, version, format)
	}
	return nil
}

// prepareDir makes the directory ours and locks it. One that is wiped meanwhile is made
// again.
func prepareDir(dir string) (lock *os.File, err error) {
	for range 5 {
		if lock, err = tryPrepareDir(dir); !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	return lock, err
}

func tryPrepareDir(dir string) (*os.File, error) {
	if err := checkFormat(dir); errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, fmt.Errorf("stack: data directory: %w", err)
		}
		mark := fmt.Sprintf("%d %s\n", format, strings.ToLower(rand.Text()[:12]))
		if err := os.WriteFile(filepath.Join(dir, formatFile), []byte(mark), 0o644); err != nil {
			return nil, fmt.Errorf("stack: data directory: %w", err)
		}
	} else if err != nil {
		return nil, err
	}
	info, err := os.Stat(filepath.Join(dir, formatFile))
	if err != nil {
		return nil, fmt.Errorf("stack: data directory: %w", err)
	}
	// Root could write there, and leave files that the owner cannot.
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && int(stat.Uid) != os.Geteuid() {
		return nil, fmt.Errorf("stack: data directory %s belongs to another user (uid %d)", dir, stat.Uid)
	}
	return lockDir(dir)
}

func lockDir(dir string) (*os.File, error) {
	lock, err := lockFile(filepath.Join(dir, "lock"))
	for range 5 { // another command may be looking whether it is locked
		if !errors.Is(err, errLocked) {
			break
		}
		time.Sleep(20 * time.Millisecond)
		lock, err = lockFile(filepath.Join(dir, "lock"))
	}
	switch {
	case errors.Is(err, errLocked):
		owner := ""
		if state, err := ReadState(dir); err == nil && state.PID != 0 {
			owner = fmt.Sprintf(" (pid %d)", state.PID)
		}
		return nil, fmt.Errorf("%w: %s%s; stop it with: loadline down --data %s", ErrRunning, dir, owner, dir)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("stack: data directory %s belongs to another user: %w", dir, err)
	case err != nil:
		return nil, fmt.Errorf("stack: data directory: %w", err)
	}
	return lock, nil
}

// CleanUp ends what a killed run left behind in a directory and returns the names
// of the services ended. It returns [ErrRunning] while a stack runs there.
func CleanUp(dir string) ([]string, error) {
	dir, lock, err := takeOver(dir)
	if lock == nil {
		return nil, err
	}
	defer lock.Close()
	return endLeftovers(dir)
}

// Wipe ends what a killed run left behind in a directory and deletes all its data.
// It returns [ErrRunning] while a stack runs there, and touches no directory that
// is not a stack's.
func Wipe(dir string) error {
	dir, lock, err := takeOver(dir)
	if lock == nil {
		return err
	}
	defer lock.Close()
	// What is about to be deleted needs not be restored, which may fail.
	if err := discardFaults(dir); err != nil {
		return err
	}
	for _, home := range postgresHomes(dir) {
		if err := os.RemoveAll(home); err != nil {
			return err
		}
	}
	for _, name := range contents {
		if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, syscall.ENOTEMPTY) {
		return err
	}
	return nil
}

// takeOver locks a stack's directory. There is no lock, and no error, when the
// directory does not exist.
func takeOver(dir string) (string, *os.File, error) {
	dir, err := resolve(dir)
	if err != nil {
		return "", nil, err
	}
	switch err := checkFormat(dir); {
	case errors.Is(err, fs.ErrNotExist):
		return dir, nil, nil
	case err != nil:
		return dir, nil, err
	}
	lock, err := lockDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return dir, nil, nil // another has wiped it meanwhile
	}
	return dir, lock, err
}

// resolve returns the directory's absolute name, with links followed: PostgreSQL's
// processes are found by theirs.
func resolve(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	// What does not exist yet must have the same name when it does.
	rest := ""
	for existing := dir; ; existing = filepath.Dir(existing) {
		if resolved, err := filepath.EvalSymlinks(existing); err == nil {
			return filepath.Join(resolved, rest), nil
		}
		if existing == filepath.Dir(existing) {
			return dir, nil
		}
		rest = filepath.Join(filepath.Base(existing), rest)
	}
}

// postgresHomes are the places where PostgreSQL's data may be: in the directory or,
// when we are root and PostgreSQL's user cannot enter that, in one of /var/lib that
// has the name drawn for the directory.
func postgresHomes(dir string) []string {
	homes := []string{filepath.Join(dir, "postgres")}
	text, err := os.ReadFile(filepath.Join(dir, formatFile))
	if fields := strings.Fields(string(text)); err == nil && len(fields) == 2 && os.Geteuid() == 0 {
		homes = append(homes, filepath.Join("/var/lib/loadline", filepath.Base(fields[1])))
	}
	return homes
}

// endLeftovers ends the processes of a run that was killed. The directory's lock
// is held, so whatever of it still runs is such a leftover.
func endLeftovers(dir string) ([]string, error) {
	ended, err := endProcesses(dir)
	if err != nil {
		return ended, err
	}
	if err := undoOffline(dir); err != nil {
		return ended, err
	}
	if err := os.Remove(statePath(dir)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return ended, err
	}
	return ended, nil
}

// discardFaults ends the processes, and takes away what faults have mounted over data
// that is about to be deleted.
func discardFaults(dir string) error {
	if _, err := endProcesses(dir); err != nil {
		return err
	}
	for _, place := range append(postgresHomes(dir), dir) {
		limited, err := filepath.Glob(filepath.Join(place, "*"+limitedSuffix))
		if err != nil {
			return err
		}
		for _, path := range limited {
			if err := discardDisk(strings.TrimSuffix(path, limitedSuffix)); err != nil {
				return err
			}
		}
	}
	return nil
}

func endProcesses(dir string) ([]string, error) {
	var state RunState
	if data, err := os.ReadFile(statePath(dir)); err == nil {
		_ = json.Unmarshal(data, &state) // half a state is as good as none
	}
	var ended []string
	var pids []int
	for _, service := range state.Services {
		if service.PID <= 1 || service.StartID == "" || startID(service.PID) != service.StartID {
			continue
		}
		ended = append(ended, service.Name)
		pids = append(pids, service.PID)
		if service.Role != "primary" && service.Role != "replica" {
			_ = syscall.Kill(-service.PID, syscall.SIGKILL)
		}
		_ = syscall.Kill(service.PID, syscall.SIGKILL)
	}
	// PostgreSQL's children end by themselves when they miss the postmaster, which
	// may take a while, and not at all while they are paused. They are found by
	// their working directory, the server's data.
	orphans := processesBelow(postgresHomes(dir))
	for _, pid := range orphans {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	pids = append(pids, orphans...)
	if len(orphans) > 0 && !slices.Contains(ended, "primary") {
		ended = append(ended, "postgres")
	}
	for limit := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		pids = slices.DeleteFunc(pids, func(pid int) bool { return startID(pid) == "" })
		if len(pids) == 0 {
			break
		}
		if time.Now().After(limit) {
			return ended, fmt.Errorf("stack: processes of an earlier run do not end: %v", pids)
		}
	}
	return ended, nil
}

// endServersIn ends what runs in the data of a server that is about to be started there: a
// process that a run had just forked when it was killed is not found before it is
// PostgreSQL, which may be after that run's leftovers were ended.
func endServersIn(ctx context.Context, dir string) error {
	for limit := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		pids := processesBelow([]string{dir})
		if len(pids) == 0 || ctx.Err() != nil {
			return nil
		}
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		if time.Now().After(limit) {
			return fmt.Errorf("stack: processes in %s do not end: %v", dir, pids)
		}
	}
}

// removeStaleLock removes the lock file of a postmaster that has ended. In a
// container whose first process waits for nobody's children a killed postmaster
// stays a zombie, and PostgreSQL takes its number for that of a running server.
func removeStaleLock(lock string) error {
	if !exists("/proc/self/stat") {
		return nil // without it we cannot be sure that none of its children is left
	}
	text, err := os.ReadFile(lock)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	line, _, _ := strings.Cut(string(text), "\n")
	if pid, err := strconv.Atoi(line); err == nil && startID(pid) == "" && len(processesBelow([]string{filepath.Dir(lock)})) == 0 {
		return os.Remove(lock)
	}
	return nil
}

// processesBelow returns PostgreSQL's processes whose working directory is one of
// the directories or lies below. It finds none where there is no /proc.
func processesBelow(dirs []string) []int {
	entries, _ := os.ReadDir("/proc")
	var pids []int
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		cwd, err := os.Readlink(filepath.Join("/proc", entry.Name(), "cwd"))
		if err != nil {
			continue
		}
		exe, _ := os.Readlink(filepath.Join("/proc", entry.Name(), "exe"))
		program := filepath.Base(exe)
		if !strings.HasPrefix(program, "postgres") && program != "initdb" && !strings.HasPrefix(program, "pg_") {
			continue // a shell that somebody opened there, say
		}
		for _, dir := range dirs {
			if cwd == dir || strings.HasPrefix(cwd, dir+string(filepath.Separator)) {
				pids = append(pids, pid)
				break
			}
		}
	}
	return pids
}
