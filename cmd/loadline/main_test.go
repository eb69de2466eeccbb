package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// The test's own program is the command, so that it runs with -race, and the
// application that it starts.
func TestMain(m *testing.M) {
	switch {
	case len(os.Args) > 1 && os.Args[1] == "test-app":
		testApp(os.Args[2:])
	case os.Getenv("LOADLINE_TEST_COMMAND") != "":
		os.Exit(run())
	default:
		os.Exit(m.Run())
	}
}

// testApp answers every request with its port and its database. With "stubborn" it
// ignores requests to end, with "drains" it takes a while to,
// with "mute" it never listens, with "broken" it ends at once.
func testApp(args []string) {
	if slices.Contains(args, "stubborn") {
		signal.Ignore(syscall.SIGTERM, syscall.SIGINT)
	}
	if slices.Contains(args, "drains") {
		asked := make(chan os.Signal, 1)
		signal.Notify(asked, syscall.SIGTERM)
		go func() {
			<-asked
			time.Sleep(300 * time.Millisecond)
			fmt.Println("drained")
			os.Exit(0)
		}()
	}
	if slices.Contains(args, "mute") {
		time.Sleep(time.Hour)
	}
	if slices.Contains(args, "broken") {
		fmt.Fprintln(os.Stderr, "no such flag: -x")
		os.Exit(3)
	}
	_ = http.ListenAndServe("127.0.0.1:"+os.Getenv("PORT"), http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "%s %s %s", os.Getenv("PORT"), os.Getenv("DATABASE_URL"), os.Getenv("DATABASE_REPLICA_URLS"))
	}))
}

// loadline prepares a run of the command.
func loadline(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, os.Args[0], args...)
	cmd.Env = append(os.Environ(), "LOADLINE_TEST_COMMAND=1", "NO_COLOR=1")
	return cmd
}

// result runs the command to its end.
func result(t *testing.T, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute) // not t's: clean-ups run commands, too
	defer cancel()
	out, err := loadline(ctx, args...).CombinedOutput()
	return string(out), err
}

// running is a command that was started.
type running struct {
	t     *testing.T
	cmd   *exec.Cmd
	out   *output
	ready string        // path of up's ready file
	done  chan struct{} // closed when it has ended
}

// output may be read while it is written.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// start starts the command; it ends with the test.
func start(t *testing.T, cmd *exec.Cmd) *running {
	t.Helper()
	r := &running{t: t, cmd: cmd, out: &output{}, done: make(chan struct{})}
	r.cmd.Stdout, r.cmd.Stderr = r.out, r.out
	r.cmd.WaitDelay = time.Second // a child that outlives it must not hold the test
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = r.cmd.Wait()
		close(r.done)
	}()
	t.Cleanup(func() {
		_ = r.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-r.done:
		case <-time.After(30 * time.Second):
			_ = r.cmd.Process.Kill()
			t.Errorf("%s did not end; it printed:\n%s", r, r.out)
		}
		if t.Failed() {
			t.Logf("%s printed:\n%s", r, r.out)
		}
	})
	return r
}

// String is the command's name.
func (r *running) String() string { return "loadline " + r.cmd.Args[1] }

func up(t *testing.T, dir string, args ...string) *running {
	t.Helper()
	t.Cleanup(func() { // when it has ended
		if out, err := result(t, "down", "--wipe", "--data", dir); err != nil {
			t.Errorf("down --wipe: %v\n%s", err, out)
		}
	})
	ready := filepath.Join(t.TempDir(), "ready.json")
	args = append([]string{"up", "--data", dir, "--port-base", "0", "--ready-file", ready}, args...)
	r := start(t, loadline(context.Background(), args...))
	r.ready = ready
	return r
}

type readyFile struct {
	App, Admin struct{ URL string }
	Services   []readyService
}

func (r *running) waitReady() readyFile {
	r.t.Helper()
	var ready readyFile
	r.eventually(90*time.Second, "ready", func() bool {
		data, err := os.ReadFile(r.ready)
		return err == nil && json.Unmarshal(data, &ready) == nil
	})
	return ready
}

func (r *running) waitPrinted(limit time.Duration, text string) {
	r.t.Helper()
	r.eventually(limit, "output "+text, func() bool { return strings.Contains(r.out.String(), text) })
}

func (r *running) eventually(limit time.Duration, what string, holds func() bool) {
	r.t.Helper()
	for end := time.Now().Add(limit); !holds(); time.Sleep(10 * time.Millisecond) {
		select {
		case <-r.done:
			if !holds() {
				r.t.Fatalf("%s ended (%v) before: %s; it printed:\n%s", r, r.cmd.ProcessState, what, r.out)
			}
			return
		default:
		}
		if time.Now().After(end) {
			r.t.Fatalf("not within %s: %s; %s printed:\n%s", limit, what, r, r.out)
		}
	}
}

func (r *running) waitEnd(limit time.Duration) int {
	r.t.Helper()
	select {
	case <-r.done:
	case <-time.After(limit):
		r.t.Fatalf("%s did not end within %s; it printed:\n%s", r, limit, r.out)
	}
	return r.cmd.ProcessState.ExitCode()
}

func (f readyFile) service(t *testing.T, name string) readyService {
	t.Helper()
	i := slices.IndexFunc(f.Services, func(s readyService) bool { return s.Name == name })
	if i < 0 {
		t.Fatalf("there is no service %s in %+v", name, f)
	}
	return f.Services[i]
}

// primary is the address of the server that has the role, whatever its name.
func (f readyFile) primary(t *testing.T) string {
	t.Helper()
	i := slices.IndexFunc(f.Services, func(s readyService) bool { return s.Role == "primary" })
	if i < 0 {
		t.Fatalf("there is no primary in %+v", f)
	}
	return f.Services[i].Addr
}

// alive reports whether there is a process, other than one that nobody has waited
// for yet.
func alive(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return false
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || !bytes.Contains(stat, []byte(") Z "))
}
